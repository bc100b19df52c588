"""Tiles: what an operator over them declares, and their way between fields and rows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.controller.limits import Limits
from coupler.errors import ConfigError, FieldMismatch, PluginError
from coupler.field import Field, State
from coupler.grid import Grid
from coupler.kernel import Evaluate, Kernel, Passage, check_kernel, evaluate_truth, gather
from coupler.learning.trainer import trained_range
from coupler.operator import Operator, Signature
from coupler.tile import Tile

Floats = NDArray[np.float64]
FIELDS = (Field("u", unit="K", bounds=(0, 10)), Field("v"), Field("w"))


def _centre(blocks: Floats, dt: float) -> Floats:
    """Add ``dt`` to the tile's own cells."""
    return blocks[:, :, 1:-1, 1:-1] + dt


def _operator(**changes: Any) -> Operator:
    names: dict[str, Any] = {"inputs": ("u", "v"), "outputs": ("u", "v"), "atol": (1e-3, 1e-2), "rtol": 0.0}
    return Operator(changes.pop("truth", _centre), **(names | {"tile": Tile((2, 3), halo=1)} | changes))


@contextmanager
def _random_state(shape: tuple[int, ...], halo: int, seed: int = 0) -> Iterator[State]:
    with Grid(shape, halo=halo, comm=MPI.COMM_SELF) as grid:
        state = grid.state(FIELDS)
        random = np.random.default_rng(seed)
        for local in state.values():
            local.array[...] = random.random(local.array.shape)
        yield state


@pytest.mark.parametrize("shape", [(), (1, 2, 3, 4), (0,), (2.0,), (True,), 4])
def test_a_tile_without_cells_is_refused(shape: Any) -> None:
    with pytest.raises(PluginError, match="give 1 to 3 positive whole numbers"):
        Tile(shape, halo=1)


@pytest.mark.parametrize("halo", [-1, 1.5])
def test_a_halo_that_means_nothing_is_refused(halo: Any) -> None:
    with pytest.raises(PluginError, match="halo of"):
        Tile((4,), halo=halo)


def test_columns_are_named_by_field_and_place_and_an_output_as_the_input_it_replaces() -> None:
    signature = _operator().bound_to(FIELDS).signature

    assert signature.input_names[0] == "u_m1_m1" and signature.input_names[-1] == "v_2_3"
    assert signature.output_names == tuple(f"{name}_{i}_{j}" for name in "uv" for i in range(2) for j in range(3))
    assert all(name.isidentifier() for name in signature.input_names)
    assert [signature.input_names[place] for place in signature.increments] == list(signature.output_names)
    assert signature.outputs[0] == Field("u_0_0", unit="K", bounds=(0, 10))
    assert signature.atol == (1e-3,) * 6 + (1e-2,) * 6


def test_a_signature_travels_as_json_by_its_fields() -> None:
    signature = _operator(conserved={"mass": {"u": 1.0}}).bound_to(FIELDS).signature

    text = json.dumps(signature.to_json())

    assert Signature.from_json(json.loads(text)) == signature
    assert len(text) < 500


def test_another_tolerance_is_one_per_field() -> None:
    operator = _operator().with_tolerance(atol=(1.0, 2.0))

    assert operator.signature.field_atol == (1.0, 2.0)
    assert operator.signature.atol == (1.0,) * 6 + (2.0,) * 6
    assert operator.signature.tiled == _operator().signature.tiled


def test_the_truth_gets_blocks_and_is_asked_by_rows() -> None:
    operator = _operator()
    tiled = operator.signature.tiled
    rows = np.random.default_rng(0).random((3, len(operator.signature.inputs)))

    outputs = operator.evaluate_truth(rows, 0.5)

    assert tiled is not None
    np.testing.assert_array_equal(tiled.output_blocks(outputs), tiled.input_blocks(rows)[:, :, 1:-1, 1:-1] + 0.5)
    assert np.shares_memory(tiled.input_blocks(rows), rows)
    assert operator.evaluate_truth(rows[:0], 0.5).shape == (0, 12)


def test_a_truth_that_gives_the_halo_back_is_refused_in_few_words() -> None:
    operator = _operator(truth=lambda blocks, dt: blocks)

    with pytest.raises(FieldMismatch, match=r"Return an array of shape \(3, 2, 2, 3\).*without its halo") as caught:
        operator.evaluate_truth(np.ones((3, len(operator.signature.inputs))), 0.5)

    assert len(str(caught.value)) < 400


def test_what_is_no_tile_is_refused() -> None:
    with pytest.raises(PluginError, match="write tile=Tile"):
        _operator(tile=(16, 16))


def test_a_tile_does_not_keep_a_sum_by_itself() -> None:
    signature = _operator(conserved={"mass": {"u": 1.0, "v": 1.0}}).signature
    infinite = np.full(len(signature.inputs), np.inf)

    assert signature.conserved == {"mass": {"u": 1.0, "v": 1.0}}
    assert len(Limits.of(signature, -infinite, infinite).after) == 0


def test_a_sum_over_what_is_no_field_of_the_tile_is_refused() -> None:
    with pytest.raises(PluginError, match='uses "u_0_0"'):
        _operator(conserved={"mass": {"u_0_0": 1.0}})


def test_all_cells_of_a_tile_have_the_trained_range_of_their_field() -> None:
    signature = _operator().bound_to(FIELDS).signature
    blocks = np.zeros((4, 2, 4, 5))
    blocks[1, 0, 2, 3], blocks[3, 1, 0, 0] = 8.0, -1.0

    lower, upper = trained_range(signature, blocks.reshape(4, -1))

    np.testing.assert_allclose(upper[:20], 8.16)
    assert set(lower[:20]) == {0.0}
    assert (lower[20:] < -1.0).all() and (lower[20:] > -1.1).all()


@st.composite
def _tilings(draw: st.DrawFn) -> tuple[Tile, tuple[int, ...], int]:
    ndim = draw(st.integers(1, 3))
    sides = tuple(draw(st.integers(1, 4)) for _ in range(ndim))
    seen = draw(st.integers(0, 2))
    counts = [draw(st.integers(1, 3)) for _ in range(ndim)]
    halo = draw(st.integers(seen, 3))
    shape = tuple(side * count for side, count in zip(sides, counts, strict=True))
    return (
        Tile(sides, seen),
        tuple(max(extent, -(-halo // side) * side) for extent, side in zip(shape, sides, strict=True)),
        halo,
    )


@settings(max_examples=60, deadline=None)
@given(_tilings(), st.integers(0, 2**32 - 1))
def test_tiles_are_gathered_and_scattered_as_slices(tiling: tuple[Tile, tuple[int, ...], int], seed: int) -> None:
    tile, shape, halo = tiling
    operator = Operator(_centre, inputs=("w", "u"), outputs=("u", "v"), atol=1.0, rtol=0.0, tile=tile)
    tiled = operator.signature.tiled
    assert tiled is not None
    with _random_state(shape, halo, seed) as state:
        expected = {name: local.array.copy() for name, local in state.items()}
        passage = Passage(operator, state)

        rows = passage.gather()
        answers = np.random.default_rng(seed).random((len(rows), len(operator.signature.outputs)))
        passage.scatter(answers)

        counts = [extent // side for extent, side in zip(shape, tile.shape, strict=True)]
        for number, place in enumerate(np.ndindex(*counts)):
            first = [halo + at * side for at, side in zip(place, tile.shape, strict=True)]
            own = tuple(slice(at, at + side) for at, side in zip(first, tile.shape, strict=True))
            seen = tuple(slice(one.start - tile.halo, one.stop + tile.halo) for one in own)
            block = tiled.input_blocks(rows)[number]
            np.testing.assert_array_equal(block, np.stack([expected["w"][seen], expected["u"][seen]]))
            expected["v"][own] = tiled.output_blocks(answers)[number, 1]
        for number, place in enumerate(np.ndindex(*counts)):
            own = tuple(
                slice(halo + at * side, halo + (at + 1) * side) for at, side in zip(place, tile.shape, strict=True)
            )
            expected["u"][own] = tiled.output_blocks(answers)[number, 0]
        for name, local in state.items():
            np.testing.assert_array_equal(local.array, expected[name])


def test_rows_for_another_number_of_tiles_are_refused() -> None:
    with _random_state((4, 6), 1) as state, pytest.raises(FieldMismatch, match="one row per local tile"):
        gather(_operator(), state, np.empty((5, 40)))


@pytest.mark.parametrize("shape", [(4, 5), (3, 6), (1, 3), (6,)])
def test_a_subdomain_that_is_not_made_of_whole_tiles_is_refused(shape: tuple[int, ...]) -> None:
    with _random_state(shape, 1) as state, pytest.raises(FieldMismatch, match="not made of whole tiles of 2x3"):
        Passage(_operator(), state)


def test_fields_with_too_narrow_a_halo_are_refused() -> None:
    operator = _operator(tile=Tile((2, 3), halo=2))

    with _random_state((4, 6), 1) as state, pytest.raises(FieldMismatch, match="Set halo = 2"):
        Passage(operator, state)


class Tiles(Kernel):
    fields = FIELDS
    halo = 1
    dimensions = (2,)
    advance = _operator()

    def start(self, state: State, grid: Grid) -> None: ...

    def step(self, state: State, grid: Grid, dt: float, evaluate: Evaluate) -> None:
        grid.exchange(state)
        evaluate(self.advance, state, dt)


class Mixed(Tiles):
    other = _operator(tile=Tile((4, 2), halo=0))
    cells = Operator(lambda rows, dt: rows, inputs=("u",), outputs=("u",), atol=1.0, rtol=0.0)


def test_tiles_of_several_operators_stay_whole_together() -> None:
    check_kernel(Mixed())

    assert Tiles().grain(2) == (2, 3)
    assert Mixed().grain(2) == (4, 6)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"halo": 0}, 'Kernel "Broken" has a halo of 0, its operator "advance".*set halo = 1'),
        ({"dimensions": (1, 2)}, r"works in 1 or 2 dimensions.*set dimensions = \(2,\)"),
        ({"advance": _operator(inputs=("u", "x"))}, 'names the column "x"'),
    ],
)
def test_a_kernel_that_its_tiles_do_not_fit_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        check_kernel(type("Broken", (Tiles,), attributes)())


def test_the_truth_is_taken_tile_by_tile() -> None:
    kernel = Tiles()
    with Grid((4, 6), halo=1, grain=kernel.grain(2), comm=MPI.COMM_SELF) as grid:
        state = grid.state(kernel.fields)
        for local in state.values():
            local.interior[...] = grid.ids.reshape(grid.local_shape)

        kernel.step(state, grid, 0.5, evaluate_truth)

        ids = grid.ids.reshape(grid.local_shape)
        np.testing.assert_array_equal(state["u"].interior, ids + 0.5)
        np.testing.assert_array_equal(state["w"].interior, ids)


def test_tiles_are_numbered_in_c_order() -> None:
    with Grid((4, 6), halo=1, grain=(2, 3), comm=MPI.COMM_SELF) as grid:
        assert grid.number((2, 3)).tolist() == [0, 1, 2, 3]
        assert grid.number((4, 2)).tolist() == [0, 1, 2]
        np.testing.assert_array_equal(grid.number((1, 1)), grid.ids)


@pytest.mark.parametrize(
    ("shape", "grain", "said"),
    [
        ((5, 6), (2, 3), r"not made of whole tiles of 2x3 cells.*grid\.shape = \[4, 6\]"),
        ((4, 6), (8, 6), r"not made of whole tiles of 8x6 cells.*grid\.shape = \[8, 6\]"),
        ((4, 6), (2,), "grid.grain"),
        ((4, 6), (2, 0), "grid.grain"),
    ],
)
def test_a_grid_that_is_not_made_of_whole_tiles_is_refused(shape: Any, grain: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Grid(shape, grain=grain, comm=MPI.COMM_SELF)
