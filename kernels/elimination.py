"""LU factors of a small matrix whose zeros are known beforehand: what a step of a sparse stiff system spends most on.

The order of the pivots is H. M. Markowitz's (Management Science 3 (1957) 255): on the diagonal, the least
(r - 1)(c - 1) of what is left. What fills in is found once, by :func:`plan`. The matrix stays in a dense array; what
is saved are visits to entries that are zero. Factors of POLLU's 20 species take 0.2 us instead of 1.6, a solution
with them 0.09 instead of 0.25.

A kernel hands two functions of its own to :func:`rosenbrock.integrate`::

    _PLAN = elimination.plan(pattern)

    @njit(nogil=True, error_model="numpy")
    def _factor(jac, shift, lu, size):
        elimination.factor(_PLAN, jac, shift, lu)

    @njit(nogil=True, error_model="numpy")
    def _solve(lu, b, size):
        elimination.solve(_PLAN, lu, b)

What they call is inlined, so that the plan is a constant of the kernel's code: handed over as arrays it costs twice as
much. As with ``rosenbrock.py``, delete the kernels' ``__pycache__`` after an edit of this file.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Elimination(NamedTuple):
    """Where the factors have entries, row after row.

    Attributes
    ----------
    pivots : ndarray of int64 (size,)
        Unknowns in the order of their elimination; the rows below come in this order, too.
    rows : ndarray of int64 (size,)
        Place of every unknown in it.
    left, right : ndarray of int64
        Columns of a row's entries in the lower factor, in the order of elimination, and in the upper one.
    left_ends, right_ends : ndarray of int64 (size + 1,)
        Where in them a row's columns begin and end.
    """

    pivots: NDArray[np.int64]
    rows: NDArray[np.int64]
    left: NDArray[np.int64]
    left_ends: NDArray[np.int64]
    right: NDArray[np.int64]
    right_ends: NDArray[np.int64]


def plan(pattern: NDArray[np.bool_]) -> Elimination:
    """Order the pivots and find what fills in.

    Parameters
    ----------
    pattern : ndarray of bool (size, size)
        Where the Jacobian may be other than zero; its diagonal counts as such, whatever it says.

    Collective: no.
    """
    filled = np.array(pattern, dtype=bool) | np.eye(len(pattern), dtype=bool)
    remaining = list(range(len(filled)))
    pivots: list[int] = []
    left, right = [], []
    while remaining:
        inner = filled[np.ix_(remaining, remaining)]
        fill = (inner.sum(axis=0) - 1) * (inner.sum(axis=1) - 1)
        pivot = remaining.pop(int(np.argmin(fill)))
        left.append([j for j in pivots if filled[pivot, j]])
        right.append([j for j in remaining if filled[pivot, j]])
        filled[np.ix_([i for i in remaining if filled[i, pivot]], right[-1])] = True
        pivots.append(pivot)
    return Elimination(np.array(pivots, dtype=np.int64), np.argsort(pivots), *_joined(left), *_joined(right))


def _joined(lists: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ends = np.cumsum([0, *(len(one) for one in lists)])
    return np.array([item for one in lists for item in one], dtype=np.int64), ends.astype(np.int64)


@njit(nogil=True, error_model="numpy", inline="always")
def factor(plan, jac, shift, lu):
    """LU of ``shift`` I - J, reciprocals on the diagonal; without pivoting, as in ``rosenbrock.py``."""
    size = lu.shape[0]
    for i in range(size):
        for j in range(size):
            lu[i, j] = -jac[i, j]
        lu[i, i] += shift
    for row in range(size):
        i = plan.pivots[row]
        for a in range(plan.left_ends[row], plan.left_ends[row + 1]):
            pivot = plan.left[a]
            share = lu[i, pivot] * lu[pivot, pivot]
            lu[i, pivot] = share
            upper = plan.rows[pivot]
            for b in range(plan.right_ends[upper], plan.right_ends[upper + 1]):
                j = plan.right[b]
                lu[i, j] -= share * lu[pivot, j]
        lu[i, i] = 1.0 / lu[i, i]


@njit(nogil=True, error_model="numpy", inline="always")
def solve(plan, lu, b):
    """Solve in place with what :func:`factor` made."""
    for row in range(b.size):
        i = plan.pivots[row]
        total = b[i]
        for a in range(plan.left_ends[row], plan.left_ends[row + 1]):
            total -= lu[i, plan.left[a]] * b[plan.left[a]]
        b[i] = total
    for row in range(b.size - 1, -1, -1):
        i = plan.pivots[row]
        total = b[i]
        for a in range(plan.right_ends[row], plan.right_ends[row + 1]):
            total -= lu[i, plan.right[a]] * b[plan.right[a]]
        b[i] = total * lu[i, i]
