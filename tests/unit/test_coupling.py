"""The coupling as a loop of one's own meets it, without a surrogate: shapes, ids, places for inputs and results."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.config import case_from
from coupler.coupling import Coupling
from coupler.errors import FieldMismatch, LifecycleError
from coupler.field import Field
from coupler.ledger import read_ledger
from coupler.operator import Operator
from coupler.records import Reason

Floats = NDArray[np.float64]

DT = 0.5
SLOT = 64
STEPS = 250


def _truth(inputs: Floats, dt: float) -> Floats:
    return inputs[:, :1] + dt * inputs[:, 1:]


OPERATOR = Operator(_truth, inputs=[Field("a"), Field("b")], outputs=[Field("c")], atol=1e-3, rtol=0.0)


@pytest.fixture
def coupling(tmp_path: Path) -> Iterator[Coupling]:
    case = case_from({"controller": {"mode": "physics"}, "exchange": {"slot_elements": SLOT}}, folder=tmp_path)
    with Coupling(OPERATOR, case=case, comm=MPI.COMM_SELF, out=tmp_path / "run") as coupling:
        yield coupling


def _inputs(count: int) -> Floats:
    return np.random.default_rng(count).random((count, 2))


@pytest.mark.parametrize("count", [0, 1, SLOT, SLOT + 1, 5 * SLOT + 3])
def test_any_number_of_elements_is_evaluated_into_a_place_of_ones_own_or_a_new_one(
    coupling: Coupling, count: int
) -> None:
    inputs, ids = _inputs(count), np.arange(count)
    place, out = coupling.inputs(count), np.full((count, 1), np.nan)
    place[...] = inputs

    given = coupling.evaluate(place, ids, DT, out=out)

    assert given is out
    np.testing.assert_array_equal(out, _truth(inputs, DT))
    np.testing.assert_array_equal(coupling.evaluate(inputs.tolist() if count else inputs, ids, DT), out)


def test_the_number_of_elements_may_differ_from_call_to_call(coupling: Coupling) -> None:
    for count in (3, 0, 5 * SLOT, 1, SLOT):
        inputs = _inputs(count)
        place = coupling.inputs(count)
        place[...] = inputs

        np.testing.assert_array_equal(coupling.evaluate(place, np.arange(count), DT), _truth(inputs, DT))
        coupling.end_step()


@pytest.mark.parametrize(
    "out",
    [np.empty((4, 1)), np.empty((3, 2)), np.empty(3), np.empty((3, 1), np.float32), np.empty((3, 2))[:, :1]],
    ids=["rows", "columns", "flat", "single precision", "strided"],
)
def test_a_place_that_cannot_take_the_result_is_refused(coupling: Coupling, out: Floats) -> None:
    with pytest.raises(FieldMismatch, match=r"must be a writable array of shape \(3, 1\) \(c\) of float64 in C order"):
        coupling.evaluate(_inputs(3), np.arange(3), DT, out=out)


def test_a_place_that_may_not_be_written_is_refused(coupling: Coupling) -> None:
    out = np.empty((3, 1))
    out.flags.writeable = False

    with pytest.raises(FieldMismatch, match="writable"):
        coupling.evaluate(_inputs(3), np.arange(3), DT, out=out)


def test_a_place_across_the_inputs_is_refused(coupling: Coupling) -> None:
    memory = np.zeros(9)

    with pytest.raises(FieldMismatch, match="out overlaps the inputs"):
        coupling.evaluate(memory[:6].reshape(3, 2), np.arange(3), DT, out=memory[5:8].reshape(3, 1))


@pytest.mark.parametrize("ids", [[5, 7, 5], [7, 5, 5], [5, 5, 7]])
def test_ids_that_come_twice_are_refused_in_any_order(coupling: Coupling, ids: list[int]) -> None:
    with pytest.raises(FieldMismatch, match="not unique"):
        coupling.evaluate(_inputs(3), ids, DT)


def test_ids_in_memory_that_is_filled_again_are_looked_at_again(coupling: Coupling) -> None:
    ids = np.array([7, 5, 6])
    coupling.evaluate(_inputs(3), ids, DT)
    ids[:] = [7, 5, 7]

    with pytest.raises(FieldMismatch, match="not unique"):
        coupling.evaluate(_inputs(3), ids, DT)


@pytest.mark.parametrize("ids", [np.array([9, 2, 5]), np.array([2, 5, 9], np.int32), np.array([2, 5, 9], np.uint16)])
def test_ids_may_come_in_any_order_and_width(coupling: Coupling, ids: NDArray[np.int64]) -> None:
    np.testing.assert_array_equal(coupling.evaluate(_inputs(3), ids, DT), _truth(_inputs(3), DT))


@pytest.mark.parametrize("ids", [np.arange(2), np.arange(3.0), np.arange(6).reshape(3, 2), np.ones(3, np.bool_)])
def test_ids_that_are_no_numbers_of_elements_are_refused(coupling: Coupling, ids: NDArray[np.int64]) -> None:
    with pytest.raises(FieldMismatch, match="one whole number per element"):
        coupling.evaluate(_inputs(3), ids, DT)


def test_every_call_is_in_the_ledger_and_every_step_in_the_metrics(tmp_path: Path) -> None:
    case = case_from({"controller": {"mode": "physics"}}, folder=tmp_path)
    with Coupling({"one": OPERATOR, "two": OPERATOR}, case=case, comm=MPI.COMM_SELF, out=tmp_path / "run") as coupling:
        for step in range(STEPS):
            for operator in ("one", "two"):
                coupling.evaluate(_inputs(step % 3), np.arange(step % 3), DT, operator=operator)
            coupling.end_step()
        folder = coupling.folder

    rows = read_ledger(folder.ledger)
    np.testing.assert_array_equal(rows["step"], np.repeat(np.arange(STEPS) + 1, 2))
    np.testing.assert_array_equal(rows["call"], np.tile([0, 1], STEPS))
    np.testing.assert_array_equal(rows["operator"], np.tile([0, 1], STEPS))
    np.testing.assert_array_equal(rows["reasons"][:, Reason.PHYSICS], np.repeat(np.arange(STEPS) % 3, 2))
    assert (rows["truth_seconds"] > 0).sum() == 2 * np.count_nonzero(np.arange(STEPS) % 3)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["elements"] for line in lines] == [2 * (step % 3) for step in range(STEPS)]


@pytest.mark.parametrize("count", [0, 1, SLOT + 1])
def test_truth_beside_the_run_is_that_of_evaluate_and_leaves_its_places_alone(coupling: Coupling, count: int) -> None:
    inputs = _inputs(count)
    place = coupling.inputs(count)
    place[...] = inputs

    beside = coupling.truth(_inputs(count) + 1.0, DT)

    np.testing.assert_array_equal(beside, _truth(inputs + 1.0, DT))
    np.testing.assert_array_equal(place, inputs)
    np.testing.assert_array_equal(coupling.truth(inputs.tolist() if count else inputs, DT), _truth(inputs, DT))


def test_truth_beside_the_run_is_counted_nowhere_but_in_seconds_of_its_own(tmp_path: Path) -> None:
    case = case_from({"controller": {"mode": "physics"}}, folder=tmp_path)
    with Coupling({"one": OPERATOR, "two": OPERATOR}, case=case, comm=MPI.COMM_SELF, out=tmp_path / "run") as coupling:
        coupling.truth(_inputs(SLOT), DT, operator="two")
        coupling.end_step()
        summary = coupling.finish()

    assert summary.elements == 0
    assert summary.reasons == {}
    assert (summary.seconds.truth, summary.truth_seconds_per_element) == (0.0, 0.0)
    assert summary.seconds.twin > 0.0
    assert len(read_ledger(coupling.folder.ledger)) == 0
    assert coupling.progress.step == 1


@pytest.mark.parametrize("inputs", [np.zeros(2), np.zeros((3, 1)), np.zeros((1, 3, 2))])
def test_truth_of_inputs_that_do_not_fit_is_refused(coupling: Coupling, inputs: Floats) -> None:
    with pytest.raises(FieldMismatch, match=r"the operator takes \(n, 2\): a, b"):
        coupling.truth(inputs, DT)


def test_truth_is_of_an_operator_there_is_and_of_a_run_that_goes_on(tmp_path: Path, coupling: Coupling) -> None:
    with pytest.raises(FieldMismatch, match='no operator "twin"'):
        coupling.truth(_inputs(1), DT, operator="twin")
    coupling.finish()
    with pytest.raises(LifecycleError, match="has ended"):
        coupling.truth(_inputs(1), DT)
