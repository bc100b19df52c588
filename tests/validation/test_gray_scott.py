"""Gray-Scott on tiles: against the same steps of the whole field, a homogeneous solution, and twice as short steps."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import State
from coupler.grid import Grid
from coupler.kernel import check_kernel, evaluate_truth
from coupler.kernels.gray_scott import GrayScott

if TYPE_CHECKING:
    from tests.validation.conftest import Agrees

Floats = NDArray[np.float64]


def _run(
    kernel: GrayScott, steps: int, dt: float, *, shape: tuple[int, int] = (64, 64), periodic: bool = True
) -> State:
    with Grid(shape, halo=kernel.halo, periodic=periodic, grain=kernel.grain(2), comm=MPI.COMM_SELF) as grid:
        state = grid.state(kernel.fields)
        kernel.start(state, grid)
        for _ in range(steps):
            kernel.step(state, grid, dt, evaluate_truth)
    return state


def _whole_field(
    u: np.ndarray, v: np.ndarray, kernel: GrayScott, steps: int, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Step the whole periodic field with NumPy, in the order of operations that the kernel has."""
    (du, dv), fed, lost = (value * dt for value in kernel.diffusion), dt * kernel.feed, dt * (kernel.feed + kernel.kill)

    def spread(c: Floats) -> Floats:
        rows, columns = np.roll(c, 1, 0) + np.roll(c, -1, 0), np.roll(c, 1, 1) + np.roll(c, -1, 1)
        return (rows + columns) - 4.0 * c

    for _ in range(steps):
        eaten = dt * (u * v * v)
        u, v = (
            u + (du * spread(u) - eaten + fed * (1.0 - u)),
            v + (dv * spread(v) + eaten - lost * v),
        )
    return u, v


@pytest.mark.parametrize(("substeps", "tile"), [(1, 8), (4, 16), (8, 32), (8, 8)])
def test_a_run_on_tiles_is_bitwise_the_run_of_the_whole_field(substeps: int, tile: int) -> None:
    kernel = GrayScott(substeps=substeps, tile=tile)
    check_kernel(kernel)
    start = _run(kernel, 0, 1.0)
    expected = _whole_field(start["u"].interior, start["v"].interior, kernel, 24, 1.0)

    state = _run(kernel, 24 // substeps, float(substeps))

    for name, whole in zip("uv", expected, strict=True):
        np.testing.assert_array_equal(state[name].interior, whole)


def test_without_v_the_feed_relaxes_u_as_euler_steps_do() -> None:
    kernel = GrayScott(substeps=4, tile=8)
    blocks = np.zeros((3, 2, 16, 16))
    blocks[:, 0] = 0.25

    u, v = kernel.react(blocks, 4.0)[0]

    # u' = F (1 - u) exactly, in four Euler steps of 1; only rounding is left.
    np.testing.assert_allclose(u, 1.0 - 0.75 * (1.0 - 0.04) ** 4, rtol=1e-14)
    assert (v == 0.0).all()


def test_halving_the_step_halves_the_error() -> None:
    runs = [_run(GrayScott(substeps=8, tile=32), 8 * 2**level, 8.0 / 2**level) for level in range(4)]

    coarse, middle, fine = (np.abs(one["u"].interior - other["u"].interior).mean() for one, other in pairwise(runs))

    # Euler's method is of first order: ratios of differences tend to 2.
    assert 1.8 < coarse / middle < 2.2
    assert 1.9 < middle / fine < 2.1


def test_bounded_edges_let_nothing_through(agrees: "Agrees") -> None:
    kernel = GrayScott(substeps=4, tile=16, feed=0.0, kill=0.0)
    before, after = _run(kernel, 0, 4.0, periodic=False), _run(kernel, 50, 4.0, periodic=False)

    # Without feed and kill the reaction only turns u into v: their sum is kept to rounding.
    total = [sum(state[name].interior.sum() for name in "uv") for state in (before, after)]
    agrees("Gray-Scott", "drift of u + v without feed and kill", total[1] / total[0] - 1.0)


def test_too_long_a_step_is_refused() -> None:
    with pytest.raises(PluginError, match=r"is not stable: set run\.dt to at most"):
        _run(GrayScott(substeps=2, tile=8), 1, 8.0)
