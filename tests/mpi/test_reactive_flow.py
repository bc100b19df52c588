"""Reactive flow on however many ranks: the same bits as on one, stirred, compressed and in blocks of unequal size."""

import numpy as np
import pytest
from mpi4py import MPI

from coupler.grid import Grid
from coupler.kernel import evaluate_truth
from coupler.kernels.reactive_flow import ReactiveFlow

pytestmark = pytest.mark.mpi


def run(kernel, grid):
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    for number in range(3):
        state.time = number * 1e-6
        kernel.step(state, grid, 1e-6, evaluate_truth)
    return state


@pytest.mark.parametrize("periodic", [False, True])
def test_a_run_has_the_same_bits_on_any_number_of_ranks(periodic):
    kernel = ReactiveFlow(
        hot_temperature=1500.0, radius=2e-4, random_spots=2, stratification=0.2, stirring=1.0, pressure_jump=(1e-6, 2.0)
    )
    options = {"length": (6.5e-4, 5.5e-4), "periodic": periodic}
    with Grid((13, 11), comm=MPI.COMM_SELF, **options) as alone, Grid((13, 11), **options) as parts:
        whole, mine = run(kernel, alone), run(kernel, parts)

        block = tuple(map(slice, parts.start, parts.stop))
        for name in mine:
            np.testing.assert_array_equal(mine[name].interior, whole[name].interior[block])


def test_a_line_has_the_same_bits_on_any_number_of_ranks():
    kernel = ReactiveFlow(hot_temperature=1500.0, radius=2e-4)
    with Grid((37,), length=(1e-3,), periodic=False, comm=MPI.COMM_SELF) as alone:
        whole = run(kernel, alone)
    with Grid((37,), length=(1e-3,), periodic=False) as parts:
        mine = run(kernel, parts)

        for name in mine:
            np.testing.assert_array_equal(mine[name].interior, whole[name].interior[parts.start[0] : parts.stop[0]])
