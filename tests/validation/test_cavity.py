"""The lattice-Boltzmann cavity: Ghia's velocities, the decay of the Taylor-Green vortex, and mass."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from mpi4py import MPI

from coupler.field import State
from coupler.grid import Grid
from coupler.kernel import check_kernel, evaluate_truth
from coupler.kernels.cavity import Cavity, velocity

if TYPE_CHECKING:
    from tests.validation.conftest import Agrees

SPEED = 0.1


def _grid(kernel: Cavity, cells: int, *, periodic: bool) -> Grid:
    return Grid((cells, cells), halo=kernel.halo, periodic=periodic, grain=kernel.grain(2), comm=MPI.COMM_SELF)


def _mass(state: State) -> float:
    return float(sum(state[f"f{number}"].interior.sum() for number in range(9)))


def _middle(cells: int, reynolds: float, crossings: float, heights: list[float]) -> tuple[np.ndarray, float]:
    """Velocity over the lid's on the vertical line through the middle, and how much the mass has changed."""
    kernel = Cavity(viscosity=SPEED * cells / reynolds, speed=SPEED, tile=cells // 2)
    check_kernel(kernel)
    with _grid(kernel, cells, periodic=False) as grid:
        state = grid.state(kernel.fields)
        kernel.start(state, grid)
        mass = _mass(state)
        for _ in range(int(crossings * cells / SPEED / kernel.substeps)):
            kernel.step(state, grid, float(kernel.substeps), evaluate_truth)
        u = velocity(state)[0] / SPEED
        line = 0.5 * (u[cells // 2 - 1] + u[cells // 2])
        return np.interp(heights, grid.centres(1), line), _mass(state) / mass - 1.0


def test_the_cavity_at_re_100_has_ghias_velocities(agrees: "Agrees") -> None:
    # U. Ghia, K. N. Ghia, C. T. Shin, J. Comput. Phys. 48 (1982) 387, table I, at y = 0.1719 and 0.5.
    found, mass = _middle(48, 100.0, 16.0, [0.1719, 0.5])

    agrees("cavity", "u at y = 0.1719, Re = 100", found[0])
    agrees("cavity", "u at y = 0.5, Re = 100", found[1])
    agrees("cavity", "drift of the mass", mass)


@pytest.mark.validation
@pytest.mark.timeout(1800)
def test_the_cavity_at_re_1000_has_ghias_velocities(agrees: "Agrees") -> None:
    found, mass = _middle(128, 1000.0, 60.0, [0.1719, 0.5])

    agrees("cavity", "u at y = 0.1719, Re = 1000", found[0])
    agrees("cavity", "u at y = 0.5, Re = 1000", found[1])
    agrees("cavity", "drift of the mass", mass)


def test_the_taylor_green_vortex_decays_as_it_should_and_the_error_falls_by_four(agrees: "Agrees") -> None:
    errors = []
    for cells in (32, 64):
        kernel = Cavity(viscosity=0.02, speed=0.08 * 32 / cells, substeps=4, tile=16)
        with _grid(kernel, cells, periodic=True) as grid:
            state = grid.state(kernel.fields)
            kernel.start(state, grid)
            steps = 100 * (cells // 32) ** 2
            for _ in range(steps):
                kernel.step(state, grid, 4.0, evaluate_truth)
            exact = kernel.vortex(grid, 4.0 * steps)
            errors.append(np.sqrt(((velocity(state) - exact) ** 2).mean() / (exact**2).mean()))

    agrees("Taylor-Green", "error of the velocity, 64 cells", errors[1])
    assert 3.5 < errors[0] / errors[1] < 6.0  # of second order in the size of a cell, at a constant Reynolds number


@pytest.mark.parametrize("tile", [8, 16])
def test_tiles_make_no_difference(tile: int) -> None:
    states = []
    for side in (tile, 32):
        kernel = Cavity(tile=side, substeps=4)
        with _grid(kernel, 32, periodic=False) as grid:
            states.append(state := grid.state(kernel.fields))
            kernel.start(state, grid)
            for _ in range(20):
                kernel.step(state, grid, 4.0, evaluate_truth)

    for name in states[0]:
        np.testing.assert_array_equal(states[0][name].interior, states[1][name].interior)
