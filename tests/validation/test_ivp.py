"""The Rosenbrock integrator against published reference values of stiff initial value problems.

OREGO, ROBER and HIRES of F. Mazzia, C. Magherini, "Test Set for Initial Value Problem Solvers", release 2.4 (2008);
the values stand in ``references.py``.
"""

from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from coupler.kernels import rosenbrock
from tests.validation.references import references


@njit(nogil=True)
def _orego(y, parameters, out):
    s, w, q = 77.27, 0.161, 8.375e-6
    out[0] = s * (y[1] + y[0] * (1.0 - q * y[0] - y[1]))
    out[1] = (y[2] - (1.0 + y[0]) * y[1]) / s
    out[2] = w * (y[0] - y[2])


@njit(nogil=True)
def _orego_jacobian(y, parameters, out):
    s, w, q = 77.27, 0.161, 8.375e-6
    out[0, 0], out[0, 1], out[0, 2] = s * (1.0 - 2.0 * q * y[0] - y[1]), s * (1.0 - y[0]), 0.0
    out[1, 0], out[1, 1], out[1, 2] = -y[1] / s, -(1.0 + y[0]) / s, 1.0 / s
    out[2, 0], out[2, 1], out[2, 2] = w, 0.0, -w


@njit(nogil=True)
def _rober(y, parameters, out):
    out[0] = -0.04 * y[0] + 1e4 * y[1] * y[2]
    out[2] = 3e7 * y[1] * y[1]
    out[1] = -out[0] - out[2]


@njit(nogil=True)
def _rober_jacobian(y, parameters, out):
    out[0, 0], out[0, 1], out[0, 2] = -0.04, 1e4 * y[2], 1e4 * y[1]
    out[2, 0], out[2, 1], out[2, 2] = 0.0, 6e7 * y[1], 0.0
    out[1, 0], out[1, 1], out[1, 2] = 0.04, -1e4 * y[2] - 6e7 * y[1], -1e4 * y[1]


@njit(nogil=True)
def _hires(y, parameters, out):
    bound = 280.0 * y[5] * y[7]
    out[0] = -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007
    out[1] = 1.71 * y[0] - 8.75 * y[1]
    out[2] = -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4]
    out[3] = 8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3]
    out[4] = -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6]
    out[5] = -bound + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6]
    out[6] = bound - 1.81 * y[6]
    out[7] = -bound + 1.81 * y[6]


@njit(nogil=True)
def _hires_jacobian(y, parameters, out):
    out[:] = 0.0
    out[0, 0], out[0, 1], out[0, 2] = -1.71, 0.43, 8.32
    out[1, 0], out[1, 1] = 1.71, -8.75
    out[2, 2], out[2, 3], out[2, 4] = -10.03, 0.43, 0.035
    out[3, 1], out[3, 2], out[3, 3] = 8.32, 1.71, -1.12
    out[4, 4], out[4, 5], out[4, 6] = -1.745, 0.43, 0.43
    out[5, 3], out[5, 4], out[5, 5], out[5, 6], out[5, 7] = 0.69, 1.71, -0.43 - 280.0 * y[7], 0.69, -280.0 * y[5]
    out[6, 5], out[6, 6], out[6, 7] = 280.0 * y[7], -1.81, 280.0 * y[5]
    out[7, 5], out[7, 6], out[7, 7] = -280.0 * y[7], 1.81, -280.0 * y[5]


@njit(nogil=True)
def _blow_up(y, parameters, out):
    out[0] = y[0] * y[0]


@njit(nogil=True)
def _blow_up_jacobian(y, parameters, out):
    out[0, 0] = 2.0 * y[0]


@njit(nogil=True, error_model="numpy")
def _solve_orego(rows, parameters, duration, rtol, atol, out, steps):
    rosenbrock.integrate(_orego, _orego_jacobian, 3, rows, parameters, duration, rtol, atol, out, steps)


@njit(nogil=True, error_model="numpy")
def _solve_rober(rows, parameters, duration, rtol, atol, out, steps):
    rosenbrock.integrate(_rober, _rober_jacobian, 3, rows, parameters, duration, rtol, atol, out, steps)


@njit(nogil=True, error_model="numpy")
def _solve_hires(rows, parameters, duration, rtol, atol, out, steps):
    rosenbrock.integrate(_hires, _hires_jacobian, 8, rows, parameters, duration, rtol, atol, out, steps)


@njit(nogil=True, error_model="numpy")
def _solve_blow_up(rows, parameters, duration, rtol, atol, out, steps):
    rosenbrock.integrate(_blow_up, _blow_up_jacobian, 1, rows, parameters, duration, rtol, atol, out, steps)


class Solution(NamedTuple):
    values: np.ndarray
    steps: np.ndarray


def solve(solver, rows, duration, rtol, atol):
    rows = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    solution = Solution(np.empty_like(rows), np.empty(len(rows), dtype=np.int64))
    solver(rows, np.empty(0), duration, rtol, np.full(rows.shape[1], atol), *solution)
    return solution


OREGO_START = (1.0, 2.0, 3.0)
PROBLEMS = [
    # atol lies well below the smallest component that counts: y2 of ROBER ends at 8e-14.
    pytest.param(_solve_orego, OREGO_START, 360.0, 1e-10, 1e-10, id="OREGO"),
    pytest.param(_solve_rober, (1.0, 0.0, 0.0), 1e11, 1e-10, 1e-24, id="ROBER"),
    pytest.param(_solve_hires, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057), 321.8122, 1e-11, 1e-15, id="HIRES"),
]


@pytest.mark.parametrize(("solver", "start", "duration", "rtol", "atol"), PROBLEMS)
def test_published_reference_values_are_reproduced(solver, start, duration, rtol, atol, agrees, request):
    solution = solve(solver, start, duration, rtol, atol)

    agrees.with_all_of(request.node.callspec.id, solution.values[0])


def test_error_falls_with_the_tolerance():
    end = [row.value for row in references("OREGO")]
    errors = [
        np.max(np.abs(solve(_solve_orego, OREGO_START, 360.0, rtol, 1e-2 * rtol).values[0] / end - 1.0))
        for rtol in (1e-4, 1e-6, 1e-8)
    ]

    # Error per step is controlled and steps hardly add up on a limit cycle that contracts: the end is about as
    # wrong as the tolerance says; ten times is what a change of the controller may cost.
    assert all(error < 10.0 * rtol for error, rtol in zip(errors, (1e-4, 1e-6, 1e-8), strict=True))


def test_steps_grow_as_an_order_four_pair_needs():
    few, many = (solve(_solve_orego, OREGO_START, 360.0, rtol, rtol).steps[0] for rtol in (1e-6, 1e-10))

    # The estimate is of order h^4: 10^(4/4) = 10 times the steps for four digits, 22 with an order-three pair.
    assert 8.0 < many / few < 14.0


def test_result_of_a_row_is_bitwise_the_same_in_any_batch():
    rng = np.random.default_rng(7)
    rows = np.exp(rng.uniform(0.0, [11.0, 7.0, 10.0], size=(67, 3)))

    together = solve(_solve_orego, rows, 1.0, 1e-6, 1e-8).values
    backwards = solve(_solve_orego, rows[::-1], 1.0, 1e-6, 1e-8).values[::-1]
    alone = np.concatenate([solve(_solve_orego, row, 1.0, 1e-6, 1e-8).values for row in rows])

    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)


def test_row_that_is_not_finite_comes_back_as_nan_and_harms_no_other():
    rows = np.array([OREGO_START, (np.nan, 2.0, 3.0), (1.0, np.inf, 3.0), OREGO_START])

    values = solve(_solve_orego, rows, 1.0, 1e-6, 1e-8).values

    np.testing.assert_array_equal(np.isnan(values[:, 0]), [False, True, True, False])
    np.testing.assert_array_equal(values[0], values[3])


def test_solution_that_blows_up_ends_as_nan():
    solution = solve(_solve_blow_up, [[1.0]], 2.0, 1e-6, 1e-9)  # y = 1 / (1 - t)

    assert np.isnan(solution.values[0, 0])
    assert solution.steps[0] <= rosenbrock.MAX_STEPS


def test_exact_solution_is_followed_until_just_before_it_blows_up():
    solution = solve(_solve_blow_up, [[1.0]], 0.999, 1e-10, 1e-12)

    # An error of one step, 1e-10, grows by (1 / (1 - t))^2 = 1e6 in value and 1e3 relative to it.
    np.testing.assert_allclose(solution.values[0, 0], 1000.0, rtol=1e-6)


def test_no_time_gives_back_the_rows():
    solution = solve(_solve_orego, OREGO_START, 0.0, 1e-6, 1e-8)

    np.testing.assert_array_equal(solution.values[0], OREGO_START)
    assert solution.steps[0] == 0


def test_equilibrium_takes_one_step():
    solution = solve(_solve_blow_up, [[0.0]], 1e6, 1e-6, 1e-9)

    np.testing.assert_array_equal(solution.values, [[0.0]])
    assert solution.steps[0] == 1


def test_empty_batch_is_allowed():
    assert solve(_solve_orego, np.empty((0, 3)), 1.0, 1e-6, 1e-8).values.shape == (0, 3)
