"""Conservation by construction: sums to rounding, bounds kept, in torch and in the compiled form alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from coupler.field import Field
from coupler.lanes import LANES
from coupler.models.conservation import Conservation, settle_lanes, settling_space, settling_start
from coupler.operator import Signature

NAMES = ("T", "H2", "O2", "H2O", "N2")
# Mass fractions: how much of the element a kilogram of the species holds; the mass follows from the elements.
SUMS = {
    "H": {"H2": 1.0, "H2O": 0.1119},
    "O": {"O2": 1.0, "H2O": 0.8881},
    "N": {"N2": 1.0},
    "mass": {"H2": 1.0, "O2": 1.0, "H2O": 1.0, "N2": 1.0},
}
START = np.array([[1200.0, 0.03, 0.22, 0.01, 0.74]])


def _signature(sums: dict[str, dict[str, float]]) -> Signature:
    fields = (Field("T", bounds=(200, 4000)), *(Field(name, bounds=(0, 1)) for name in NAMES[1:]))
    return Signature(fields, fields, (1.0, *[1e-6] * 4), (1e-3, *[1e-2] * 4), sums)


def _settled(start: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    settled: NDArray[np.float64] = (
        Conservation(_signature(SUMS)).settle(torch.from_numpy(start), torch.from_numpy(mean)).numpy()
    )
    return settled


def _defect(start: NDArray[np.float64], answer: NDArray[np.float64]) -> float:
    weights = np.array([[sums.get(name, 0.0) for name in NAMES] for sums in SUMS.values()])
    return float(np.abs((answer - start) @ weights.T).max())


@njit
def _settle_in_lanes(columns, answers, rows):
    space = settling_space(rows)
    settling_start(columns, rows, space)
    settle_lanes(answers, rows, space)


species = st.floats(0, 1).flatmap(lambda x: st.sampled_from([x, x * 1e-6, x * 1e-12, 0.0]))


@settings(max_examples=200, deadline=None)
@given(st.lists(species, min_size=4, max_size=4), st.lists(species, min_size=4, max_size=4))
def test_any_answer_keeps_the_sums_to_rounding_and_the_bounds(first: list[float], answer: list[float]) -> None:
    start, mean = np.array([[1000.0, *first]]), np.array([[1500.0, *answer]])

    settled = _settled(start, mean)

    assert _defect(start, settled) <= 5e-12
    assert (settled[:, 1:] >= 0).all() and (settled[:, 1:] <= 1).all()
    assert settled[0, 0] == 1500.0  # no sum has a say in it


def test_an_answer_that_keeps_the_sums_stays_as_it_is() -> None:
    truth = START + np.array([[100.0, -0.1119e-2, -0.8881e-2, 1e-2, 0.0]])

    np.testing.assert_allclose(_settled(START, truth), truth, rtol=0, atol=1e-17)


def test_a_small_error_comes_closer_to_the_truth_in_tolerances() -> None:
    random = np.random.default_rng(4)
    truth = START + np.array([[100.0, -0.1119e-2, -0.8881e-2, 1e-2, 0.0]])
    tolerance = 1e-6 + 1e-2 * truth[:, 1:]
    start, answers = np.repeat(START, 200, axis=0), np.repeat(truth, 200, axis=0)
    answers[:, 1:] += 0.5 * tolerance * random.standard_normal((200, 4))

    settled = _settled(start, answers)

    # A projection in the norm of the tolerances; they vary a little with the answer, hence not exactly.
    before, after = (np.linalg.norm((each - truth)[:, 1:] / tolerance, axis=1) for each in (answers, settled))
    assert (after <= before * 1.02).all()
    assert after.mean() < 0.8 * before.mean()


def test_a_species_that_is_not_there_does_not_send_the_answer_back() -> None:
    start = np.array([[1200.0, 0.03, 0.22, 0.0, 0.75]])
    mean = np.array([[1200.0, 0.0299, 0.2192, 0.0009, 0.7501]])

    settled = _settled(start, mean)

    assert settled[0, 3] == pytest.approx(0.0009, rel=0.02)


def test_an_answer_beyond_repair_says_that_nothing_changes() -> None:
    mean = np.array([[1200.0, 0.0, 0.0, 0.0, 0.0]])

    np.testing.assert_array_equal(_settled(START, mean), START)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_stays_none(value: float) -> None:
    mean = np.array([[1200.0, value, 0.2, 0.01, 0.74]])

    assert not np.isfinite(_settled(START, mean)).all()


def test_an_input_a_little_below_its_bound_costs_no_more_than_that() -> None:
    start, mean = START.copy(), START + np.array([[50.0, -1e-3, -8e-3, 9e-3, 0.0]])
    start[0, 3] = -1e-17

    assert _defect(start, _settled(start, mean)) < 1e-15


def test_sums_that_follow_from_others_are_left_out() -> None:
    assert len(Conservation(_signature(SUMS)).weights) == 3


def test_without_sums_an_answer_is_left_alone() -> None:
    mean = torch.rand(3, 5, dtype=torch.float64)

    assert Conservation(_signature({})).settle(mean, mean) is mean


def test_the_compiled_form_settles_as_torch_does() -> None:
    random = np.random.default_rng(5)
    start = np.column_stack((random.uniform(300, 3000, LANES), random.dirichlet(np.ones(4), LANES)))
    mean = np.clip(start * random.uniform(0.5, 1.5, start.shape), 0, [4000, 1, 1, 1, 1])
    mean[3], mean[5, 1] = 0.0, np.nan
    answers = np.ascontiguousarray(mean.T)

    _settle_in_lanes(np.ascontiguousarray(start.T), answers, Conservation(_signature(SUMS)).rows().numpy())

    np.testing.assert_allclose(answers.T, _settled(start, mean), rtol=1e-12, atol=1e-15)
