"""Lid-driven cavity by the lattice-Boltzmann method on tiles, and the Taylor-Green vortex where the box is periodic.

    f_i(x + c_i, t + 1) = f_i(x, t) + collision_i(f(x, t)),    i = 0 ... 8 (D2Q9)

Collisions relax the even and the odd part of the populations at two rates (I. Ginzburg, F. Verhaeghe, D. d'Humieres,
CiCP 3 (2008) 427), whose product 3/16 puts walls exactly half way between two cells. At a wall a
population bounces back, at the lid it gains 6 w_i (c_i . u): M. Bouzidi et al., Phys. Fluids 13 (2001) 3452.
A step moves what a cell knows by one cell, so a tile with a halo of k cells is exact after k steps.

Lattice units: a cell, a step and the mean density are 1. The Reynolds number is speed * cells across / viscosity.
"""

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.operator import Operator
from coupler.tile import Tile

if TYPE_CHECKING:
    from coupler.grid import Grid

# Velocities along x (the first axis) and y, and weights; 2k - 1 and 2k are opposite.
_CX = np.array([0, 1, -1, 0, 0, 1, -1, 1, -1])
_CY = np.array([0, 0, 0, 1, -1, 1, -1, -1, 1])
_WEIGHTS = np.array([4 / 9, *(1 / 9,) * 4, *(1 / 36,) * 4])
_OPPOSITE = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7])
_MAGIC = 3 / 16
_FLUID, _WALL, _LID = 0.0, 1.0, 2.0
_NAMES = tuple(f"f{number}" for number in range(9))


class Cavity(Kernel):
    """A box of fluid whose lid, at the end of the second axis, moves along the first; all of it is the operator.

    On a grid that is periodic in both directions there is no wall, and it starts as a Taylor-Green vortex.

    Parameters
    ----------
    viscosity : float
        Kinematic viscosity [cells2/step], > 0.
    speed : float
        Of the lid, or of the vortex at the start [cells/step]; below 0.3, or the fluid is not incompressible.
    substeps : int
        Steps in one call, which is the width of the halo as well. A call makes them whatever ``run.dt`` is: set it to
        the same, and times are in steps.
    tile : int
        Cells per side of a tile.

    Attributes
    ----------
    advance : Operator
        Nine populations and what a cell is (0 fluid, 1 wall, 2 lid) on a tile with its halo -> the populations on
        the tile after the steps. At tolerance a population is wrong by 1e-5; the flow is about speed / 10 in them.

    Raises
    ------
    PluginError
        If a parameter means nothing.
    """

    fields = (*(Field(name, bounds=(0, 1)) for name in _NAMES), Field("solid", bounds=(0, 2)))
    dimensions = (2,)

    def __init__(self, *, viscosity: float = 0.0128, speed: float = 0.1, substeps: int = 4, tile: int = 16) -> None:
        if not (0 < viscosity < np.inf and 0 < speed < 0.3):
            raise PluginError(f"viscosity = {viscosity} must be positive, and speed = {speed} between 0 and 0.3.")
        if substeps < 1:
            raise PluginError(f"substeps = {substeps} must be 1 or more: so many steps are one call.")
        self.viscosity, self.speed = viscosity, speed
        self.substeps = self.halo = substeps
        even = 1.0 / (3.0 * viscosity + 0.5)
        odd = 1.0 / (_MAGIC / (1.0 / even - 0.5) + 0.5)
        self.rates = np.array([even, odd])
        self.advance = Operator(
            self.flow,
            inputs=(*_NAMES, "solid"),
            outputs=_NAMES,
            atol=1e-5,
            rtol=0.0,
            conserved={"mass": dict.fromkeys(_NAMES, 1.0)},
            tile=Tile((tile, tile), halo=substeps),
        )

    def flow(self, blocks: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Go ``substeps`` steps on every tile: the truth of ``advance``.

        Parameters
        ----------
        blocks : ndarray (n, 10, side + 2 substeps, side + 2 substeps)
            Populations and what the cells are.
        dt : float
            Says nothing here: how far the steps go is in the viscosity.

        Returns
        -------
        ndarray (n, 9, side, side)

        Collective: no.
        """
        (n, _, rows, columns), k = blocks.shape, self.substeps
        outputs = np.empty((n, 9, rows - 2 * k, columns - 2 * k))
        _advance(blocks, k, self.rates, self.speed, outputs)
        return outputs

    def start(self, state: State, grid: "Grid") -> None:
        """Fluid at rest, or a vortex where the box is periodic in both directions.

        Raises
        ------
        PluginError
            If the box is periodic in one direction only.
        """
        if grid.periodic not in ((True, True), (False, False)):
            raise PluginError(
                "A cavity has walls all around and a Taylor-Green vortex none: set grid.periodic to false or to true."
            )
        shape = grid.local_shape
        velocity = self.vortex(grid, 0.0) if grid.periodic[0] else np.zeros((2, *shape))
        # Of the vortex the pressure, too, or sound would run through it.
        density = np.ones(shape)
        if grid.periodic[0]:
            x, y = (4.0 * np.pi * grid.centres(axis) / grid.length[axis] for axis in range(2))
            density -= 0.75 * self.speed**2 * (np.cos(x)[:, None] + np.cos(y)[None, :])
        for number, name in enumerate(_NAMES):
            along = _CX[number] * velocity[0] + _CY[number] * velocity[1]
            square = velocity[0] ** 2 + velocity[1] ** 2
            state[name].interior[...] = _WEIGHTS[number] * density * (1 + 3 * along + 4.5 * along**2 - 1.5 * square)
        state["solid"].interior[...] = _FLUID

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        self._build(state, grid)
        grid.exchange(state)
        self._build(state, grid)  # again: at the edges the neighbours passed on what they had there
        evaluate(self.advance, state, dt)

    def vortex(self, grid: "Grid", t: float) -> NDArray[np.float64]:
        """Velocity of the Taylor-Green vortex at time t on this rank's cells, (2, *local_shape) [cells/step]."""
        x, y = (2.0 * np.pi * (grid.centres(axis) / grid.length[axis]) for axis in range(2))
        rate = self.viscosity * sum((2.0 * np.pi / cells) ** 2 for cells in grid.shape)
        return (
            self.speed
            * np.exp(-rate * t)
            * np.stack([-np.cos(x)[:, None] * np.sin(y)[None, :], np.sin(x)[:, None] * np.cos(y)[None, :]])
        )

    def _build(self, state: State, grid: "Grid") -> None:
        """Put walls and lid into the halos outside of the box, with fluid at rest that nobody reads."""
        k = self.halo
        for axis in range(grid.ndim):
            for edge, coordinate in ((slice(None, k), 0), (slice(-k, None), grid.dims[axis] - 1)):
                if grid.periodic[axis] or grid.coords[axis] != coordinate:
                    continue
                for name, local in state.items():
                    layers = np.moveaxis(local.array, axis, 0)
                    layers[edge] = _WALL if name == "solid" else _WEIGHTS[_NAMES.index(name)]
        if not grid.periodic[1] and grid.coords[1] == grid.dims[1] - 1:
            # Its corners, too: then what the two diagonals gain and lose is the same, and mass is kept.
            state["solid"].array[:, -k:] = _LID


def velocity(state: State) -> NDArray[np.float64]:
    """Give the velocity on this rank's cells, (2, *local_shape) [cells/step]. Collective: no."""
    populations = np.stack([state[name].interior for name in _NAMES])
    density = populations.sum(axis=0)
    return np.stack([np.tensordot(c, populations, 1) / density for c in (_CX.astype(float), _CY.astype(float))])


@njit(cache=True, nogil=True, error_model="numpy")
def _advance(blocks, substeps, rates, speed, outputs):
    n, _, rows, columns = blocks.shape
    collided, moved = np.empty((9, rows, columns)), np.empty((9, rows, columns))
    for tile in range(n):
        before, solid = blocks[tile, :9], blocks[tile, 9]
        walled = solid.max() > _FLUID
        for ring in range(1, substeps + 1):
            _collide(before, ring - 1, rates, collided)
            if ring == substeps:
                _stream(collided, solid, walled, ring, speed, outputs[tile], 0)
            else:
                _stream(collided, solid, walled, ring, speed, moved, ring)
                before = moved


# Rows are sliced so that indices count from zero: then the compiler sees that none is negative, and vectorises.
@njit(cache=True, nogil=True, error_model="numpy")
def _collide(f, ring, rates, out):
    even, odd = rates
    first, last = ring, f.shape[2] - ring
    for i in range(ring, f.shape[1] - ring):
        a0, a1, a2, a3 = f[0, i, first:last], f[1, i, first:last], f[2, i, first:last], f[3, i, first:last]
        a4, a5, a6 = f[4, i, first:last], f[5, i, first:last], f[6, i, first:last]
        a7, a8 = f[7, i, first:last], f[8, i, first:last]
        b0, b1, b2, b3 = out[0, i, first:last], out[1, i, first:last], out[2, i, first:last], out[3, i, first:last]
        b4, b5, b6 = out[4, i, first:last], out[5, i, first:last], out[6, i, first:last]
        b7, b8 = out[7, i, first:last], out[8, i, first:last]
        for j in range(a0.size):
            p1, p3, p5, p7 = a1[j] + a2[j], a3[j] + a4[j], a5[j] + a6[j], a7[j] + a8[j]
            m1, m3, m5, m7 = a1[j] - a2[j], a3[j] - a4[j], a5[j] - a6[j], a7[j] - a8[j]
            density = a0[j] + p1 + p3 + p5 + p7
            jx, jy = m1 + m5 + m7, m3 + m5 - m7
            inverse = 4.5 / density
            square = (jx * jx + jy * jy) * inverse * (1.0 / 3.0)
            # Twice the even part of the equilibrium, and its odd part, of each pair; half of the changes.
            third = density * (1.0 / 9.0)
            e1 = third + (jx * jx * inverse - square) * (1.0 / 9.0)
            e3 = third + (jy * jy * inverse - square) * (1.0 / 9.0)
            e5 = 0.25 * third + ((jx + jy) * (jx + jy) * inverse - square) * (1.0 / 36.0)
            e7 = 0.25 * third + ((jx - jy) * (jx - jy) * inverse - square) * (1.0 / 36.0)
            c1, d1 = even * (e1 - 0.5 * p1), odd * (jx / 3.0 - 0.5 * m1)
            c3, d3 = even * (e3 - 0.5 * p3), odd * (jy / 3.0 - 0.5 * m3)
            c5, d5 = even * (e5 - 0.5 * p5), odd * ((jx + jy) / 12.0 - 0.5 * m5)
            c7, d7 = even * (e7 - 0.5 * p7), odd * ((jx - jy) / 12.0 - 0.5 * m7)
            b0[j] = a0[j] - 2.0 * (c1 + c3 + c5 + c7)
            b1[j], b2[j] = a1[j] + (c1 + d1), a2[j] + (c1 - d1)
            b3[j], b4[j] = a3[j] + (c3 + d3), a4[j] + (c3 - d3)
            b5[j], b6[j] = a5[j] + (c5 + d5), a6[j] + (c5 - d5)
            b7[j], b8[j] = a7[j] + (c7 + d7), a8[j] + (c7 - d7)


@njit(cache=True, nogil=True, error_model="numpy")
def _stream(collided, solid, walled, ring, speed, out, first):
    rows, width = collided.shape[1] - 2 * ring, collided.shape[2] - 2 * ring
    for number in range(9):
        cx, cy = _CX[number], _CY[number]
        for row in range(rows):
            start = ring - cy
            source = collided[number, ring + row - cx, start : start + width]
            target = out[number, first + row, first : first + width]
            for j in range(width):
                target[j] = source[j]
            if walled:
                kinds = solid[ring + row - cx, start : start + width]
                back = collided[_OPPOSITE[number], ring + row, ring : ring + width]
                for j in range(width):
                    if kinds[j] != _FLUID:
                        target[j] = back[j] + (6.0 * _WEIGHTS[number] * cx * speed if kinds[j] == _LID else 0.0)
