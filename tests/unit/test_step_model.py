"""The model of a step: its arithmetic in cases that can be worked out by hand, and what must hold in all of them."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scaling
from benchmarks.harness.stepmodel import Costs, Layout, Limit, Work, first_limit, predict

COSTS = Costs(
    latency=2e-6,
    overhead=1e-6,
    byte=1e-9,
    hop=5e-6,
    round_trip=10e-6,
    relay=1e-3,
    relay_byte=5e-9,
    record=1e-6,
    batch=20e-6,
    look=1e-5,
    read=1e-5,
    noise=0.0,
)
WORK = Work(elements=1000, own=1e-6, fixed=1e-3, truth=10e-6, model=1e-6, audited=0.1, fallback=0.2, halo_bytes=1000)
ALONE = Layout(nodes=1, ranks=1, cores=2.0)
WORK_SECONDS = 1e-3 + 1e-3 + 3e-3


def test_one_rank_waits_for_what_its_audits_do_not_hide_and_for_nobody_else() -> None:
    step = predict(COSTS, ALONE, WORK)

    assert step.work == pytest.approx(WORK_SECONDS)
    assert step.answer == pytest.approx(10e-6)  # a model of 1 ms behind audits of 1 ms: the round trip is left
    assert step.seconds == pytest.approx(WORK_SECONDS + 10e-6)


def test_audits_that_take_longer_than_the_model_hide_it() -> None:
    step = predict(COSTS, ALONE, replace(WORK, audited=0.3, fallback=0.0))

    assert step.answer == 0.0


def test_a_model_inside_of_the_ranks_asks_nobody() -> None:
    step = predict(COSTS, replace(ALONE, servers=0.0), WORK)

    assert step.answer == pytest.approx(1e-3)


def test_ranks_and_server_on_one_core_take_turns() -> None:
    step = predict(COSTS, replace(ALONE, cores=0.5), WORK)

    assert step.work + step.answer == pytest.approx((WORK_SECONDS + 1e-3) / 0.5 + 10e-6)


def test_a_server_for_all_ranks_of_a_node_answers_one_batch() -> None:
    step = predict(COSTS, Layout(nodes=1, ranks=4, cores=8.0), WORK)

    assert step.answer == pytest.approx(4e-3 + 10e-6 - 1e-3)
    assert step.halo == pytest.approx(4 * 1e-6)
    assert step.sum == pytest.approx(2 * 5e-6)


def test_questions_to_another_node_pay_their_way_by_the_byte() -> None:
    near, far = (predict(COSTS, Layout(2, 1, 4.0, servers), WORK) for servers in (1.0, 0.5))

    way = 1e-3 + 1000 * WORK.question * 5e-9
    assert far.answer - near.answer == pytest.approx(way - 10e-6 + 1e-3)  # and the other node's batch


def test_between_nodes_a_halo_is_overheads_one_latency_and_its_bytes() -> None:
    step = predict(COSTS, Layout(2, 1, 4.0), WORK)

    assert step.halo == pytest.approx(4 * 2 * 1e-6 + 2e-6 + 1e-6)


def test_what_one_place_does_for_all_grows_with_all() -> None:
    layout, few = Layout(100, 10, 20.0), replace(WORK, training_steps=100.0, training_share=0.5)

    step = predict(COSTS, layout, few)

    assert step.ledger == pytest.approx(1000 * 1e-6)
    assert step.samples == pytest.approx(1000 * 20e-6 / 100)
    assert step.looks == pytest.approx((0.5 + 100 / 100) * 1e-5)
    assert step.takeover == pytest.approx(3 * 1000 * 1e-5 / 100)
    assert step.for_everybody == pytest.approx(step.ledger + step.samples + step.looks + step.takeover)
    assert step.largest() == "ledger"


def test_the_first_limit_is_the_number_of_nodes_where_it_is_crossed() -> None:
    limit = first_limit(COSTS, Layout(1, 64, 80.0), WORK)

    assert limit is not None
    shares = []
    for nodes in (limit.nodes - 1, limit.nodes):
        step = predict(COSTS, Layout(nodes, 64, 80.0), WORK)
        shares.append(step.for_everybody / (step.seconds - step.for_everybody))
    assert shares[0] <= 0.1 < shares[1]
    assert limit.what == "ledger"


def test_where_nothing_is_done_for_all_there_is_no_limit() -> None:
    free = replace(COSTS, record=0.0, batch=0.0, look=0.0, read=0.0)

    assert first_limit(free, Layout(1, 64, 80.0), WORK) is None


@given(
    nodes=st.integers(1, 10_000),
    ranks=st.integers(1, 128),
    cores=st.floats(0.25, 256.0),
    elements=st.integers(0, 10**6),
    servers=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_no_part_of_a_step_is_negative_and_more_nodes_are_never_faster(
    nodes: int, ranks: int, cores: float, elements: int, servers: float
) -> None:
    costs, work = replace(COSTS, noise=0.02), replace(WORK, elements=elements)
    layout = Layout(nodes, ranks, cores, servers)

    step, larger = predict(costs, layout, work), predict(costs, replace(layout, nodes=2 * nodes), work)

    assert all(value >= -1e-15 and math.isfinite(value) for value in vars(step).values())
    assert larger.seconds >= step.seconds


def test_rows_of_a_cluster_have_every_part_and_the_first_limit() -> None:
    rows = scaling.cluster(COSTS)

    ways = [f"node/{way}" for way in scaling.WAYS]
    assert [row["case"] for row in rows] == [*ways, *(f"cluster/{nodes}" for nodes in scaling.NODES)]
    for row in rows:
        parts = [float(value) for name, value in row.items() if name.endswith("_s") and name[:-2] in vars(_step())]
        assert sum(parts) == pytest.approx(float(row["median_s"]))
    assert {row["limit"] for row in rows if "limit" in row} <= {"ledger", "samples", "looks", "takeover"}


def test_constants_come_back_from_their_rows() -> None:
    rows: list[dict[str, str | int | float]] = [
        {"case": f"constant/{name}", "system": "coupler", "value": value} for name, value in vars(COSTS).items()
    ]

    assert scaling.costs_of([*rows, {"case": "cluster/1", "system": "model", "median_s": 1.0}]) == COSTS


def test_a_limit_says_what_it_is() -> None:
    assert Limit(7, "looks").what == "looks"


def _step() -> object:
    return predict(COSTS, ALONE, WORK)
