"""RODASP: an adaptive Rosenbrock method for many small, independent, stiff systems y' = f(y).

Six stages, order 4 with an embedded order 3, L-stable, stiffly accurate, and without order reduction on linear
parabolic problems: one Jacobian and one LU factorisation per step, no Newton iteration. Coefficients: G. Steinebach,
"Order-reduction of ROW-methods for DAEs and method of lines applications", TH Darmstadt preprint 1741 (1995), as in
RODAS of Hairer & Wanner, "Solving ODEs II", section IV.7 (METHOD 3). On the Oregonator it needs 12 % fewer steps than
their RODAS4 at a tolerance of 1e-6 and a third of them at 1e-12.

A kernel compiles the method for its own system with a wrapper of its own::

    @njit(cache=True, nogil=True, error_model="numpy")
    def _react(rows, parameters, duration, rtol, atol, out, steps):
        rosenbrock.integrate(_rhs, _jacobian, 3, rows, parameters, duration, rtol, atol, out, steps)

The wrapper is what makes ``cache=True`` work. A compiled function that takes functions as arguments is never found
again by another process; here :func:`integrate` is inlined into the wrapper, whose own arguments are plain arrays, and
the size 3 becomes a constant that unrolls every loop. Price: Numba watches the wrapper's file only, so after an edit of
*this* file delete the kernels' ``__pycache__``.

Only autonomous systems: to have t on the right-hand side, add it as a component with t' = 1.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_STEPS = 100_000

_GAMMA = 0.25
_A21 = 3.0
_A31, _A32 = 1.831036793486759, 0.4955183967433795
_A41, _A42, _A43 = 2.304376582692669, -0.05249275245743001, -1.176798761832782
_A51, _A52, _A53, _A54 = -7.170454962423024, -4.741636671481785, -16.31002631330971, -1.062004044111401
_C21 = -12.0
_C31, _C32 = -8.791795173947035, -2.207865586973518
_C41, _C42, _C43 = 10.81793056857153, 6.780270611428266, 19.5348594464241
_C51, _C52, _C53, _C54 = 34.19095006749676, 15.49671153725963, 54.7476087596413, 14.16005392148534
_C61, _C62, _C63 = 34.62605830930532, 15.30084976114473, 56.99955578662667
_C64, _C65 = 18.40807009793095, -5.714285714285717

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 6.0
_SMALLEST = 1e-30  # share of the duration; at t = 0 no step is too small to be told from nothing


@njit(nogil=True, error_model="numpy")
def _factor(jac, shift, lu, size):
    """LU of shift I - J, reciprocals on the diagonal.

    Without pivoting: as h shrinks the diagonal dominates, and a step spoilt by a small pivot is a rejected step.
    """
    for i in range(size):
        for j in range(size):
            lu[i, j] = -jac[i, j]
        lu[i, i] += shift
    for pivot in range(size):
        lu[pivot, pivot] = 1.0 / lu[pivot, pivot]
        for i in range(pivot + 1, size):
            lu[i, pivot] *= lu[pivot, pivot]
            for j in range(pivot + 1, size):
                lu[i, j] -= lu[i, pivot] * lu[pivot, j]


@njit(nogil=True, error_model="numpy")
def _solve(lu, b, size):
    for i in range(size):
        for j in range(i):
            b[i] -= lu[i, j] * b[j]
    for i in range(size - 1, -1, -1):
        for j in range(i + 1, size):
            b[i] -= lu[i, j] * b[j]
        b[i] *= lu[i, i]


@njit(nogil=True, error_model="numpy", inline="always")
def integrate(rhs, jacobian, size, rows, parameters, duration, rtol, atol, out, steps, factor=_factor, solve=_solve):
    """Advance every row by the same duration; call it from a compiled function only, with a constant size.

    Each row starts with a step size of its own and never sees its neighbours, so its result is bitwise the same in
    any batch. A row that cannot be integrated (not finite, step size underflow, more than ``MAX_STEPS`` steps) comes
    back as NaN.

    Parameters
    ----------
    rhs : compiled function
        ``rhs(y, parameters, out)`` writes f(y), (size,).
    jacobian : compiled function
        ``jacobian(y, parameters, out)`` writes all of df_i/dy_j, (size, size).
    size : int
        Number of components, a literal or a global constant.
    rows : ndarray (n, size)
        Values at the start; not written to.
    parameters : ndarray (m,)
        Handed to ``rhs`` and ``jacobian``.
    duration : float
        Time to advance by, >= 0.
    rtol : float
        Relative tolerance of one step.
    atol : ndarray (size,)
        Absolute tolerance of one step, per component: the root mean square over the components of
        error / (atol + rtol |y|) is kept below 1.
    out : ndarray (n, size)
        Receives the values at the end.
    steps : ndarray of int64 (n,)
        Receives the number of steps tried.
    factor, solve : compiled functions, optional
        ``factor(jac, shift, lu, size)`` writes factors of ``shift`` I - J, ``solve(lu, b, size)`` solves with them in
        place; dense ones if none are given, and ``elimination.py`` has them for a system with many zeros.

    Collective: no.
    """
    work = workspace(size)
    for row in range(rows.shape[0]):
        for i in range(size):
            work.y[i] = rows[row, i]
        steps[row] = advance(rhs, jacobian, size, work, parameters, duration, rtol, atol, factor, solve)
        for i in range(size):
            out[row, i] = work.y[i]


class Workspace(NamedTuple):
    """Room for one system: its values ``y`` (size,) and what happens on the way."""

    y: NDArray[np.float64]
    f: NDArray[np.float64]
    at: NDArray[np.float64]
    k1: NDArray[np.float64]
    k2: NDArray[np.float64]
    k3: NDArray[np.float64]
    k4: NDArray[np.float64]
    k5: NDArray[np.float64]
    k6: NDArray[np.float64]
    jac: NDArray[np.float64]
    lu: NDArray[np.float64]


@njit(nogil=True, error_model="numpy", inline="always")
def workspace(size):
    """Make the room that one system of this size needs; use it again for the next."""
    return Workspace(
        np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size),
        np.empty(size), np.empty(size), np.empty((size, size)), np.empty((size, size)),
    )  # fmt: skip


@njit(nogil=True, error_model="numpy", inline="always")
def advance(rhs, jacobian, size, work, parameters, duration, rtol, atol, factor=_factor, solve=_solve):
    """Advance one system, ``work.y``, in place; NaN if it cannot be. For kernels whose parameters differ by row.

    Parameters as those of :func:`integrate`, and ``work``, a :class:`Workspace`.

    Returns
    -------
    int
        Number of steps tried.

    Collective: no.
    """
    y, f, at, jac, lu = work.y, work.f, work.at, work.jac, work.lu
    k1, k2, k3, k4, k5, k6 = work.k1, work.k2, work.k3, work.k4, work.k5, work.k6
    rhs(y, parameters, f)
    jacobian(y, parameters, jac)
    h = _first_step(y, f, jac, rtol, atol, size)
    t = 0.0
    tried = 0
    rejected = False
    while t < duration and tried < MAX_STEPS and t + h > t and h > _SMALLEST * duration:
        tried += 1
        left = duration - t
        last = h >= left
        # A step that would leave a sliver behind is halved instead: two equal steps cost the same and err less.
        h = left if last else min(h, 0.5 * left) if 2.0 * h > left else h
        factor(jac, 1.0 / (_GAMMA * h), lu, size)
        _stages(rhs, solve, parameters, h, y, f, lu, at, k1, k2, k3, k4, k5, k6, size)
        error = _error(k6, y, at, rtol, atol, size)
        if error <= 1.0:
            t = duration if last else t + h
            for i in range(size):
                y[i] = at[i]
            if t < duration:
                rhs(y, parameters, f)
                jacobian(y, parameters, jac)
        h *= _change(error, rejected)
        rejected = not error <= 1.0
    if t != duration:
        for i in range(size):
            y[i] = np.nan
    return tried


@njit(nogil=True, error_model="numpy", inline="always")
def _stages(rhs, solve, parameters, h, y, f, lu, at, k1, k2, k3, k4, k5, k6, size):
    """Take one step: ``at`` becomes the new value and ``k6`` the estimate of its error."""
    v = 1.0 / h
    for i in range(size):
        k1[i] = f[i]
    solve(lu, k1, size)
    for i in range(size):
        at[i] = y[i] + _A21 * k1[i]
    rhs(at, parameters, k2)
    for i in range(size):
        k2[i] += v * (_C21 * k1[i])
    solve(lu, k2, size)
    for i in range(size):
        at[i] = y[i] + _A31 * k1[i] + _A32 * k2[i]
    rhs(at, parameters, k3)
    for i in range(size):
        k3[i] += v * (_C31 * k1[i] + _C32 * k2[i])
    solve(lu, k3, size)
    for i in range(size):
        at[i] = y[i] + _A41 * k1[i] + _A42 * k2[i] + _A43 * k3[i]
    rhs(at, parameters, k4)
    for i in range(size):
        k4[i] += v * (_C41 * k1[i] + _C42 * k2[i] + _C43 * k3[i])
    solve(lu, k4, size)
    for i in range(size):
        at[i] = y[i] + _A51 * k1[i] + _A52 * k2[i] + _A53 * k3[i] + _A54 * k4[i]
    rhs(at, parameters, k5)
    for i in range(size):
        k5[i] += v * (_C51 * k1[i] + _C52 * k2[i] + _C53 * k3[i] + _C54 * k4[i])
    solve(lu, k5, size)
    for i in range(size):
        at[i] += k5[i]
    rhs(at, parameters, k6)
    for i in range(size):
        k6[i] += v * (_C61 * k1[i] + _C62 * k2[i] + _C63 * k3[i] + _C64 * k4[i] + _C65 * k5[i])
    solve(lu, k6, size)
    for i in range(size):
        at[i] += k6[i]


@njit(nogil=True, error_model="numpy")
def _first_step(y, f, jac, rtol, atol, size):
    """Guess h from y' = f and y'' = J f: the term h^4 y'''' of a series as regular as these two is at tolerance."""
    first, second = 0.0, 0.0
    for i in range(size):
        curvature = 0.0
        for j in range(size):
            curvature += jac[i, j] * f[j]
        weight = 1.0 / (atol[i] + rtol * abs(y[i]))
        first += (f[i] * weight) ** 2
        second += (curvature * weight) ** 2
    if not first > 0.0:
        return np.inf
    first = np.sqrt(first / size)
    rate = np.sqrt(second / size) / first
    return 1.0 / np.sqrt(np.sqrt(first * rate * rate * rate))


@njit(nogil=True, error_model="numpy")
def _error(k6, y, new, rtol, atol, size):
    """Root mean square of the estimate in units of the tolerance; NaN where a component is."""
    total = 0.0
    for i in range(size):
        total += (k6[i] / (atol[i] + rtol * max(abs(y[i]), abs(new[i])))) ** 2
    return np.sqrt(total / size)


@njit(nogil=True, error_model="numpy")
def _change(error, rejected):
    """Factor for the next step size; no growth right after a rejection."""
    if not error < np.inf:
        return _SHRINK
    most = 1.0 if rejected else _GROW
    return min(most, max(_SHRINK, _SAFETY / np.sqrt(np.sqrt(error + 1e-30))))
