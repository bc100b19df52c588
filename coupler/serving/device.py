"""Devices: where rows meet the processor, and the forms in which each of them runs a surrogate.

A form is a way of answering with the same weights. An element's answer is bitwise the same whatever rows are answered
with it and whoever asks: the compiled form gives every element a lane of its own, and torch only ever sees batches of a
few fixed sizes, padded, as its products round differently for other sizes (an unpadded batch of one does).
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import llvmlite.binding
import torch

from coupler.errors import PluginError
from coupler.records import Rows
from coupler.serving.crew import Crew
from coupler.serving.eager import CHUNK_ROWS, Shape, TorchForm
from coupler.serving.fusedform import FusedForm
from coupler.surrogate import Prediction, Surrogate

Answerer = Callable[[Sequence[Rows]], None]
"""``answerer(parts)`` answers every part in place."""

# Batch sizes of torch: the largest keeps the activations of small networks in the second-level cache.
EAGER_BUCKETS = (16, 128, 512, CHUNK_ROWS)
# The compiler makes code for each size, which takes it a while.
_COMPILED_BUCKETS = (128, CHUNK_ROWS)
# Processors multiply bfloat16 by one of these.
_BF16_FEATURES = ("avx512bf16", "amx-bf16", "bf16")


class Device(Protocol):
    """A processor that answers rows.

    Attributes
    ----------
    preference : tuple of str
        Its forms from the one that is usually best on; what is used where nothing may be measured.
    measured : tuple of str
        The forms that are worth measuring, ``eager`` among them.
    """

    preference: tuple[str, ...]
    measured: tuple[str, ...]

    def answerer(self, surrogate: Surrogate, form: str, samples: Sequence[Rows]) -> Answerer:
        """Make a form of a surrogate ready.

        Parameters
        ----------
        surrogate : Surrogate
            The model, in evaluation mode.
        form : str
            Which form of it.
        samples : sequence of Rows
            Typical rows, to try things out with; their mean and score are overwritten.

        Returns
        -------
        callable
            ``answerer(parts)``, which answers every part in place; one call at a time.

        Raises
        ------
        PluginError
            If the surrogate or the processor has no such form.
        """


class CpuDevice:
    """The processor itself; its memory is the arena's, so rows are read and written where they lie.

    Forms: ``fused``, the surrogate's own compiled form; ``eager``, torch as it is; ``bf16``, torch with products of
    bfloat16, where the processor multiplies it; ``compiled``, torch's compiler, only on demand, because it needs a C++
    compiler and takes it tens of seconds per version.

    Parameters
    ----------
    n_in, n_out : int
        Columns of the operator.
    threads : int
        Chunks that are computed at the same time. One chunk is too small for several threads to share.
    """

    preference: tuple[str, ...] = ("fused", "eager")
    measured: tuple[str, ...] = ("fused", "eager", "bf16")

    def __init__(self, n_in: int, n_out: int, threads: int = 1) -> None:
        self._n_in, self._n_out = n_in, n_out
        self._crew = Crew(threads)

    def answerer(self, surrogate: Surrogate, form: str, samples: Sequence[Rows]) -> Answerer:
        """Make a form of a surrogate ready; see :class:`Device`."""
        name = type(surrogate).__name__
        if form == "fused":
            forward = surrogate.fused()
            if forward is None:
                raise PluginError(f"{name} has no fused form: its method `fused` gives none.")
            return FusedForm(forward, self._crew)
        if form == "eager":
            return self._torch(surrogate, surrogate.predict, EAGER_BUCKETS, samples)
        if form == "bf16":
            features = llvmlite.binding.get_host_cpu_features()
            if not any(features.get(feature, False) for feature in _BF16_FEATURES):
                raise PluginError("This processor has no instructions for bfloat16, and in software it is slow.")
            return self._torch(surrogate, surrogate.predict, EAGER_BUCKETS, samples, _bfloat16)
        assert form == "compiled", form
        if not any(shutil.which(os.environ.get("CXX", name)) for name in ("c++", "g++", "clang++")):
            raise PluginError("The form `compiled` needs a C++ compiler: install g++, or set CXX to the one there is.")
        predict = torch.compile(surrogate.predict, dynamic=False)
        return self._torch(surrogate, predict, _COMPILED_BUCKETS, samples)

    def _torch(
        self,
        surrogate: Surrogate,
        predict: Callable[[torch.Tensor, torch.Tensor], Prediction],
        buckets: tuple[int, ...],
        samples: Sequence[Rows],
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Answerer:
        shape = Shape(type(surrogate).__name__, self._n_in, self._n_out)
        form = TorchForm(predict, shape, torch.device("cpu"), self._crew, precision)
        form.use_buckets(buckets, samples)
        return form


def _bfloat16() -> AbstractContextManager[object]:
    context: AbstractContextManager[object] = torch.autocast("cpu", dtype=torch.bfloat16)
    return context
