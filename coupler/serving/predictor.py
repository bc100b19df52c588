"""The forward pass: versions of a model on one device, run in chunks of one fixed size.

Every batch is cut into chunks of the same number of rows and the last one is padded. The matrix products then
have one shape whatever the batch, so the answer to an element is bitwise the same in any company (an unpadded
batch of one is not), and activations stay in the cache.
"""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from coupler.errors import ConfigError, PluginError
from coupler.surrogate import Surrogate

CHUNK_ROWS = 2048
# The candidate, the incumbent and the one before it, for a rollback.
_KEPT_VERSIONS = 3


class Predictor:
    """Loaded versions of one operator's model.

    Parameters
    ----------
    n_in, n_out : int
        Columns of the operator.
    device : torch.device
        Where the versions live.
    threads : int
        Chunks that are computed at the same time. One chunk is too small for several threads to share.
    """

    def __init__(self, n_in: int, n_out: int, device: torch.device, threads: int = 1) -> None:
        self._device = device
        self._n_in, self._n_out = n_in, n_out
        self._versions: OrderedDict[int, Surrogate] = OrderedDict()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="forward") if threads > 1 else None

    def load(self, version: int, surrogate: Surrogate) -> None:
        """Take a version in and let the oldest one go."""
        self._versions[version] = surrogate.to(self._device).eval()
        self._versions.move_to_end(version)  # one that is loaded again is not the oldest any more
        while len(self._versions) > _KEPT_VERSIONS:
            self._versions.popitem(last=False)

    def predict(
        self,
        inputs: NDArray[np.float64],
        dt: NDArray[np.float64],
        version: int,
        mean: NDArray[np.float64],
        score: NDArray[np.float64],
    ) -> None:
        """Answer a batch.

        Parameters
        ----------
        inputs : ndarray (n, n_in)
            Operator inputs.
        dt : ndarray (n,)
            Time steps.
        version : int
            Which version answers.
        mean : ndarray (n, n_out)
            Receives the outputs.
        score : ndarray (n,)
            Receives the scores.

        Raises
        ------
        PluginError
            If the version is not loaded or the model returns other shapes than the operator declares.
        """
        if version not in self._versions:
            raise PluginError(f"version {version} of the model is not loaded (loaded: {list(self._versions)})")
        surrogate = self._versions[version]

        def answer(start: int) -> None:
            rows = slice(start, min(start + CHUNK_ROWS, len(inputs)))
            self._answer_chunk(surrogate, inputs[rows], dt[rows], mean[rows], score[rows])

        starts = range(0, len(inputs), CHUNK_ROWS)
        for _ in map(answer, starts) if self._pool is None else self._pool.map(answer, starts):
            pass  # an exception of a chunk is raised here

    @torch.inference_mode()
    def _answer_chunk(
        self,
        surrogate: Surrogate,
        inputs: NDArray[np.float64],
        dt: NDArray[np.float64],
        mean: NDArray[np.float64],
        score: NDArray[np.float64],
    ) -> None:
        count = len(inputs)
        rows = torch.empty((CHUNK_ROWS, self._n_in), dtype=torch.float64)
        steps = torch.empty(CHUNK_ROWS, dtype=torch.float64)
        rows[:count], steps[:count] = torch.from_numpy(inputs), torch.from_numpy(dt)
        # The padding is the first element again: any valid input does.
        rows[count:], steps[count:] = rows[0], steps[0]
        prediction = surrogate.predict(rows.to(self._device), steps.to(self._device))
        if prediction.mean.shape != (CHUNK_ROWS, self._n_out) or prediction.score.shape != (CHUNK_ROWS,):
            raise PluginError(
                f"{type(surrogate).__name__}.predict returned mean {tuple(prediction.mean.shape)} and score "
                f"{tuple(prediction.score.shape)} for {CHUNK_ROWS} elements of {self._n_out} outputs"
            )
        mean[...] = prediction.mean[:count].cpu().numpy()
        score[...] = prediction.score[:count].cpu().numpy()


def choose_device(name: str) -> torch.device:
    """Turn ``surrogate.device`` into a device: ``auto`` takes a GPU if there is one.

    Raises
    ------
    ConfigError
        If a GPU is asked for by name and there is none: never silently the CPU.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ConfigError(f'surrogate.device = "{name}" is not a device: write auto, cpu or cuda:0.')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f'surrogate.device = "{name}", but torch sees {torch.cuda.device_count()} CUDA devices here. '
            "Use auto or cpu, or run where the GPU is."
        )
    return device
