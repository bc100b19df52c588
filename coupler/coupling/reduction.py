"""The one collective of a step: a sum of a few integers, started at the end of a step, used at the end of the next."""

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.grid import wait


class StepReduction:
    """A non-blocking sum of int64 over all ranks; exact, so independent of their number and order.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks of the run.
    length : int
        Numbers in a sum.
    """

    def __init__(self, comm: MPI.Intracomm, length: int) -> None:
        self._comm = comm
        self._mine = np.zeros(length, np.int64)
        self._sum = np.zeros(length, np.int64)
        self._started = False
        self._request: MPI.Request | None = None  # none either where a rank is alone

    def start(self, *mine: NDArray[np.int64]) -> None:
        """Start summing these numbers, put together; the sum before must have been finished.

        Collective: yes, non-blocking.
        """
        assert not self._started
        self._started = True
        alone, place = self._comm.size == 1, 0
        into = self._sum if alone else self._mine
        for numbers in mine:
            into[place : place + len(numbers)] = numbers
            place += len(numbers)
        assert place == len(into), (place, len(into))
        if not alone:
            self._request = self._comm.Iallreduce(self._mine, self._sum)

    def peek(self) -> NDArray[np.int64] | None:
        """Wait for the sum under way and give it, to be given once more by :meth:`finish`; None if there is none.

        Collective: completes one.
        """
        if self._request is not None:
            wait([self._request])
            self._request = None
        return self._sum if self._started else None

    def resume(self, total: NDArray[np.int64]) -> None:
        """Stand where a run stood whose sum under way was this one. Collective: no."""
        assert not self._started and total.shape == self._sum.shape, (total.shape, self._sum.shape)
        self._sum[:], self._started = total, True

    def finish(self) -> NDArray[np.int64] | None:
        """Wait for the sum under way and give it; None if none was started. Collective: completes one."""
        if not self._started:
            return None
        self._started = False
        if self._request is not None:
            wait([self._request])
            self._request = None
        return self._sum
