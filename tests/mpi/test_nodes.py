"""Ranks that do something together wait for one another."""

import time

import pytest
from mpi4py import MPI

from coupler.coupling.nodes import on_first, together
from coupler.errors import CouplerError

pytestmark = pytest.mark.mpi(min_size=2)
# Of a core, by rank 0 [s].
WORK_SECONDS = 0.5


def test_ranks_that_wait_for_the_first_one_leave_it_the_core() -> None:
    comm = MPI.COMM_WORLD
    comm.Barrier()
    before = time.process_time()

    on_first(comm, work)

    spent = time.process_time() - before
    assert spent < WORK_SECONDS / 5 or comm.rank == 0


def test_what_fails_on_one_rank_fails_on_all() -> None:
    comm = MPI.COMM_WORLD

    with pytest.raises(CouplerError, match="rank 1: ZeroDivisionError"):
        together(comm, lambda: 1 / (comm.rank - 1))


def work() -> float:
    began = time.process_time()
    while time.process_time() - began < WORK_SECONDS:
        pass
    return WORK_SECONDS
