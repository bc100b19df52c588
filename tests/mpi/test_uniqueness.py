"""Ids over ranks: whoever shares one is found out at the first, second, fourth step, and so on."""

import numpy as np
import pytest
from mpi4py import MPI

from coupler.coupling.uniqueness import IdWatch
from coupler.errors import FieldMismatch

pytestmark = pytest.mark.mpi(min_size=2)
COMM = MPI.COMM_WORLD
OWN = np.arange(10) + 10 * COMM.rank


def test_ids_that_are_unique_over_ranks_pass_in_every_call_of_every_step() -> None:
    watch = IdWatch(COMM, began=0)

    for step in range(1, 10):
        for ids in (OWN, OWN, OWN[::-1].copy()):
            watch.look(ids)
        watch.end_step(step)


def test_an_id_that_two_ranks_give_is_refused_on_all_of_them_in_any_call_of_the_first_step() -> None:
    watch = IdWatch(COMM, began=7)
    watch.look(OWN)
    watch.look(np.arange(10))

    with pytest.raises(FieldMismatch, match="step 8: the id 0 was given to several elements"):
        watch.end_step(8)


def test_ranks_may_make_different_numbers_of_calls() -> None:
    watch = IdWatch(COMM, began=0)
    for _ in range(COMM.rank):
        watch.look(OWN)

    watch.end_step(1)


def test_ids_that_go_wrong_later_are_found_soon() -> None:
    watch = IdWatch(COMM, began=0)
    for step in (1, 2):
        watch.look(OWN)
        watch.end_step(step)
    watch.look(np.arange(10))
    watch.end_step(3)  # one of those that are not looked at
    watch.look(np.arange(10))

    with pytest.raises(FieldMismatch, match="step 4"):
        watch.end_step(4)
