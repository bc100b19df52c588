"""Sparse LU factors: the same solutions as a dense solver's, and nothing touched that is zero."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from coupler.kernels import elimination, rosenbrock

# A chain of decays and what comes back from its end: the arrow that fills a matrix eliminated from its corner.
CHAIN = 12


@njit
def solved(plan, jac, shift, b):
    lu, x = np.empty_like(jac), b.copy()
    elimination.factor(plan, jac, shift, lu)
    elimination.solve(plan, lu, x)
    return x


@settings(deadline=None)  # the first call compiles
@given(size=st.integers(1, 9), share=st.floats(0.0, 1.0), seed=st.integers(0, 2**32 - 1))
def test_any_pattern_is_solved_as_a_dense_matrix_is(size, share, seed):
    draw = np.random.default_rng(seed)
    pattern = draw.random((size, size)) < share
    jac = np.where(pattern, draw.normal(size=(size, size)), 0.0)
    b, shift = draw.normal(size=size), 2.0 * size

    x = solved(elimination.plan(pattern), jac, shift, b)

    np.testing.assert_allclose(x, np.linalg.solve(shift * np.eye(size) - jac, b), rtol=1e-9, atol=1e-12)


def test_an_arrow_is_eliminated_from_its_tip_and_nothing_fills_in():
    arrow = np.zeros((CHAIN, CHAIN), dtype=bool)
    arrow[0, :] = arrow[:, 0] = True

    plan = elimination.plan(arrow)

    assert len(plan.left) == len(plan.right) == CHAIN - 1
    assert 0 in plan.pivots[-2:]


def test_what_lies_outside_of_the_pattern_is_not_read():
    jac = np.full((2, 2), np.nan)
    jac[0, 0], jac[1, 1] = -1.0, -3.0

    x = solved(elimination.plan(np.eye(2, dtype=bool)), jac, 1.0, np.array([2.0, 4.0]))

    np.testing.assert_array_equal(x, [1.0, 1.0])


@njit
def _rhs(y, rates, out):
    for i in range(y.size):
        out[i] = rates[i - 1] * y[i - 1] - rates[i] * y[i]


@njit
def _jacobian(y, rates, out):
    out[:] = 0.0
    for i in range(y.size):
        out[i, i - 1] += rates[i - 1]
        out[i, i] -= rates[i]


_PLAN = elimination.plan(np.eye(CHAIN, dtype=bool) | np.roll(np.eye(CHAIN, dtype=bool), 1, axis=0))


@njit
def _factor(jac, shift, lu, size):
    elimination.factor(_PLAN, jac, shift, lu)


@njit
def _solve(lu, b, size):
    elimination.solve(_PLAN, lu, b)


@njit
def _dense(rows, rates, atol, out, steps):
    rosenbrock.integrate(_rhs, _jacobian, CHAIN, rows, rates, 3.0, 1e-6, atol, out, steps)


@njit
def _sparse(rows, rates, atol, out, steps):
    rosenbrock.integrate(_rhs, _jacobian, CHAIN, rows, rates, 3.0, 1e-6, atol, out, steps, _factor, _solve)


@pytest.mark.parametrize("stiff", [1.0, 1e6])
def test_the_integrator_takes_the_same_steps_with_either(stiff):
    draw = np.random.default_rng(3)
    rows, rates = draw.random((4, CHAIN)), np.geomspace(1.0, stiff, CHAIN)
    results = []
    for solver in (_dense, _sparse):
        out, steps = np.empty_like(rows), np.empty(len(rows), dtype=np.int64)
        solver(rows, rates, np.full(CHAIN, 1e-9), out, steps)
        results.append((out, steps))

    (dense, dense_steps), (sparse, sparse_steps) = results
    np.testing.assert_allclose(sparse, dense, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(sparse_steps, dense_steps)
    np.testing.assert_allclose(sparse.sum(axis=1), rows.sum(axis=1), rtol=1e-12)
