"""A prescribed wind without divergence that carries and mixes fields, in 1 or 2 dimensions, conservatively.

In two dimensions the wind is a stream function: face velocities are its differences between corners, so the flow out of
every cell is zero to round-off and a uniform field stays uniform. Fluxes are those of van Leer's limited upwind scheme
(J. Comput. Phys. 32 (1979) 101), second order where the field is smooth, plus central differences for the mixing; time
is by Heun's method, a mean of Euler steps. So a field that is nowhere negative stays so, and along one axis no new
extremes arise.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import State

if TYPE_CHECKING:
    from coupler.grid import Grid

# Cells on either side that the limited fluxes read.
HALO = 2


class Wind(NamedTuple):
    """A steady wind: a mean along the first axis, and standing eddies in two dimensions.

    Attributes
    ----------
    mean : float
        Along the first axis [length/time]; it needs a first axis that wraps around.
    eddy : float
        Largest speed across the mean of the eddies [length/time]. In one dimension there are none.
    waves : tuple of 2 int
        Waves of the eddies along each axis; edges that are not periodic let nothing through.
    diffusivity : float
        Of the mixing [length2/time].
    """

    mean: float
    eddy: float
    waves: tuple[int, int]
    diffusivity: float

    def fastest(self, grid: "Grid") -> list[float]:
        """Largest speed along each axis [length/time], from the formula: the same on all ranks."""
        along, across = self.mean, self.eddy
        if grid.ndim == 2:
            along = abs(along) + across * (self.waves[1] / grid.length[1]) / (self.waves[0] / grid.length[0])
        return [abs(along), across][: grid.ndim]

    def faces(self, grid: "Grid") -> list[NDArray[np.float64]]:
        """Give the velocity through this rank's faces, per axis, one more along it than there are cells."""
        if self.mean != 0.0 and not grid.periodic[0]:
            raise PluginError(
                f"A mean wind of {self.mean:g} blows against an edge: the first dimension is not periodic. "
                "Set grid.periodic = true for it, or kernel.params.wind = 0."
            )
        if grid.ndim == 1:
            return [np.full(grid.local_shape[0] + 1, self.mean)]
        stream = self._stream(grid)
        return [np.diff(stream, axis=1) / grid.spacing[1], -np.diff(stream, axis=0) / grid.spacing[0]]

    def _stream(self, grid: "Grid") -> NDArray[np.float64]:
        """Stream function at this rank's corners, scalar by scalar so that the blocks make no difference."""
        corners = [
            [number * grid.spacing[axis] for number in range(grid.start[axis], grid.stop[axis] + 1)] for axis in (0, 1)
        ]
        sines = [
            [math.sin(2.0 * math.pi * self.waves[axis] * place / grid.length[axis]) for place in corners[axis]]
            for axis in (0, 1)
        ]
        strength = self.eddy * grid.length[0] / (2.0 * math.pi * self.waves[0])
        return self.mean * np.array(corners[1]) + strength * np.outer(sines[0], sines[1])


def carry(state: State, grid: "Grid", wind: Wind, names: tuple[str, ...], dt: float) -> None:
    """Advance c' + div(u c) = D laplace(c) by ``dt`` for the fields named, in as many substeps as positivity asks for.

    Parameters
    ----------
    state : State
        From ``grid.state``, halo 2; advanced in place. All halos are overwritten.
    grid : Grid
        Where the state lives, 1-D or 2-D.
    wind : Wind
        What carries them.
    names : tuple of str
        Fields to carry.
    dt : float
        Time to advance by.

    Raises
    ------
    PluginError
        If a mean wind blows against an edge.

    Collective: yes, two halo exchanges per substep.
    """
    faces = wind.faces(grid)
    # A limited face value is at most twice that of its cell, and what leaves a cell must not be more than it holds.
    outflow = sum(speed / size for speed, size in zip(wind.fastest(grid), grid.spacing, strict=True))
    mixing = wind.diffusivity * sum(1.0 / size**2 for size in grid.spacing)
    substeps = math.ceil(2.0 * dt * (outflow + mixing))
    for _ in range(substeps):
        before = {name: state[name].array.copy() for name in names}
        for _ in range(2):
            grid.exchange(state)
            grid.reflect(state)
            for name in names:
                _euler(state[name].array, grid, faces, wind.diffusivity, dt / substeps)
        for name, old in before.items():
            array = state[name].array
            np.add(array, old, out=array)
            np.multiply(array, 0.5, out=array)


def _euler(
    array: NDArray[np.float64], grid: "Grid", faces: list[NDArray[np.float64]], diffusivity: float, dt: float
) -> None:
    old = array.copy()
    for axis, velocity in enumerate(faces):
        new, number, mixing = _lines(array, axis), dt / grid.spacing[axis], diffusivity / grid.spacing[axis]
        through = np.moveaxis(velocity, axis, -1).reshape(new.shape[0], -1)
        _add_fluxes(_lines(old, axis), new, through, number, mixing)


def _lines(array: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """View a field as lines along an axis, (across, along), without the halo across but with that along it."""
    return array[np.newaxis] if array.ndim == 1 else np.moveaxis(array, axis, -1)[HALO:-HALO]


@njit(cache=True, nogil=True)
def _add_fluxes(old, new, velocity, number, mixing):
    """Add what comes through the faces of every line: number * (flux in - flux out)."""
    for line in range(velocity.shape[0]):
        for face in range(velocity.shape[1]):
            left, right = face + HALO - 1, face + HALO
            behind, here, ahead, beyond = old[line, left - 1], old[line, left], old[line, right], old[line, right + 1]
            speed, step = velocity[line, face], ahead - here
            value = here + _slope(here - behind, step) if speed > 0.0 else ahead - _slope(step, beyond - ahead)
            flux = number * (speed * value - mixing * step)
            # The halo's cells get rubbish, as the next exchange overwrites them.
            new[line, left] -= flux
            new[line, right] += flux


@njit(nogil=True)
def _slope(before, after):
    """Half of van Leer's harmonic mean of two differences; zero at an extreme."""
    return before * after / (before + after) if before * after > 0.0 else 0.0
