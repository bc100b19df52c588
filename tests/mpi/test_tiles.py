"""Tiles on however many ranks it is started: whole on every rank, numbered as on one, the same truth bit for bit."""

import numpy as np
import pytest
from mpi4py import MPI

from coupler.decomposition import choose_dims
from coupler.errors import ConfigError
from coupler.grid import Grid
from coupler.kernel import evaluate_truth, gather
from coupler.kernels.cavity import Cavity
from coupler.kernels.gray_scott import GrayScott

pytestmark = pytest.mark.mpi

RANKS = MPI.COMM_WORLD.size


def _state(kernel, grid, steps, dt):
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    for _ in range(steps):
        kernel.step(state, grid, dt, evaluate_truth)
    return state


@pytest.mark.parametrize(
    ("kernel", "periodic"),
    [
        (GrayScott(substeps=4, tile=4), True),
        (GrayScott(substeps=3, tile=8), False),
        (Cavity(substeps=4, tile=8), False),
        (Cavity(substeps=2, tile=4), True),
    ],
    ids=["Gray-Scott", "Gray-Scott in a box", "cavity", "Taylor-Green"],
)
def test_the_fields_are_those_of_one_rank(kernel, periodic):
    options = {"halo": kernel.halo, "periodic": periodic, "grain": kernel.grain(2)}
    with Grid((40, 32), comm=MPI.COMM_SELF, **options) as alone:
        expected = _state(kernel, alone, 5, float(kernel.substeps))

    with Grid((40, 32), **options) as grid:
        state = _state(kernel, grid, 5, float(kernel.substeps))

        here = tuple(map(slice, grid.start, grid.stop))
        for name, local in state.items():
            np.testing.assert_array_equal(local.interior, expected[name].interior[here])


@pytest.mark.parametrize("shape", [(40, 32), (8, 64), (32, 8)])
def test_every_tile_is_on_one_rank_and_has_the_number_and_the_row_of_one_rank(shape):
    kernel = GrayScott(substeps=4, tile=8)
    with Grid(shape, halo=4, comm=MPI.COMM_SELF) as alone:
        state = _state(kernel, alone, 0, 1.0)
        alone.exchange(state)
        rows = gather(kernel.advance, state)

    with Grid(shape, halo=4, grain=(8, 8)) as grid:
        mine = _state(kernel, grid, 0, 1.0)
        grid.exchange(mine)
        ids = grid.number((8, 8))

        np.testing.assert_array_equal(gather(kernel.advance, mine), rows[ids])
        everybody = np.concatenate(grid.comm.allgather(ids))
        assert sorted(everybody.tolist()) == list(range(len(rows)))


def test_more_ranks_than_tiles_are_refused():
    if RANKS == 1:
        pytest.skip("one rank is never too many")

    with pytest.raises(ConfigError, match=rf"{RANKS} ranks cannot share.*of whole tiles of 8x8 cells.*mpirun -n 1"):
        Grid((8, 8), halo=4, grain=(8, 8))


def test_tiles_are_dealt_out_so_that_no_block_is_thinner_than_its_halo():
    # Five tiles of four cells: with a halo of six every rank needs two of them, so two ranks and no more.
    assert choose_dims(2, (20,), 6, (4,)) == (2,)
    with pytest.raises(ConfigError, match="mpirun -n 2"):
        choose_dims(3, (20,), 6, (4,))
