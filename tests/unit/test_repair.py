"""Repair: conserved sums are kept by the least change, and what is far off stays for the checks to refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.controller.limits import Limits
from coupler.controller.repair import repair
from coupler.field import Field
from coupler.operator import Operator

Floats = NDArray[np.float64]

COLUMNS = ["a", "b", "c"]
ATOL, RTOL = np.array([1e-3, 1e-2, 1e-3]), np.array([1e-2, 0.0, 1e-3])


def _limits(conserved: dict[str, dict[str, float]]) -> Limits:
    operator = Operator(
        lambda inputs, dt: inputs, inputs=COLUMNS, outputs=COLUMNS, atol=ATOL, rtol=RTOL, conserved=conserved
    )
    return Limits.of(operator.signature, np.full(3, -np.inf), np.full(3, np.inf))


MASS = _limits({"mass": {"a": 1.0, "b": 1.0, "c": 1.0}})
TWO = _limits({"mass": {"a": 1.0, "b": 1.0, "c": 1.0}, "charge": {"a": 1.0, "c": -2.0}})

# The third is the sum of the others, as the mass is of those of the elements.
DEPENDENT = _limits(
    {
        "mass": {"a": 1.0, "b": 1.0, "c": 1.0},
        "charge": {"a": 1.0, "c": -2.0},
        "both": {"a": 2.0, "b": 1.0, "c": -1.0},
    }
)


def _answers(limits: Limits, count: int = 200, off: float = 1e-4) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    inputs = rng.random((count, 3))
    return inputs, inputs + rng.normal(0.0, off, (count, 3))


def _defects(inputs: Floats, mean: Floats, limits: Limits) -> Floats:
    found: Floats = inputs @ limits.before.T - mean @ limits.after.T
    return found


@pytest.mark.parametrize("limits", [MASS, TWO, DEPENDENT])
def test_small_defects_are_gone_to_rounding(limits: Limits) -> None:
    inputs, mean = _answers(limits)

    repair(inputs, mean, limits, ATOL, RTOL, 1.0)

    assert np.abs(_defects(inputs, mean, limits)).max() < 1e-14


def test_the_change_is_the_smallest_in_units_of_tolerance() -> None:
    inputs, mean = _answers(TWO)
    before, scale = mean.copy(), ATOL + RTOL * np.abs(mean)

    repair(inputs, mean, TWO, ATOL, RTOL, 1.0)

    for i in range(len(mean)):
        scaled = TWO.after * scale[i]
        least = np.linalg.lstsq(scaled, _defects(inputs[i : i + 1], before[i : i + 1], TWO)[0], rcond=None)[0]
        np.testing.assert_allclose(mean[i] - before[i], least * scale[i], atol=1e-13)


def test_what_is_not_there_is_not_moved_below_nothing() -> None:
    fractions = [Field(name, bounds=(0.0, 1.0)) for name in COLUMNS]
    operator = Operator(
        lambda inputs, dt: inputs,
        inputs=fractions,
        outputs=fractions,
        atol=ATOL,
        rtol=RTOL,
        conserved={"mass": dict.fromkeys(COLUMNS, 1.0)},
    )
    limits = Limits.of(operator.signature, np.full(3, -np.inf), np.full(3, np.inf))
    inputs = np.array([[0.0, 0.3, 0.7]])
    mean = np.array([[0.0, 0.3, 0.7 + 1e-9]])

    repair(inputs, mean, limits, ATOL, RTOL, 1.0)

    assert mean[0, 0] == 0.0
    assert np.abs(_defects(inputs, mean, limits)).max() < 1e-9


def test_what_is_far_off_stays_as_it_is() -> None:
    inputs, mean = _answers(MASS, off=1.0)
    before = mean.copy()

    repair(inputs, mean, MASS, ATOL, RTOL, 1.0)

    far = np.abs(_defects(inputs, before, MASS))[:, 0] > 10 * ATOL.sum()
    assert far.sum() > 100
    np.testing.assert_array_equal(mean[far], before[far])


def test_what_is_not_finite_stays_so_and_its_neighbours_are_repaired() -> None:
    inputs, mean = _answers(MASS)
    mean[3, 1], mean[5, 0] = np.nan, np.inf

    repair(inputs, mean, MASS, ATOL, RTOL, 1.0)

    assert np.isnan(mean[3, 1]) and np.isinf(mean[5, 0])
    assert np.abs(_defects(inputs, mean, MASS)[[2, 4, 6]]).max() < 1e-14


@pytest.mark.parametrize("most", [0.0, 1.0])
def test_without_a_sum_or_without_leave_nothing_changes(most: float) -> None:
    limits = MASS if most == 0.0 else _limits({})
    inputs, mean = _answers(limits)
    before = mean.copy()

    repair(inputs, mean, limits, ATOL, RTOL, most)

    np.testing.assert_array_equal(mean, before)


def test_an_answer_is_repaired_alike_in_any_company() -> None:
    inputs, mean = _answers(TWO)
    alone = mean[17:18].copy()

    repair(inputs, mean, TWO, ATOL, RTOL, 1.0)
    repair(inputs[17:18], alone, TWO, ATOL, RTOL, 1.0)

    np.testing.assert_array_equal(alone[0], mean[17])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6))
def test_no_output_moves_by_more_than_its_tolerance(values: list[float]) -> None:
    inputs, mean = np.array(values[:3])[None], np.array(values[3:])[None]
    before = mean.copy()

    repair(inputs, mean, TWO, ATOL, RTOL, 1.0)

    assert (np.abs(mean - before) <= (ATOL + RTOL * np.abs(before)) * (1 + 1e-12)).all()
