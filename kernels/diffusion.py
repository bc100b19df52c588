"""Explicit diffusion of fields on a grid in 1, 2 or 3 dimensions: second order in space and in time."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.field import State

if TYPE_CHECKING:
    from coupler.grid import Grid

# Heun's method is stable, and keeps positive fields positive, up to 0.5; half of it keeps its error small as well.
_LARGEST_NUMBER = 0.25


def diffuse(state: State, grid: "Grid", diffusivities: Mapping[str, float], dt: float) -> None:
    """Advance c' = D laplace(c) by ``dt`` for every field named, in as many equal substeps as stability asks for.

    Periodic edges wrap around; nothing flows through the others.

    Parameters
    ----------
    state : State
        From ``grid.state``, halo 1 or more; advanced in place. All halos are overwritten.
    grid : Grid
        Where the state lives.
    diffusivities : mapping of field name to float
        D [length2/time] >= 0; fields with D = 0 and fields not named stay as they are.
    dt : float
        Time to advance by.

    Collective: yes, two halo exchanges per substep.
    """
    moving = {name: value for name, value in diffusivities.items() if value > 0.0}
    inverse_squares = np.array([1.0 / spacing**2 for spacing in grid.spacing])
    largest = max(moving.values(), default=0.0) * dt * float(inverse_squares.sum())
    substeps = math.ceil(largest / _LARGEST_NUMBER)
    for _ in range(substeps):
        before = {name: state[name].array.copy() for name in moving}
        _euler(state, grid, moving, dt / substeps * inverse_squares)
        _euler(state, grid, moving, dt / substeps * inverse_squares)
        for name, old in before.items():
            array = state[name].array
            np.add(array, old, out=array)
            np.multiply(array, 0.5, out=array)


def _euler(state: State, grid: "Grid", diffusivities: Mapping[str, float], numbers: NDArray[np.float64]) -> None:
    grid.exchange(state)
    grid.reflect(state)
    for name, diffusivity in diffusivities.items():
        array = state[name].array
        _add_laplacian(array.reshape(-1), np.array(array.strides) // array.itemsize, diffusivity * numbers)


@njit(cache=True, nogil=True)
def _add_laplacian(flat, strides, numbers):
    """Add number * (left - 2 centre + right) along every axis of an array laid flat.

    Works in any number of dimensions and vectorises; what it writes into the halos is meaningless.
    """
    old = flat.copy()
    edge = strides[0]
    for axis in range(strides.size):
        stride, number = strides[axis], numbers[axis]
        for i in range(edge, flat.size - edge):
            flat[i] += number * (old[i - stride] - 2.0 * old[i] + old[i + stride])
