"""Grid on however many ranks it is started: halos against numpy's pad of the global array, bit for bit."""

import gc
import itertools
import math
import weakref

import numpy as np
import pytest
from mpi4py import MPI

from coupler.decomposition import block, choose_dims
from coupler.errors import ConfigError, FieldMismatch, LifecycleError
from coupler.field import Field, State
from coupler.grid import Grid

pytestmark = pytest.mark.mpi

RANKS = MPI.COMM_WORLD.size
FIELDS = (Field("u"), Field("v"), Field("w"))
PERIODIC = {ndim: list(itertools.product((True, False), repeat=ndim)) for ndim in (1, 2, 3)}
# Uneven, flat and tall ones, and such that are cut along one axis only, or into blocks of a single cell.
SHAPES = [(7,), (RANKS,), (12, 9), (3, 40), (40, 3), (RANKS, 1), (1, RANKS), (2, 2), (5, 6, 7), (2, 2, 2), (3, 3, 16)]
CASES = [
    (shape, periodic, halo)
    for shape in SHAPES
    for periodic in PERIODIC[len(shape)]
    for halo in range(min(3, *shape) + 1)
]


def make_grid(shape, **options):
    try:
        choose_dims(RANKS, shape, options.get("halo", 1))
    except ConfigError as impossible:
        pytest.skip(str(impossible))
    return Grid(shape, **options)


def framed(grid, rng):
    """Random numbers on all cells and on the frame outside of bounded edges; periodic halos wrap around."""
    outside = [(0, 0) if wrap else (grid.halo, grid.halo) for wrap in grid.periodic]
    around = [(grid.halo, grid.halo) if wrap else (0, 0) for wrap in grid.periodic]
    cells = rng.standard_normal([n + sum(pad) for n, pad in zip(grid.shape, outside, strict=True)])
    return np.pad(cells, around, mode="wrap")


def window(grid, padded):
    """This rank's part, halo included, of a global array with halo."""
    cells = zip(grid.start, grid.stop, strict=True)
    return padded[tuple(slice(first, last + 2 * grid.halo) for first, last in cells)]


def forget_neighbours(grid, array):
    """Put NaN wherever only an exchange can know better."""
    for axis in range(grid.ndim):
        layers = np.moveaxis(array, axis, 0)
        if grid.periodic[axis] or grid.coords[axis] > 0:
            layers[: grid.halo] = np.nan
        if grid.periodic[axis] or grid.coords[axis] < grid.dims[axis] - 1:
            layers[len(layers) - grid.halo :] = np.nan


def fill_at_random(grid, state, seed):
    """Fill cells and boundary values; give what every field must look like after an exchange."""
    rng = np.random.default_rng(seed)
    expected = {}
    for name, local in state.items():
        expected[name] = window(grid, framed(grid, rng))
        local.array[...] = expected[name]
        forget_neighbours(grid, local.array)
    return expected


def assert_same_bits(state, expected):
    for name, local in state.items():
        np.testing.assert_array_equal(local.array.view(np.int64), expected[name].view(np.int64), err_msg=name)


@pytest.mark.parametrize(("shape", "periodic", "halo"), CASES)
def test_exchange_fills_halos_of_all_fields_and_leaves_boundary_values_alone(shape, periodic, halo):
    with make_grid(shape, periodic=periodic, halo=halo) as grid:
        state = grid.state(FIELDS)
        expected = fill_at_random(grid, state, seed=1)

        grid.exchange(state)

        assert_same_bits(state, expected)


@pytest.mark.parametrize("reflect_first", [True, False])
@pytest.mark.parametrize(("shape", "periodic", "halo"), CASES)
def test_reflect_mirrors_the_nearest_cells_before_or_after_an_exchange(shape, periodic, halo, reflect_first):
    with make_grid(shape, periodic=periodic, halo=halo) as grid:
        cells = np.random.default_rng(2).standard_normal(shape)
        for axis, wraps in enumerate(periodic):
            width = [(halo, halo) if other == axis else (0, 0) for other in range(grid.ndim)]
            cells = np.pad(cells, width, mode="wrap" if wraps else "symmetric")
        state = grid.state(FIELDS[:1])
        state["u"].array[...] = np.nan
        inner = (slice(halo, -halo or None),) * grid.ndim
        state["u"].interior[...] = window(grid, cells)[inner]

        for fill in (grid.reflect, grid.exchange) if reflect_first else (grid.exchange, grid.reflect):
            fill(state)

        assert_same_bits(state, {"u": window(grid, cells)})


def test_two_states_exchanged_in_turn_keep_apart():
    with make_grid((12, 9)) as grid:
        states = grid.state(FIELDS), grid.state(FIELDS[:2])

        for seed in range(20):
            expected = [fill_at_random(grid, state, seed=2 * seed + k) for k, state in enumerate(states)]
            for state in states:
                grid.exchange(state)
            for state, wanted in zip(states, expected, strict=True):
                assert_same_bits(state, wanted)


def test_an_exchange_reads_the_present_values_each_time():
    with make_grid((12, 9), periodic=(True, False), halo=2) as grid:
        state = grid.state(FIELDS)

        for seed in range(50):
            expected = fill_at_random(grid, state, seed=seed)
            grid.exchange(state)
            assert_same_bits(state, expected)


def test_a_state_is_not_kept_alive_by_its_exchange():
    with make_grid((12, 9)) as grid:
        last = None
        for seed in range(300):
            state = grid.state(FIELDS)
            expected = fill_at_random(grid, state, seed=seed)
            grid.exchange(state)
            assert_same_bits(state, expected)
            assert last is None or last() is None
            last = weakref.ref(state)
            del state


def test_states_collected_late_on_some_ranks_only_do_not_disturb_the_others():
    with make_grid((12, 9)) as grid:
        kept = []
        for seed in range(40):
            state = grid.state(FIELDS)
            expected = fill_at_random(grid, state, seed=seed)
            grid.exchange(state)
            assert_same_bits(state, expected)
            if grid.rank % 2:
                kept.append(state)
        kept.clear()
        gc.collect()

        expected = fill_at_random(grid, state, seed=99)
        grid.exchange(state)
        assert_same_bits(state, expected)


def test_two_grids_on_the_same_ranks_keep_apart():
    with make_grid((12, 9)) as first, make_grid((16,), halo=2) as second:
        states = first.state(FIELDS), second.state(FIELDS)
        expected = fill_at_random(first, states[0], seed=3), fill_at_random(second, states[1], seed=4)

        second.exchange(states[1])
        first.exchange(states[0])

        assert_same_bits(states[0], expected[0])
        assert_same_bits(states[1], expected[1])


def test_a_cartesian_communicator_of_the_user_may_carry_the_grid():
    cart = MPI.COMM_WORLD.Create_cart([RANKS], periods=[True])
    with make_grid((12, 9), comm=cart) as grid:
        state = grid.state(FIELDS)
        expected = fill_at_random(grid, state, seed=5)

        grid.exchange(state)

        assert_same_bits(state, expected)
    cart.Free()


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_and_centres_are_those_of_the_whole_grid(shape):
    length = tuple(1.7 * (axis + 1) for axis in range(len(shape)))
    with make_grid(shape, length=length) as grid:
        own = tuple(slice(first, last) for first, last in zip(grid.start, grid.stop, strict=True))

        assert grid.ids.dtype == np.int64
        np.testing.assert_array_equal(grid.ids, np.arange(math.prod(shape)).reshape(shape)[own].reshape(-1))
        for axis, cells in enumerate(shape):
            everywhere = (np.arange(cells) + 0.5) * (length[axis] / cells)
            np.testing.assert_array_equal(grid.centres(axis), everywhere[own[axis]])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_cell_belongs_to_one_rank(shape):
    with make_grid(shape) as grid:
        owned = MPI.COMM_WORLD.allgather(grid.ids.tolist())
        dealt = [block(place, parts, n) for place, parts, n in zip(grid.coords, grid.dims, shape, strict=True)]

        assert sorted(itertools.chain(*owned)) == list(range(math.prod(shape)))
        assert [(cells.start, cells.stop) for cells in dealt] == list(zip(grid.start, grid.stop, strict=True))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float32, np.bool_, np.uint8])
@pytest.mark.parametrize("shape", SHAPES)
def test_gather_gives_back_what_scatter_dealt_out(shape, dtype):
    whole = np.random.default_rng(6).integers(0, 100, shape).astype(dtype)
    with make_grid(shape) as grid:
        mine = grid.scatter(whole if grid.rank == 0 else None)
        back = grid.gather(mine)

        assert mine.shape == grid.local_shape and mine.dtype == dtype
        np.testing.assert_array_equal(mine.reshape(-1), whole.reshape(-1)[grid.ids])
        if grid.rank == 0:
            assert back.dtype == dtype
            np.testing.assert_array_equal(back, whole)
        else:
            assert back is None


def test_gather_takes_the_interior_of_a_field_as_it_is():
    with make_grid((12, 9)) as grid:
        state = grid.state(FIELDS)
        state["v"].interior[...] = grid.ids.reshape(grid.local_shape)

        whole = grid.gather(state["v"].interior)

        assert whole is None or np.array_equal(whole.reshape(-1), np.arange(12 * 9))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_collect_gives_everybodys_numbers_to_everybody_in_rank_order(shape):
    with make_grid((12, 9)) as grid:
        everyones = grid.collect(np.full(shape, float(grid.rank)))

        np.testing.assert_array_equal(everyones, np.stack([np.full(shape, float(rank)) for rank in range(RANKS)]))


@pytest.mark.parametrize("act", [Grid.exchange, Grid.reflect])
@pytest.mark.parametrize("wrong", ["halo", "shape"])
def test_a_state_of_another_grid_is_refused(act, wrong):
    with make_grid((12, 9), periodic=False) as grid:
        shape = grid.local_shape if wrong == "halo" else tuple(n + 1 for n in grid.local_shape)
        state = State(FIELDS, shape, 2 if wrong == "halo" else 1)

        with pytest.raises(FieldMismatch, match=r'field "u" .* grid.state\(fields\)'):
            act(grid, state)


def test_gather_refuses_an_array_with_its_halo():
    with make_grid((12, 9)) as grid:
        state = grid.state(FIELDS)

        with pytest.raises(FieldMismatch, match="interior"):
            grid.gather(state["u"].array)


@pytest.mark.parametrize("wrong", [None, np.zeros((9, 12)), np.zeros(108)])
def test_scatter_refuses_a_wrong_array_on_all_ranks_together(wrong):
    with make_grid((12, 9)) as grid, pytest.raises(FieldMismatch, match="rank 0"):
        grid.scatter(wrong if grid.rank == 0 else None)


def test_more_ranks_than_cells_are_refused_on_all_ranks_together():
    if RANKS == 1:
        pytest.skip("one rank fits into any grid")
    with pytest.raises(ConfigError, match="start fewer ranks"):
        Grid((RANKS - 1,))


def test_a_closed_grid_refuses_to_communicate_and_may_be_closed_again():
    grid = make_grid((12, 9))
    state = grid.state(FIELDS)
    grid.exchange(state)
    grid.close()
    grid.close()

    acts = (
        lambda: grid.exchange(state),
        lambda: grid.gather(state["u"].interior),
        lambda: grid.scatter(None),
        lambda: grid.collect(np.zeros(1)),
    )
    for act in acts:
        with pytest.raises(LifecycleError, match="closed"):
            act()
