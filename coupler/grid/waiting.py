"""Waiting for MPI: the core goes to others meanwhile."""

import os
import time
from collections.abc import Sequence

from mpi4py import MPI

# A neighbour in step answers within the first; one that computes the truth may take seconds, and the core is
# then worth more to others than the 0.1 ms that a nap can add.
_YIELD_SECONDS, _NAP_SECONDS = 200e-6, 50e-6


def wait(requests: Sequence[MPI.Request]) -> None:
    """Wait for MPI requests without keeping a core from those who could use it: first yield it, later sleep."""
    patience = time.perf_counter() + _YIELD_SECONDS
    for request in requests:  # one by one: of several persistent collectives, MPICH 5.0's Testall reports errors
        while not request.Test():
            if time.perf_counter() < patience:
                os.sched_yield()
            else:
                time.sleep(_NAP_SECONDS)
