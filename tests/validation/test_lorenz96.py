"""Two-scale Lorenz-96: the splitting's order, what it keeps, its climate, and wrong uses."""

import numpy as np
import pytest
from mpi4py import MPI

from coupler.errors import PluginError
from coupler.grid import Grid
from coupler.kernel import Passage, check_kernel, evaluate_truth
from coupler.kernels.lorenz96 import Lorenz96
from coupler.report import mean_and_deviation


def make_grid(shape, **options):
    return Grid(shape, halo=2, comm=MPI.COMM_SELF, **options)


def started(kernel, grid):
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    return state


def rings(state):
    """Whole members, (members, K, 1 + J)."""
    stacked = np.stack([local.interior for local in state.values()], axis=-1)
    return stacked if stacked.ndim == 3 else stacked[None]


def climate(kernel, members, duration, dt):
    """What every member adds to mean and standard deviation of X, (members, 2)."""
    grid = make_grid((members, 8))
    state = started(kernel, grid)
    passage = Passage(kernel.sector, state)

    def evaluate(operator, _, dt):
        passage.scatter(operator.evaluate_truth(passage.gather(), dt))

    moments = []
    for step in range(round(duration / dt)):
        kernel.step(state, grid, dt, evaluate)
        if step % 10 == 0:
            moments.append(state["x"].interior.copy())
    return mean_and_deviation(np.array(moments))


def test_kernel_honours_its_contract():
    check_kernel(Lorenz96())


def test_rates_are_those_of_the_equations():
    sectors, fast, h, forcing, b, c = 5, 6, 0.7, 12.0, 8.0, 9.0
    kernel = Lorenz96(J=fast, h=h, F=forcing, b=b, c=c, spinup=0.5)
    before = rings(started(kernel, make_grid((2, sectors))))[:1]
    x, y = before[0, :, 0], before[0, :, 1:].ravel()

    rates = (kernel.advance_rings(before, 1e-7) - before)[0] / 1e-7

    coupling = h * c / b
    dx = (
        -np.roll(x, 1) * (np.roll(x, 2) - np.roll(x, -1))
        - x
        + forcing
        - coupling * y.reshape(sectors, fast).sum(axis=1)
    )
    dy = -c * b * np.roll(y, -1) * (np.roll(y, -2) - np.roll(y, 1)) - c * y + coupling * np.repeat(x, fast)
    # A difference over 1e-7: the rounding of x is 1e-15 / 1e-7, second derivatives of 1e3 add 1e3 * 1e-7.
    np.testing.assert_allclose(rates[:, 0], dx, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(rates[:, 1:].ravel(), dy, rtol=1e-3, atol=1e-3)


def test_splitting_converges_to_the_whole_ring_with_order_two():
    kernel = Lorenz96(substep=2.5e-4, spinup=1.0)
    grid = make_grid((4, 8))
    before = rings(started(kernel, grid))
    exact = kernel.advance_rings(before, 0.04)

    def error(steps):
        state = started(kernel, grid)
        for _ in range(steps):
            kernel.step(state, grid, 0.04 / steps, evaluate_truth)
        return np.sqrt(np.mean((rings(state) - exact) ** 2))

    errors = [error(steps) for steps in (16, 32, 64)]

    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.15)


def test_runge_kutta_of_a_sector_has_order_four():
    rows = rings(started(Lorenz96(), make_grid((4, 8)))).reshape(-1, 33)
    exact = Lorenz96(substep=2.5e-4).advance(rows, 0.04)

    errors = [np.abs(Lorenz96(substep=substep).advance(rows, 0.04) - exact).max() for substep in (4e-3, 2e-3, 1e-3)]

    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 4.0, atol=0.4)


def test_truth_is_far_more_exact_than_the_tolerance_it_is_the_measure_of():
    kernel = Lorenz96()
    rows = rings(started(kernel, make_grid((16, 8)))).reshape(-1, 33)

    error = kernel.sector.signature.error(kernel.advance(rows, 0.005), Lorenz96(substep=1e-4).advance(rows, 0.005))

    assert error.max() < 0.01


def test_doing_nothing_is_not_an_answer_within_tolerance():
    kernel = Lorenz96()
    rows = rings(started(kernel, make_grid((16, 8)))).reshape(-1, 33)

    error = kernel.sector.signature.error(rows, kernel.advance(rows, 0.005))

    assert np.mean(error < 1.0) < 0.05


def test_energy_of_the_sectors_is_kept_where_nothing_forces_or_damps_them():
    kernel = Lorenz96(c=1e-12, b=1e13, h=0.0)  # b c = 10: advection alone
    rows = np.random.default_rng(1).normal(0.0, 0.3, (10, 33))

    after = kernel.advance(rows, 1.0)

    np.testing.assert_allclose(
        (after**2).sum(axis=1), (rows**2).sum(axis=1), rtol=1e-9
    )  # of fourth order, b c Y dt = 3e-3
    assert np.abs(after - rows).max() > 0.1


def test_climate_is_that_of_long_runs_of_the_whole_system():
    means = climate(Lorenz96(seed=5), members=24, duration=4.0, dt=0.005)

    error = means.std(axis=0, ddof=1) / np.sqrt(24)
    # Recomputed for this project: 3.757 +- 0.013 and 5.065 +- 0.005. Three standard errors of either.
    difference = np.abs(means.mean(axis=0) - [3.757, 5.065])
    assert (difference < 3.0 * np.hypot(error, [0.013, 0.005])).all()
    assert (error < 0.1).all()


@pytest.mark.validation
def test_long_climate_is_within_the_error_of_the_reference(agrees):
    means = climate(Lorenz96(seed=6), members=128, duration=40.0, dt=0.005)

    error = means.std(axis=0, ddof=1) / np.sqrt(128)
    assert (error < [0.012, 0.006]).all()
    agrees("Lorenz-96", "mean of X", means[:, 0].mean())
    agrees("Lorenz-96", "deviation of X", means[:, 1].mean())


def test_a_member_is_the_same_among_more_others():
    kernel = Lorenz96()
    few, many = make_grid((2, 8)), make_grid((3, 8))
    first, second = started(kernel, few), started(kernel, many)

    kernel.step(first, few, 0.005, evaluate_truth)
    kernel.step(second, many, 0.005, evaluate_truth)

    np.testing.assert_array_equal(rings(first)[0], rings(second)[0])
    assert np.abs(rings(second)[0] - rings(second)[1]).max() > 0.1  # members differ


def test_one_ring_on_a_line_is_the_first_member_of_a_plane():
    kernel = Lorenz96()
    line, plane = make_grid((8,)), make_grid((2, 8))
    first, second = started(kernel, line), started(kernel, plane)

    kernel.step(first, line, 0.005, evaluate_truth)
    kernel.step(second, plane, 0.005, evaluate_truth)

    np.testing.assert_array_equal(rings(first)[0], rings(second)[0])


def test_sectors_that_make_no_ring_are_refused():
    with pytest.raises(PluginError, match=r"grid\.periodic"):
        started(Lorenz96(), make_grid((8,), periodic=False))


@pytest.mark.parametrize(
    "wrong",
    [{"J": 3}, {"seed": -1}, {"b": 0.0}, {"c": float("nan")}, {"substep": 0.0}, {"spinup": -1.0}, {"F": float("inf")}],
)
def test_parameters_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PluginError, match=next(iter(wrong))):
        Lorenz96(**wrong)
