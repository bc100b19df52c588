"""The heat kernel against its exact solution: orders of convergence, conservation and wrong uses."""

import math

import numpy as np
import pytest
from mpi4py import MPI

from coupler.errors import PluginError
from coupler.grid import Grid
from coupler.kernel import check_kernel, evaluate_truth
from coupler.kernels.heat import Heat


def run(kernel, shape, dt, steps, periodic=False):
    grid = Grid(shape, periodic=periodic, halo=kernel.halo, comm=MPI.COMM_SELF)
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    for _ in range(steps):
        kernel.step(state, grid, dt, evaluate_truth)
    return grid, state


def total(local):
    return math.fsum(local.interior.flat)


def largest_error(kernel, grid, state, t):
    return max(np.abs(state[name].interior - exact).max() for name, exact in kernel.exact(grid, t).items())


def test_kernel_honours_its_contract():
    check_kernel(Heat())


@pytest.mark.parametrize("shape", [(64,), (32, 32), (16, 16, 16)])
@pytest.mark.parametrize("periodic", [False, True])
def test_cosine_mode_decays_as_the_exact_solution_says(shape, periodic):
    kernel = Heat(diffusivity=1e-3, rate=0.5)

    grid, state = run(kernel, shape, 0.1, 20, periodic)

    # Second order: the mode decays at a rate wrong by (k h)^2 / 12 = 1.3 % for 16 periodic cells, over D k^2 t = 0.24.
    assert largest_error(kernel, grid, state, 2.0) < 0.5
    assert largest_error(kernel, grid, state, 0.0) > 10.0  # it has moved by far more than that


def test_error_falls_with_the_square_of_the_cell_size(agrees):
    kernel = Heat(diffusivity=0.02, rate=0.5)

    def error(cells):
        grid, state = run(kernel, (cells,), 1.0 / 256, 256)
        return largest_error(kernel, grid, state, 1.0)

    errors = [error(cells) for cells in (8, 16, 32)]

    # dt is held where its share of the error is a hundredth.
    for order in np.log2(np.divide(errors[:-1], errors[1:])):
        agrees("heat", "order in space", order)


def test_error_falls_with_the_square_of_the_time_step(agrees):
    kernel = Heat(diffusivity=0.5 / 32**2, rate=0.5)  # D dt / (2 h^2) <= 0.25: one substep of diffusion per half step

    def values(steps):
        _, state = run(kernel, (32,), 2.0 / steps, steps)
        return state["electron"].interior.copy()

    fine = values(64)
    errors = [np.abs(values(steps) - fine).max() for steps in (2, 4, 8)]

    # On one grid, against a run eight times finer: the space error cancels. Reference error: 1/64 of the last.
    for order in np.log2(np.divide(errors[:-1], errors[1:])):
        agrees("heat", "order in time", order)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("steps", [40, pytest.param(10_000, marks=pytest.mark.validation)])
def test_heat_is_conserved(periodic, steps, agrees):
    kernel = Heat()

    _, state = run(kernel, (24, 24), 0.5, steps, periodic)

    at_start = 2 * 500.0 * 24 * 24
    agrees("heat", f"drift of the heat, {steps} steps", sum(map(total, state.values())) / at_start - 1.0)


def test_exchange_leaves_the_sum_of_every_cell_as_it_is():
    rows = np.random.default_rng(1).uniform(300.0, 3000.0, size=(100, 2))

    relaxed = Heat(rate=3.0).relax(rows, 0.7)

    np.testing.assert_allclose(relaxed.sum(axis=1), rows.sum(axis=1), rtol=1e-15)


def test_long_exchange_ends_in_one_temperature():
    relaxed = Heat(rate=3.0).relax(np.array([[900.0, 300.0]]), 100.0)

    np.testing.assert_allclose(relaxed, [[600.0, 600.0]], rtol=1e-15)


def test_uniform_temperature_stays_bitwise_as_it_is():
    kernel = Heat()
    grid = Grid((12, 12), periodic=False, halo=1, comm=MPI.COMM_SELF)
    state = grid.state(kernel.fields)
    for local in state.values():
        local.interior[...] = 300.0

    kernel.step(state, grid, 5.0, evaluate_truth)

    assert all(np.all(local.interior == 300.0) for local in state.values())


@pytest.mark.parametrize("wrong", [{"diffusivity": -1.0}, {"rate": float("inf")}])
def test_parameters_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PluginError, match="diffusivity and rate"):
        Heat(**wrong)
