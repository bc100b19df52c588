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
        self._request: MPI.Request | None = None

    def start(self, mine: NDArray[np.int64]) -> None:
        """Start summing; the one before must have been finished. Collective: yes, non-blocking."""
        assert self._request is None
        self._mine[:] = mine
        self._request = self._comm.Iallreduce(self._mine, self._sum)

    def finish(self) -> NDArray[np.int64] | None:
        """Wait for the sum under way and give it; None if none was started. Collective: completes one."""
        if self._request is None:
            return None
        wait([self._request])
        self._request = None
        return self._sum
