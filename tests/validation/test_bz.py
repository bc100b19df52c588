"""The Belousov-Zhabotinsky kernel: reference value, splitting, spirals and what a run of it must keep."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from scipy.integrate import solve_ivp

from coupler.errors import PluginError
from coupler.grid import Grid
from coupler.kernel import check_kernel, evaluate_truth
from coupler.kernels.bz import BZ

SPIRALS: dict[str, Any] = {"s": 5.0, "w": 0.05, "q": 2e-3, "f": 1.4}


def make_grid(shape, length, periodic=False):
    return Grid(shape, length=length, periodic=periodic, halo=1, comm=MPI.COMM_SELF)


def run(kernel, grid, dt, steps):
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    for _ in range(steps):
        kernel.step(state, grid, dt, evaluate_truth)
    return state


def stacked(state):
    return np.stack([local.interior for local in state.values()])


def test_kernel_honours_its_contract():
    check_kernel(BZ())


def test_a_cell_with_default_parameters_is_the_test_problem_orego(agrees):
    kernel = BZ(rtol=1e-10, atol=1e-10)

    end = kernel.react(np.array([[1.0, 2.0, 3.0]]), 360.0)

    agrees.with_all_of("OREGO", end[0])


def test_truth_of_spirals_is_what_an_independent_integrator_says():
    kernel = BZ(**SPIRALS)
    rows = np.array([[1.05, 10.0, 30.0], [3.0, 0.9, 9.0], [200.0, 0.3, 40.0], [420.0, 0.2, 80.0]])

    ours = kernel.react(rows, 0.35)

    s, w, q, f = kernel.parameters
    for start, end in zip(rows, ours, strict=True):
        radau = solve_ivp(
            lambda t, y: (
                s * (y[1] + y[0] * (1 - q * y[0] - y[1])),
                (f * y[2] - (1 + y[0]) * y[1]) / s,
                w * (y[0] - y[2]),
            ),
            (0.0, 0.35),
            start,
            method="Radau",
            rtol=1e-10,
            atol=1e-12,
        )
        np.testing.assert_allclose(end, radau.y[:, -1], rtol=1e-5)  # ten times the kernel's tolerance of one step


def test_truth_is_bitwise_the_same_in_any_batch():
    kernel = BZ(**SPIRALS)
    rows = np.exp(np.random.default_rng(3).uniform(0.0, [6.0, 4.0, 4.5], size=(50, 3)))

    together = kernel.react(rows, 0.35)

    np.testing.assert_array_equal(together, np.concatenate([kernel.react(row[None], 0.35) for row in rows]))


def test_truth_is_far_more_exact_than_the_tolerance_it_is_the_measure_of():
    kernel, exact = BZ(**SPIRALS), BZ(**SPIRALS, rtol=1e-10, atol=1e-10)
    rows = np.exp(np.random.default_rng(4).uniform(0.0, [6.0, 4.0, 4.5], size=(500, 3)))

    error = kernel.reaction.signature.error(kernel.react(rows, 0.35), exact.react(rows, 0.35))

    assert error.max() < 0.05  # a truth twenty times better than what it judges


def test_doing_nothing_is_not_an_answer_within_tolerance():
    kernel = BZ(**SPIRALS)
    grid = make_grid((32, 32), (36.0, 36.0))
    rows = stacked(run(kernel, grid, 0.35, 20)).reshape(3, -1).T.copy()

    error = kernel.reaction.signature.error(rows, kernel.react(rows, 0.35))

    assert np.mean(error < 1.0) < 0.01


def test_splitting_converges_with_order_two(agrees):
    kernel = BZ(**SPIRALS, rtol=1e-9)

    def solution(steps):
        grid = make_grid((24,), (16.0,), periodic=True)
        state = grid.state(kernel.fields)
        bump = 1.0 + np.cos(2.0 * np.pi * grid.centres(0) / 16.0)
        for name, values in {"x": 50.0 + 50.0 * bump, "y": 0.5 * bump + 0.1, "z": 30.0 + 30.0 * bump}.items():
            state[name].interior[...] = values
        for _ in range(steps):
            kernel.step(state, grid, 2.0 / steps, evaluate_truth)
        return stacked(state)

    coarse, middle, fine = solution(20), solution(40), solution(80)

    agrees("BZ", "order of the splitting", np.log2(np.abs(coarse - middle).max() / np.abs(middle - fine).max()))


def test_one_spiral_turns_and_stays_in_bounds():
    kernel = BZ(**SPIRALS)
    grid = make_grid((40, 40), (60.0, 60.0))
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    fired = np.zeros((40, 40))

    for _ in range(240):
        before = state["x"].interior.copy()
        kernel.step(state, grid, 0.35, evaluate_truth)
        fired += (before < 100.0) & (state["x"].interior >= 100.0)

    assert all(np.all(local.interior > 0.0) for local in state.values())
    assert np.median(fired) >= 1  # a wave has come by nearly everywhere ...
    assert np.ptp(state["x"].interior) > 200.0  # ... and the cells still do not fire together


def test_start_is_the_same_every_time():
    kernel = BZ(**SPIRALS)
    grid = make_grid((16, 16), (60.0, 60.0))
    first, again = grid.state(kernel.fields), grid.state(kernel.fields)

    kernel.start(first, grid)
    kernel.start(again, grid)

    np.testing.assert_array_equal(stacked(first), stacked(again))
    assert np.unique(first["z"].interior).size > 20


def test_periodic_start_winds_as_often_one_way_as_the_other():
    kernel = BZ(**SPIRALS)
    grid = make_grid((32, 32), (60.0, 60.0), periodic=True)
    state = grid.state(kernel.fields)

    kernel.start(state, grid)

    # A mirror turns a spiral's sense around: the box is its own mirror image, so there are as many of either.
    z = state["z"].interior
    np.testing.assert_array_equal(z, z[::-1])
    np.testing.assert_array_equal(z, z[:, ::-1])
    assert np.ptp(z[:16, :16]) > 50.0


def test_waves_travel_in_one_dimension():
    kernel = BZ(**SPIRALS)
    grid = make_grid((200,), (300.0,), periodic=True)

    state = run(kernel, grid, 0.35, 100)

    assert np.ptp(state["x"].interior) > 100.0
    assert np.all(np.isfinite(stacked(state)))


def test_a_second_process_compiles_nothing(tmp_path):
    program = "import numpy; from coupler.kernels.bz import BZ; print(BZ().react(numpy.ones((1, 3)), 1.0).tolist())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def start_process():
        command = [sys.executable, "-c", program]
        said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        return said.stdout, files

    first, second = start_process(), start_process()

    assert len(first[1]) > 0
    assert first == second


@pytest.mark.parametrize(
    "wrong", [{"s": 0.0}, {"q": -1.0}, {"rtol": float("nan")}, {"diffusion": (1.0, 1.0)}, {"diffusion": (1, -1, 1)}]
)
def test_parameters_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PluginError, match=next(iter(wrong))):
        BZ(**wrong)
