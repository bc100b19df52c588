"""Repair: answers that miss a conserved sum by little are moved onto it, by the least change in units of tolerance.

With W the weights of the sums on the outputs, S the tolerances on the diagonal and d the defects, the smallest change
measured by |S^-1 change| that keeps all sums is S^2 W' (W S^2 W')^-1 d. The loss of an answer is that of the repaired
one, which is what the simulation gets; all checks come after it. What was inside its bounds stays inside: a species
that is not there would be moved below zero by the rounding of a sum, and the answer refused for that.
"""

import numpy as np
from numba import njit

from coupler.controller.limits import Floats, Limits

# What is left of a pivot where a sum follows from the others, as a share of it: rounding.
_DEPENDENT = 1e-10


def repair(inputs: Floats, mean: Floats, limits: Limits, atol: Floats, rtol: Floats, most: float) -> None:
    """Move answers onto the conserved sums, in place.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs.
    mean : ndarray (n, n_out)
        The answers; those that a larger change would be needed for, or that are not finite, stay as they are.
    limits : Limits
        With the weights of the sums.
    atol, rtol : ndarray (n_out,)
        Tolerance per output.
    most : float
        Largest change of an output [tolerances]; 0 changes nothing.

    Collective: no. Releases the GIL. An answer does not depend on the others.
    """
    if len(limits.after) and most > 0:
        _repair(inputs, mean, limits.before, limits.after, limits.lower, limits.upper, atol, rtol, most)


@njit(cache=True, nogil=True, error_model="numpy")
def _repair(
    inputs: Floats,
    mean: Floats,
    before: Floats,
    after: Floats,
    lower: Floats,
    upper: Floats,
    atol: Floats,
    rtol: Floats,
    most: float,
) -> None:
    sums, n_out = after.shape
    defect, matrix = np.empty(sums), np.empty((sums, sums))
    square, change = np.empty(n_out), np.empty(n_out)
    for i in range(mean.shape[0]):
        for j in range(n_out):
            square[j] = (atol[j] + rtol[j] * abs(mean[i, j])) ** 2
        for k in range(sums):
            defect[k] = 0.0
            for j in range(inputs.shape[1]):
                if before[k, j] != 0.0:
                    defect[k] += before[k, j] * inputs[i, j]
            for j in range(n_out):
                if after[k, j] != 0.0:
                    defect[k] -= after[k, j] * mean[i, j]
            for other in range(k + 1):
                total = 0.0
                for j in range(n_out):
                    total += after[k, j] * square[j] * after[other, j]
                matrix[k, other] = total
        _solve(matrix, defect)
        small = True
        for j in range(n_out):
            change[j] = 0.0
            for k in range(sums):
                change[j] += square[j] * after[k, j] * defect[k]
            small &= change[j] ** 2 <= most * most * square[j]  # false where it is not a number
        if small:
            for j in range(n_out):
                mean[i, j] = _moved(mean[i, j], change[j], lower[j], upper[j])


@njit(inline="always", error_model="numpy")
def _moved(value: float, change: float, lower: float, upper: float) -> float:
    """Change a value, and stop at a bound that it was within."""
    moved = value + change
    if moved < lower <= value:
        return lower
    if moved > upper >= value:
        return upper
    return moved


# Cholesky's method: the matrix is symmetric and positive, its lower half is given, and both are overwritten.
@njit(cache=True, nogil=True, error_model="numpy")
def _solve(matrix: Floats, vector: Floats) -> None:
    size = vector.size
    for k in range(size):
        for other in range(k + 1):
            total = matrix[k, other]
            for m in range(other):
                total -= matrix[k, m] * matrix[other, m]
            if other < k:
                matrix[k, other] = total / matrix[other, other]
            else:  # a sum that follows from those before it, as mass does from the elements, needs no change of its own
                matrix[k, k] = np.sqrt(total) if total > _DEPENDENT * matrix[k, k] else np.inf
        for m in range(k):
            vector[k] -= matrix[k, m] * vector[m]
        vector[k] /= matrix[k, k]
    for k in range(size - 1, -1, -1):
        for m in range(k + 1, size):
            vector[k] -= matrix[m, k] * vector[m]
        vector[k] /= matrix[k, k]
