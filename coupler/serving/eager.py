"""Torch as a form: it only ever sees batches of a few fixed sizes, padded, as its products round by their size."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from threading import local
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from coupler.errors import FieldMismatch, PluginError
from coupler.records import Rows
from coupler.serving.batches import Batch, copied, cut, pack
from coupler.serving.crew import Crew
from coupler.surrogate import Prediction

CHUNK_ROWS = 2048
# Of rows as long as those of tiles fewer make a chunk: padding is computed, too, and a chunk should stay in the cache.
_CHUNK_VALUES = 2**17
# A model that takes longer for one chunk [s] is not asked for a comparison of sizes.
_PATIENCE_SECONDS = 0.25
# So many rows tell whether another size rounds alike, at least.
_TRIED_ROWS = 512


def chunk_rows(n_in: int) -> int:
    """Rows of the largest batch of elements with so many inputs: ``CHUNK_ROWS``, or a smaller power of two."""
    return int(min(CHUNK_ROWS, 2 ** int(math.log2(max(_CHUNK_VALUES // n_in, 1)))))


class Shape(NamedTuple):
    """What a model is called, and the columns it must take and give."""

    name: str
    n_in: int
    n_out: int

    def check(self, prediction: Prediction, size: int) -> None:
        """Refuse an answer to so many elements that has another shape.

        Raises
        ------
        PluginError
            If the model returns other shapes than the operator declares.
        """
        if prediction.mean.shape != (size, self.n_out) or prediction.score.shape != (size,):
            raise PluginError(
                f"{self.name}.predict returned mean {tuple(prediction.mean.shape)} and score "
                f"{tuple(prediction.score.shape)} for {size} elements of {self.n_out} outputs"
            )


class TorchForm:
    """Answers by torch: the rows of all parts copied into batches of fixed sizes, and their answers back.

    Parameters
    ----------
    predict : callable
        The model's, or what a compiler made of it.
    shape : Shape
        Its name and columns.
    device : torch.device
        Where it is.
    crew : Crew
        Who computes the batches.
    precision : callable
        Gives the context to predict in.
    """

    def __init__(
        self,
        predict: Callable[[torch.Tensor, torch.Tensor], Prediction],
        shape: Shape,
        device: torch.device,
        crew: Crew,
        precision: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._predict, self._shape, self._device = predict, shape, device
        self._crew, self._precision = crew, precision
        self._most = chunk_rows(shape.n_in)
        self._buckets: tuple[int, ...] = (self._most,)
        self._own = local()

    def __call__(self, parts: Sequence[Rows]) -> None:
        """Answer every part in place."""
        self._crew.deal(self._answer, pack(parts, self._buckets))

    def use_buckets(self, buckets: Sequence[int], samples: Sequence[Rows]) -> None:
        """Use those sizes that give bitwise the same answers as the largest one.

        A model that cannot answer, or is slow, is asked once; it keeps the largest size.
        """
        started = time.perf_counter()
        if not self._answers(samples, self._most) or time.perf_counter() - started > _PATIENCE_SECONDS:
            return
        whole = copied(samples)
        equal = [size for size in buckets if size < self._most and self._agrees(whole, samples, size)]
        self._buckets = (*equal, self._most)

    def _agrees(self, whole: Sequence[Rows], samples: Sequence[Rows], size: int) -> bool:
        """Whether batches of a size get the answers that their rows have in the largest one: some, from all over it."""
        for part, before in zip(samples, whole, strict=True):
            part.mean[...], part.score[...] = before.mean, before.score
        pieces = [piece for part in samples for piece in cut(part, size)]
        some = [*pieces[:: max(size * len(pieces) // _TRIED_ROWS, 1)], pieces[-1]]
        for piece in some:
            piece.mean[...], piece.score[...] = math.nan, math.nan
        return self._answers(some, size) and all(
            part.mean.tobytes() == before.mean.tobytes() and part.score.tobytes() == before.score.tobytes()
            for part, before in zip(samples, whole, strict=True)
        )

    def _answers(self, parts: Sequence[Rows], size: int) -> bool:
        """Answer rows in batches of one size; say whether the model does."""
        self._buckets = (size,)
        try:
            self([piece for part in parts for piece in cut(part, size)])
        except Exception:  # noqa: BLE001, a user's model may raise anything, and does so again when it is asked
            return False
        finally:
            self._buckets = (self._most,)
        return True

    def _answer(self, batch: Batch) -> None:
        with torch.inference_mode(), self._precision():
            inputs, dt = self._tensors(batch)
            prediction = self._predict(inputs.to(self._device), dt.to(self._device))
        self._shape.check(prediction, batch.size)
        mean, score = _array(prediction.mean), _array(prediction.score)
        start = 0
        for segment in batch.segments:
            stop = start + len(segment.inputs)
            segment.mean[...], segment.score[...] = mean[start:stop], score[start:stop]
            start = stop

    def _tensors(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Give inputs and time steps of a batch: a padded copy, because a model may work on its inputs in place."""
        first, size = batch.segments[0], batch.size
        if first.inputs.shape[1] != self._shape.n_in:
            raise FieldMismatch(
                f"{self._shape.name} was asked about elements of {first.inputs.shape[1]} inputs; it has "
                f"{self._shape.n_in} inputs and {self._shape.n_out} outputs per element."
            )
        inputs, dt = self._buffers(size)
        start = 0
        for segment in batch.segments:
            stop = start + len(segment.inputs)
            inputs[start:stop], dt[start:stop] = segment.inputs, segment.dt
            start = stop
        # The padding is the first element again: any valid input does.
        inputs[start:], dt[start:] = inputs[0], dt[0]
        return torch.from_numpy(inputs), torch.from_numpy(dt)

    def _buffers(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give this thread's own rows to pack into."""
        try:
            inputs, dt = self._own.buffers
        except AttributeError:
            inputs, dt = self._own.buffers = np.empty((self._most, self._shape.n_in)), np.empty(self._most)
        return inputs[:size], dt[:size]


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.cpu().double().numpy()
