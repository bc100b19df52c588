"""Placement: server and trainer get the cores that no rank is bound to."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.errors import ConfigError, CouplerError
from coupler.serving.placement import Home, RayNode, all_cores, assign, find_homes, find_place, plan, ray_nodes


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


@pytest.mark.parametrize(("count", "crowded"), [(1, False), (3, False), (4, True), (9, True)])
def test_a_node_is_crowded_once_ranks_and_server_are_more_than_the_cores(count: int, crowded: bool) -> None:
    assert plan([FOUR] * count, FOUR).crowded is crowded


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


def ray_node(number: int, *resources: str) -> RayNode:
    return RayNode(f"id{number}", f"host{number}", f"10.0.0.{number}", frozenset({"CPU", *resources}))


FIRST, SECOND, THIRD = ray_node(1), ray_node(2, "GPU"), ray_node(3, "GPU")
CLUSTER = [FIRST, SECOND, THIRD]
HEAD = "10.0.0.1:6379"


def test_the_ray_node_beside_the_ranks_is_found_by_its_address_and_else_by_its_name() -> None:
    homes = [Home("login", "10.0.0.2"), Home("host1", "192.168.0.1")]

    assert find_homes(homes, CLUSTER, HEAD) == (SECOND, FIRST)


def test_ranks_without_a_ray_node_beside_them_are_told_what_to_type() -> None:
    with pytest.raises(ConfigError, match=r"ranks on host9 .* have no Ray node .* ray start --address=10.0.0.1:6379"):
        find_homes([Home("host9", "10.0.0.9")], CLUSTER, HEAD)


def test_a_name_that_several_nodes_have_finds_none_of_them() -> None:
    twins = [RayNode(str(number), "localhost", f"10.0.1.{number}", frozenset()) for number in (1, 2)]

    with pytest.raises(ConfigError, match="have no Ray node"):
        find_homes([Home("localhost", "")], twins, HEAD)


def test_with_ranks_every_node_asks_its_own_server_through_its_memory() -> None:
    places = assign([FIRST, SECOND], CLUSTER, "with-ranks", "auto")

    assert (places.remote, places.asked) == ((), ((), ()))


def test_with_ranks_and_the_object_store_every_relay_asks_the_server_beside_it() -> None:
    places = assign([FIRST, SECOND], CLUSTER, "with-ranks", "objectstore")

    assert (places.remote, places.asked) == ((FIRST, SECOND), ((0,), (1,)))


def test_nodes_without_the_resource_ask_all_that_have_it_and_begin_at_different_ones() -> None:
    cpu = ray_node(4)

    places = assign([FIRST, cpu, SECOND], [*CLUSTER, cpu], "GPU", "auto")

    assert places.remote == (SECOND, THIRD)
    assert places.asked == ((0, 1), (1, 0), ())


def test_a_resource_that_no_node_has_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'"GPUS", but no node .* Did you mean "GPU"\?'):
        assign([FIRST], CLUSTER, "GPUS", "auto")


def test_memory_is_not_shared_with_a_server_on_another_node() -> None:
    with pytest.raises(ConfigError, match='"shared", but host1 has ranks and no server'):
        assign([FIRST, SECOND], CLUSTER, "GPU", "shared")


def test_nodes_that_are_gone_are_not_in_the_cluster() -> None:
    row = {"NodeID": "a", "NodeManagerHostname": "b", "NodeManagerAddress": "c", "Resources": {"CPU": 1.0}}

    nodes = ray_nodes([{**row, "Alive": True}, {**row, "Alive": False}])

    assert nodes == [RayNode("a", "b", "c", frozenset({"CPU"}))]


GPU = frozenset({"GPU"})
A, B, C = (RayNode(name, f"host-{name}", f"10.0.0.{place}", GPU) for place, name in enumerate("abc"))
BARE = RayNode("d", "host-d", "10.0.0.9", frozenset())


def test_a_lost_server_is_started_where_it_was_if_that_node_lives() -> None:
    assert find_place(B, [], [A, B, C], "GPU") == B


def test_a_node_that_was_started_again_is_known_by_its_name() -> None:
    again = RayNode("z", B.name, B.address, GPU)

    assert find_place(B, [], [A, again], "GPU") == again


def test_a_server_whose_node_is_gone_moves_to_the_one_with_fewest_others() -> None:
    assert find_place(B, [A, A, C], [A, C, BARE], "GPU") == C


def test_where_no_node_has_what_a_server_needs_there_is_no_place() -> None:
    with pytest.raises(CouplerError, match='no node of the Ray cluster has the resource "GPU" any more'):
        find_place(B, [A], [BARE], "GPU")
