"""Kernels: which operators they have, and the way between fields and rows of elements."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.errors import FieldMismatch, PluginError
from coupler.field import Field, State
from coupler.grid import Grid
from coupler.kernel import Evaluate, Kernel, check_kernel, evaluate_truth, gather, scatter
from coupler.operator import Operator

Floats = NDArray[np.float64]


def _shift(inputs: Floats, dt: float) -> Floats:
    return inputs + dt


def _operator(*names: str) -> Operator:
    return Operator(_shift, inputs=names, outputs=names, atol=1e-6, rtol=0.0)


class Base(Kernel):
    fields = (Field("u"), Field("v", bounds=(0, None)), Field("w"))
    first = _operator("u")
    second = _operator("u", "v")
    not_one = "second"

    def start(self, state: State, grid: Grid) -> None:
        for local in state.values():
            local.interior[...] = grid.ids.reshape(grid.local_shape)

    def step(self, state: State, grid: Grid, dt: float, evaluate: Evaluate) -> None:
        evaluate(self.second, state, dt)


class Derived(Base):
    second = _operator("v")
    third = _operator("w")


class OfTheObject(Base):
    def __init__(self) -> None:
        self.first = _operator("v", "w")
        self.own = _operator("u")


class Without(Base):
    first = None  # type: ignore[assignment]


@pytest.fixture(params=[(5,), (4, 3), (3, 2, 4)], ids=["1-D", "2-D", "3-D"])
def grid(request: pytest.FixtureRequest) -> Iterator[Grid]:
    with Grid(request.param, halo=2, comm=MPI.COMM_SELF) as grid:
        yield grid


@pytest.fixture
def state(grid: Grid) -> State:
    state = grid.state(Base.fields)
    for local in state.values():
        local.array[...] = np.nan  # halos must never be gathered
    random = np.random.default_rng(1)
    for local in state.values():
        local.interior[...] = random.random(local.interior.shape)
    return state


def test_operators_of_the_class_come_in_order_of_declaration() -> None:
    assert list(Base().operators.items()) == [("first", Base.first), ("second", Base.second)]


def test_a_derived_class_adds_and_replaces_operators() -> None:
    assert Derived().operators == {"first": Base.first, "second": Derived.second, "third": Derived.third}


def test_operators_of_the_object_stand_before_those_of_the_class() -> None:
    kernel = OfTheObject()

    assert kernel.operators == {"first": kernel.first, "second": Base.second, "own": kernel.own}
    assert "own" not in Base().operators


def test_a_derived_class_can_take_an_operator_away() -> None:
    assert Without().operators == {"second": Base.second}


def test_gathered_rows_are_the_cells_in_c_order_without_the_halo(state: State) -> None:
    rows = gather(_operator("w", "u"), state)

    np.testing.assert_array_equal(rows, np.stack([state["w"].interior.ravel(), state["u"].interior.ravel()], axis=1))


def test_scattered_rows_are_gathered_again_and_nothing_else_has_changed(state: State) -> None:
    operator, rows = _operator("v", "u"), np.random.default_rng(2).random((state["u"].interior.size, 2))
    w = state["w"].array.copy()

    scatter(operator, state, rows)

    np.testing.assert_array_equal(gather(operator, state), rows)
    np.testing.assert_array_equal(state["w"].array, w)
    halos = state["u"].array.size - state["u"].interior.size
    assert np.isnan(state["u"].array).sum() == halos


def test_rows_are_gathered_into_a_given_array_without_a_copy(state: State) -> None:
    operator = _operator("v", "u")
    arena = np.full((state["u"].interior.size + 3, 2), -1.0)
    desk = arena[1:-2]

    rows = gather(operator, state, desk)

    assert rows is desk
    np.testing.assert_array_equal(arena[1:-2], gather(operator, state))
    assert (arena[[0, -2, -1]] == -1.0).all()


def test_a_given_array_of_another_length_is_refused(state: State) -> None:
    with pytest.raises(FieldMismatch, match="one row per local cell"):
        gather(_operator("v"), state, np.empty((state["u"].interior.size + 1, 1)))


def test_an_operator_over_a_field_that_is_not_there_is_refused(state: State) -> None:
    with pytest.raises(FieldMismatch, match='no field "x"'):
        gather(_operator("x"), state)


def test_the_truth_is_taken_cell_by_cell(grid: Grid) -> None:
    kernel, state = Base(), grid.state(Base.fields)
    kernel.start(state, grid)

    kernel.step(state, grid, 0.5, evaluate_truth)

    ids = grid.ids.reshape(grid.local_shape)
    for name, expected in (("u", ids + 0.5), ("v", ids + 0.5), ("w", ids)):
        np.testing.assert_array_equal(state[name].interior, expected)


@pytest.mark.parametrize(
    "kernel", [Base(), Derived(), OfTheObject(), Without()], ids=lambda kernel: type(kernel).__name__
)
def test_a_sound_kernel_passes(kernel: Kernel) -> None:
    check_kernel(kernel)


def _broken(**attributes: Any) -> Kernel:
    return type("Broken", (Base,), attributes)()  # type: ignore[no-any-return]


class Silent(Kernel):
    reaction = _operator("u")

    def start(self, state: State, grid: Grid) -> None: ...

    def step(self, state: State, grid: Grid, dt: float, evaluate: Evaluate) -> None: ...


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (Silent(), 'Kernel "Silent" declares no fields: set fields'),
        (_broken(fields=()), 'Kernel "Broken" declares no fields'),
        (_broken(fields=Field("u")), 'Kernel "Broken" has fields = Field.*: write a tuple'),
        (_broken(fields=("u", "v", "w")), r"has fields = \('u', 'v', 'w'\): write a tuple"),
        (_broken(fields=(*Base.fields, Field("u"))), 'Field "u" is declared twice'),
        (_broken(first=None, second=None), 'Kernel "Broken" has no operator'),
        (_broken(third=_operator("x")), 'names the column "x", which is not a field of the kernel'),
    ],
)
def test_a_kernel_with_nothing_to_simulate_or_to_couple_is_refused(kernel: Kernel, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        check_kernel(kernel)


def test_a_kernel_without_a_step_cannot_be_made() -> None:
    class Half(Base):
        step = Kernel.step

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]
