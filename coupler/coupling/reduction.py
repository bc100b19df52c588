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

    def start(self, mine: NDArray[np.int64]) -> None:
        """Start summing; the one before must have been finished. Collective: yes, non-blocking."""
        assert not self._started
        self._started = True
        if self._comm.size == 1:
            self._sum[:] = mine
        else:
            self._mine[:] = mine
            self._request = self._comm.Iallreduce(self._mine, self._sum)

    def finish(self) -> NDArray[np.int64] | None:
        """Wait for the sum under way and give it; None if none was started. Collective: completes one."""
        if not self._started:
            return None
        self._started = False
        if self._request is not None:
            wait([self._request])
            self._request = None
        return self._sum
