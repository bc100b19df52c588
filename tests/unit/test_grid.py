"""Decomposition arithmetic and what a grid refuses; everything that needs several ranks is in tests/mpi."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coupler.decomposition import block, choose_dims
from coupler.errors import ConfigError
from coupler.grid import Grid

shapes = st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)


def thinnest(dims, shape):
    return min(cells // parts for parts, cells in zip(dims, shape, strict=True))


def surface(dims, shape):
    """Cells on one side of all cuts between ranks."""
    return sum((parts - 1) * math.prod(shape) // cells for parts, cells in zip(dims, shape, strict=True))


def possible_dims(size, shape, halo):
    candidates = itertools.product(range(1, size + 1), repeat=len(shape))
    return [dims for dims in candidates if math.prod(dims) == size and thinnest(dims, shape) >= max(halo, 1)]


@given(parts=st.integers(1, 50), cells=st.integers(0, 500))
def test_blocks_cover_all_cells_once_and_differ_by_at_most_one(parts, cells):
    blocks = [range(cells)[block(index, parts, cells)] for index in range(parts)]

    assert [cell for cells in blocks for cell in cells] == list(range(cells))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@given(size=st.integers(1, 24), shape=shapes, halo=st.integers(0, 3))
@settings(deadline=None)
def test_chosen_dims_have_the_least_surface_of_all_possible_ones(size, shape, halo):
    possible = possible_dims(size, shape, halo)
    assume(possible)

    dims = choose_dims(size, shape, halo)

    assert dims in possible
    assert surface(dims, shape) == min(surface(other, shape) for other in possible)
    assert dims == choose_dims(size, list(shape), halo)


@given(size=st.integers(1, 24), shape=shapes, halo=st.integers(0, 3))
@settings(deadline=None)
def test_every_block_of_the_chosen_dims_is_as_thick_as_the_halo(size, shape, halo):
    assume(possible_dims(size, shape, halo))

    dims = choose_dims(size, shape, halo)

    for parts, cells in zip(dims, shape, strict=True):
        lengths = [len(range(cells)[block(index, parts, cells)]) for index in range(parts)]
        assert min(lengths) >= max(halo, 1)


@given(size=st.integers(1, 24), shape=shapes, halo=st.integers(0, 3))
@settings(deadline=None)
def test_an_impossible_decomposition_is_refused_with_a_number_of_ranks_that_works(size, shape, halo):
    assume(not possible_dims(size, shape, halo))

    with pytest.raises(ConfigError, match=r"grid\.shape") as refusal:
        choose_dims(size, shape, halo)

    words = str(refusal.value)
    if min(shape) >= max(halo, 1):
        fewer = int(words.split("mpirun -n ")[1].split(")", maxsplit=1)[0])
        assert fewer < size
        assert possible_dims(fewer, shape, halo)


@pytest.mark.parametrize(
    ("size", "shape", "halo", "dims"),
    [
        (1, (8, 8), 1, (1, 1)),
        (2, (64, 64), 1, (2, 1)),
        (4, (64, 64), 1, (2, 2)),
        (3, (2, 64), 1, (1, 3)),
        (4, (2, 64), 2, (1, 4)),
        (8, (32, 32, 32), 1, (2, 2, 2)),
        (7, (7,), 1, (7,)),
        (6, (30, 20), 0, (3, 2)),
    ],
)
def test_dims_of_familiar_grids(size, shape, halo, dims):
    assert choose_dims(size, shape, halo) == dims


def test_more_ranks_than_rows_says_what_to_type():
    with pytest.raises(ConfigError, match=r"5 ranks cannot share .* at least 1 wide .*mpirun -n 4\) or give a larger"):
        choose_dims(5, (4,), 1)


def test_a_grid_thinner_than_its_halo_is_refused_on_one_rank_too():
    with pytest.raises(ConfigError, match="thinner than the halo of 3 cells"):
        choose_dims(1, (64, 2), 3)


@pytest.mark.parametrize("shape", [(), (0,), (4, -1), (2, 2, 2, 2), (4.0, 4), (True, 4), 64, "64"])
def test_a_shape_that_is_no_grid_is_refused(shape):
    with pytest.raises(ConfigError, match=r"grid\.shape"):
        Grid(shape)


@pytest.mark.parametrize(
    "length", [(), (1.0,), (1.0, 0.0), (1.0, -2.0), (1.0, math.inf), (1.0, math.nan), 2.0, ("a", "b")]
)
def test_a_length_that_does_not_fit_the_shape_is_refused(length):
    with pytest.raises(ConfigError, match=r"grid\.length"):
        Grid((4, 4), length=length)


@pytest.mark.parametrize("periodic", [(), (True,), (True, False, True), (1, 0), "no", 1])
def test_a_periodicity_that_does_not_fit_the_shape_is_refused(periodic):
    with pytest.raises(ConfigError, match=r"grid\.periodic"):
        Grid((4, 4), periodic=periodic)


@pytest.mark.parametrize("halo", [-1, 1.5, True, None])
def test_a_halo_that_is_no_number_of_cells_is_refused(halo):
    with pytest.raises(ConfigError, match="halo"):
        Grid((4, 4), halo=halo)


def test_box_is_of_unit_length_and_cell_centred_by_default():
    with Grid((4, 2)) as grid:
        assert grid.length == (1.0, 1.0)
        assert grid.spacing == (0.25, 0.5)
        np.testing.assert_array_equal(grid.centres(1), [0.25, 0.75])


def test_repr_says_cells_ranks_and_what_this_rank_owns():
    with Grid([8, 6], length=[2, 1.5], periodic=[True, False], halo=2) as grid:
        assert repr(grid) == (
            "Grid of 8 x 6 cells on 1 x 1 ranks\n"
            "  length: 2 x 1.5 (periodic, bounded)\n"
            "  halo: 2\n"
            "  rank 0 at (0, 0): cells [0:8, 0:6]"
        )
