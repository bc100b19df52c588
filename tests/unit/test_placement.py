"""Placement: server and trainer get the cores that no rank is bound to."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.serving.placement import all_cores, plan


def _cores(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


FOUR = _cores(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("ranks", "services"),
    [
        ([_cores(0), _cores(1)], _cores(2, 3)),
        ([_cores(0, 1), _cores(2)], _cores(3)),
        ([_cores(0), FOUR], _cores(1, 2, 3)),  # a rank that may use every core is not bound
        ([FOUR, FOUR], FOUR),
        ([_cores(0), _cores(1), _cores(2), _cores(3)], FOUR),  # none is left: all are shared
        ([], FOUR),
    ],
)
def test_services_get_the_cores_no_rank_is_bound_to(ranks: list[frozenset[int]], services: frozenset[int]) -> None:
    assert plan(ranks, FOUR).services == services


@pytest.mark.parametrize(("count", "oversubscribed"), [(1, False), (3, False), (4, True), (9, True)])
def test_a_node_is_oversubscribed_once_ranks_and_server_are_more_than_the_cores(
    count: int, oversubscribed: bool
) -> None:
    assert plan([FOUR] * count, FOUR).oversubscribed is oversubscribed


sets = st.frozensets(st.integers(0, 7), min_size=1)


@given(cores=sets, chosen=st.lists(sets, max_size=4))
def test_ranks_stay_where_they_are_and_services_always_have_a_core_of_the_job(
    cores: frozenset[int], chosen: list[frozenset[int]]
) -> None:
    ranks = [mine & cores or cores for mine in chosen]

    places = plan(ranks, cores)

    assert places.ranks == tuple(ranks)
    assert places.cores == cores
    assert places.services
    assert places.services <= cores
    bound = frozenset().union(*(mine for mine in ranks if mine != cores))
    assert places.services == cores or not places.services & bound


@pytest.fixture
def bound() -> Iterator[frozenset[int]]:
    """This process on one core, as mpirun would have it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield frozenset({min(before)})
    os.sched_setaffinity(0, before)


LAUNCHED = "OMPI_COMM_WORLD_SIZE"


def test_a_rank_finds_the_cores_of_its_launcher_and_stays_bound(
    bound: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LAUNCHED, "2")

    with all_cores() as cores:
        assert os.sched_getaffinity(0) == cores == bound | os.sched_getaffinity(os.getppid())

    assert os.sched_getaffinity(0) == bound


def test_a_process_that_its_user_has_bound_stays_where_it_is(
    bound: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAUNCHED, raising=False)

    with all_cores() as cores:
        assert cores == bound


def test_a_process_stays_bound_when_what_it_starts_fails(bound: frozenset[int]) -> None:
    with pytest.raises(ZeroDivisionError), all_cores():
        raise ZeroDivisionError

    assert os.sched_getaffinity(0) == bound
