"""A GPU: rows are fetched from page-locked memory, and forwards are recorded once per size and replayed.

Launching the kernels of a small network costs more than running them. A recorded CUDA graph is one launch; its tensors
stay where they are, so a batch is copied into them and its answer out of them. Two lanes, each a stream with graphs of
its own, let the copies of one batch pass while the other is computed.
"""

import ctypes
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch

from coupler.errors import PluginError
from coupler.records import Rows
from coupler.serving.batches import Batch, pack
from coupler.serving.crew import Crew
from coupler.serving.device import EAGER_BUCKETS, Answerer
from coupler.serving.eager import CHUNK_ROWS, Shape, TorchForm, chunk_rows
from coupler.surrogate import Surrogate

_log = logging.getLogger("coupler")
# Batch sizes: the smallest is one launch whatever it holds, the largest fills the device. Of long rows, as those of
# tiles, there are fewer in each.
_BUCKETS = (256, 4096, 32768)
_LANES = 2
_WARM_UPS = 3


class CudaDevice:
    """A GPU.

    Forms: ``graph``, recorded forwards; ``eager``, torch as it is.

    Parameters
    ----------
    n_in, n_out : int
        Columns of the operator.
    device : torch.device
        Which one.
    """

    preference: tuple[str, ...] = ("graph", "eager")
    measured: tuple[str, ...] = ("graph", "eager")

    def __init__(self, n_in: int, n_out: int, device: torch.device) -> None:
        self._n_in, self._n_out, self._device = n_in, n_out, device

    def answerer(self, surrogate: Surrogate, form: str, samples: Sequence[Rows]) -> Answerer:
        """Make a form of a surrogate ready; see :class:`coupler.serving.device.Device`."""
        surrogate = surrogate.to(self._device)
        shape = Shape(type(surrogate).__name__, self._n_in, self._n_out)
        if form == "graph":
            return GraphForm(surrogate, shape, self._device, samples)
        if form == "eager":
            ready = TorchForm(surrogate.predict, shape, self._device, Crew(1), nullcontext)
            ready.use_buckets(EAGER_BUCKETS, samples)
            return ready
        raise PluginError(f'surrogate.form = "{form}" is not for {self._device}: write auto, graph or eager.')


class PageLock:
    """Memory that the GPU may read and write while the processor goes on; held until the process ends.

    It is never unlocked, and so never unmapped: other memory at the same place would be taken for it. Where the system
    does not let so much be locked, copies take longer, and that is all.

    Parameters
    ----------
    device : torch.device
        The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: list[memoryview] = []

    def take(self, memory: memoryview) -> None:
        """Page-lock memory that rows will lie in."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        with torch.cuda.device(self._device):
            code = int(torch.cuda.cudart().cudaHostRegister(address, memory.nbytes, 0))  # type: ignore[no-untyped-call]
        if code:
            _log.warning(
                "the GPU cannot use %.0f MiB of shared memory directly (cudaHostRegister gives %d), so copies take "
                "longer: raise the limit of locked memory, ulimit -l unlimited",
                memory.nbytes / 2**20,
                code,
            )
        self._held.append(memory)


class _Recording(NamedTuple):
    """A forward of one size, and the tensors it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: torch.Tensor
    dt: torch.Tensor
    mean: torch.Tensor
    score: torch.Tensor


class _Lane:
    """A stream and the recordings that are replayed in it."""

    def __init__(self, surrogate: Surrogate, device: torch.device, sizes: Sequence[int], sample: Rows) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._recordings = {size: self._record(surrogate, device, size, sample) for size in sizes}

    def answer(self, batch: Batch) -> None:
        """Put a batch on its way; it is answered when the stream has come to its end."""
        recording = self._recordings[batch.size]
        with torch.cuda.stream(self.stream):
            start = 0
            for rows in batch.segments:
                stop = start + len(rows.inputs)
                recording.inputs[start:stop].copy_(torch.from_numpy(rows.inputs), non_blocking=True)
                recording.dt[start:stop].fill_(rows.dt)
                start = stop
            # What lies behind them is from a batch before: valid inputs, whose answers nobody reads.
            recording.graph.replay()
            start = 0
            for rows in batch.segments:
                stop = start + len(rows.inputs)
                torch.from_numpy(rows.mean).copy_(recording.mean[start:stop], non_blocking=True)
                torch.from_numpy(rows.score).copy_(recording.score[start:stop], non_blocking=True)
                start = stop

    def _record(self, surrogate: Surrogate, device: torch.device, size: int, sample: Rows) -> _Recording:
        inputs = torch.from_numpy(sample.inputs[:1]).to(device).expand(size, -1).contiguous()
        dt = torch.full((size,), sample.dt, dtype=torch.float64, device=device)
        self.stream.wait_stream(torch.cuda.current_stream(device))  # which fills the tensors
        with torch.cuda.stream(self.stream):
            for _ in range(_WARM_UPS):  # libraries choose their kernels and take their workspaces before the recording
                surrogate.predict(inputs, dt)
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=self.stream):
            prediction = surrogate.predict(inputs, dt)
            mean, score = prediction.mean.double(), prediction.score.double()
        return _Recording(graph, inputs, dt, mean, score)


class GraphForm:
    """Answers by replaying recorded forwards, batches dealt out to lanes in turn.

    Parameters
    ----------
    surrogate : Surrogate
        The model, on the device.
    shape : Shape
        Its name and columns.
    device : torch.device
        The GPU.
    samples : sequence of Rows
        Typical rows; their mean and score are overwritten.

    Raises
    ------
    PluginError
        If the model returns other shapes than the operator declares.
    """

    def __init__(self, surrogate: Surrogate, shape: Shape, device: torch.device, samples: Sequence[Rows]) -> None:
        with torch.inference_mode():
            shape.check(surrogate.predict(*_sample(samples[0], device)), len(samples[0].inputs))
            *smaller, largest = (max(size * chunk_rows(shape.n_in) // CHUNK_ROWS, 1) for size in _BUCKETS)
            self._lanes = [_Lane(surrogate, device, (*smaller, largest), samples[0]) for _ in range(_LANES)]
        self._sizes: tuple[int, ...] = (largest,)
        whole = self._trial(samples, largest)
        equal = [size for size in smaller if self._trial(samples, size) == whole]
        self._sizes = (*equal, largest)

    def __call__(self, parts: Sequence[Rows]) -> None:
        """Answer every part in place."""
        with torch.inference_mode():
            try:
                for number, batch in enumerate(pack(parts, self._sizes)):
                    self._lanes[number % _LANES].answer(batch)
            finally:  # whatever is raised, no copy may still be under way when the next question comes
                for lane in self._lanes:
                    lane.stream.synchronize()

    def _trial(self, samples: Sequence[Rows], size: int) -> bytes:
        """Answer the samples with one size only."""
        self._sizes = (size,)
        self(samples)
        return b"".join(part.mean.tobytes() + part.score.tobytes() for part in samples)


def _sample(rows: Rows, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.from_numpy(rows.inputs).to(device)
    return inputs, torch.full((len(inputs),), rows.dt, dtype=torch.float64, device=device)
