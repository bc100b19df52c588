"""Samples: elements with their truth, where in the run they come from, and why their truth was computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.learning.draws import element_draws
from coupler.records import Reason

COLUMNS = ("inputs", "dt", "truth", "step", "call", "ids", "reason")
"""The names of a batch's columns."""

# Neither the inputs nor the answer of an element had a say in these. BUDGET is not among them: it is what remains of
# a step once the doubtful elements have got reasons of their own.
_UNSELECTED = (
    Reason.AUDIT,
    Reason.TIMEOUT,
    Reason.SERVER_LOST,
    Reason.NO_MODEL,
    Reason.PHYSICS,
    Reason.SWITCHED_OFF,
)
_IS_UNSELECTED = np.isin(np.arange(len(Reason)), _UNSELECTED)


def unselected(reasons: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say whose truth was computed whatever the element is like: they stand for all decisions of their step.

    The others are what a model could not answer. They are good to learn from, and useless to judge on: of an answer
    that is nearly always right they show the exceptions only.

    Parameters
    ----------
    reasons : ndarray (n,) of uint8
        A :class:`coupler.records.Reason` each.

    Returns
    -------
    ndarray (n,) of bool

    Collective: no.
    """
    chosen: NDArray[np.bool_] = _IS_UNSELECTED[reasons]
    return chosen


@dataclass(frozen=True)
class SampleBatch:
    """Elements with their truth, and where in the run they come from.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs, units as the operator declares them.
    dt : ndarray (n,)
        Time step of each element.
    truth : ndarray (n, n_out)
        What the operator gave.
    step, call, ids : ndarray (n,), int64
        Time step, call within the step and global id; together they name an element.
    reason : ndarray (n,), uint8
        Why the truth was computed, a :class:`coupler.records.Reason`.
    """

    inputs: NDArray[np.float64]
    dt: NDArray[np.float64]
    truth: NDArray[np.float64]
    step: NDArray[np.int64]
    call: NDArray[np.int64]
    ids: NDArray[np.int64]
    reason: NDArray[np.uint8]

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        assert len(set(lengths.values())) == 1, f"columns of one batch differ in length: {lengths}"

    def __len__(self) -> int:
        return len(self.ids)

    def draw(self, count: int, *, purpose: int) -> "SampleBatch":
        """Give so many samples, in their order: those whose hash of (step, call, id) is lowest; all if there are fewer.

        Parameters
        ----------
        count : int
            At most how many.
        purpose : int
            Of the draw: two purposes choose independently.

        Collective: no.
        """
        if len(self) <= count:
            return self
        draws = element_draws(self.step, self.call, self.ids, purpose=purpose)
        # Stable, so that equal numbers, if ever, go to the earlier element.
        return self.take(np.sort(np.argsort(draws, kind="stable")[:count]))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "SampleBatch":
        """Give the samples of these rows, in this order."""
        return SampleBatch(**{name: getattr(self, name)[rows] for name in COLUMNS})

    def sorted_once(self) -> "SampleBatch":
        """Give the samples in the order of (step, call, id), each element once."""
        order = np.lexsort((self.ids, self.call, self.step))
        keys = np.stack([self.step, self.call, self.ids])[:, order]
        first = np.ones(len(self), dtype=np.bool_)
        first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        return self.take(order[first])

    @staticmethod
    def none(n_in: int, n_out: int) -> "SampleBatch":
        """Give a batch of no samples of an operator with so many inputs and outputs."""
        whole = np.empty(0, np.int64)
        return SampleBatch(
            np.empty((0, n_in)), np.empty(0), np.empty((0, n_out)), whole, whole, whole, np.empty(0, np.uint8)
        )

    @staticmethod
    def join(batches: Sequence["SampleBatch"]) -> "SampleBatch":
        """Put batches one after another; there must be at least one."""
        return SampleBatch(**{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in COLUMNS})
