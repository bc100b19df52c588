"""The forward pass: versions of a model on one device, each in the form that was found best for it."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from coupler.errors import ConfigError, PluginError
from coupler.learning.registry import ModelCard
from coupler.records import Rows
from coupler.routine import Routine
from coupler.serving.cuda import CudaDevice
from coupler.serving.device import Answerer, CpuDevice, Device
from coupler.serving.eager import CHUNK_ROWS
from coupler.serving.forms import FormChoice, choose_form, sample_rows
from coupler.serving.fusedform import FusedForm
from coupler.surrogate import Surrogate

__all__ = ["CHUNK_ROWS", "Predictor", "choose_device"]

# The candidate, the incumbent and the one before it, for a rollback.
_KEPT_VERSIONS = 3


class _Loaded(NamedTuple):
    """A version that can be asked."""

    answerer: Answerer
    choice: FormChoice


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
    form : str
        ``surrogate.form``: ``auto``, or the form of all versions.
    timed : bool
        Whether the clock may choose the form; in deterministic runs it may not.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        device: torch.device,
        threads: int = 1,
        *,
        form: str = "auto",
        timed: bool = True,
    ) -> None:
        self._device: Device = (
            CpuDevice(n_in, n_out, threads) if device.type == "cpu" else CudaDevice(n_in, n_out, device)
        )
        self._form, self._timed = form, timed
        # Replaced as a whole: who answers reads it while another thread loads.
        self._versions: Mapping[int, _Loaded] = {}

    @property
    def choices(self) -> Mapping[int, FormChoice]:
        """What was measured and chosen for every loaded version."""
        return {version: loaded.choice for version, loaded in self._versions.items()}

    def has(self, version: int) -> bool:
        """Say whether a version is loaded."""
        return version in self._versions

    @property
    def routines(self) -> Mapping[int, Routine]:
        """Versions that compiled code can ask without coming here, and how."""
        forms = ((version, loaded.answerer) for version, loaded in self._versions.items())
        return {version: form.routine for version, form in forms if isinstance(form, FusedForm) and form.routine}

    def load(
        self,
        version: int,
        surrogate: Surrogate,
        card: ModelCard | None = None,
        *,
        judged: NDArray[np.float64] | None = None,
        form: str | None = None,
        needed: Collection[int] = (),
    ) -> None:
        """Take a version in, choose its form, and let the oldest version go.

        A model that cannot answer is loaded all the same: it says so when it is asked.

        Parameters
        ----------
        version : int
            Its number.
        surrogate : Surrogate
            The model.
        card : ModelCard, optional
            What is known of it: it is tried on rows of the range it was trained on.
        judged : ndarray (n, n_in), optional
            Inputs it was judged on; it is tried on these if there are any.
        form : str, optional
            The form of this version, whatever it is like.
        needed : collection of int
            Other versions that must stay, however many came after them: the one that answers, and the one before it
            while it may be taken back.

        Raises
        ------
        PluginError
            If the form that is asked for cannot be had.
        """
        samples = sample_rows(surrogate.signature, card, judged)
        found = choose_form(self._device, surrogate.eval(), samples, form=form or self._form, timed=self._timed)
        # The oldest come first; one that is loaded again is not the oldest any more.
        kept = {number: loaded for number, loaded in self._versions.items() if number != version}
        surplus = max(len(kept) + 1 - _KEPT_VERSIONS, 0)
        for old in [one for one in kept if one not in needed][:surplus]:
            del kept[old]
        self._versions = {**kept, version: _Loaded(*found)}

    def predict(self, parts: Sequence[Rows], version: int) -> None:
        """Answer every part of a batch in place.

        Parameters
        ----------
        parts : sequence of Rows
            Elements and the place for their answer, each part with its own time step.
        version : int
            Which version answers.

        Raises
        ------
        PluginError
            If the version is not loaded or the model returns other shapes than the operator declares.
        """
        loaded = self._versions.get(version)
        if loaded is None:
            raise PluginError(f"version {version} of the model is not loaded (loaded: {list(self._versions)})")
        loaded.answerer(parts)


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
