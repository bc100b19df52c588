"""Fields and states: what a quantity may be called and be worth, and where its numbers lie."""

import math
from typing import Any

import numpy as np
import pytest

from coupler.errors import FieldMismatch, PluginError
from coupler.field import Field, State

U, V = Field("u", unit="mol/m3", bounds=(0, None)), Field("v")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((None, None), (-math.inf, math.inf)),
        ((0, None), (0.0, math.inf)),
        ((None, -1), (-math.inf, -1.0)),
        ((-math.inf, math.inf), (-math.inf, math.inf)),
        ((np.float32(0.5), np.int64(2)), (0.5, 2.0)),
    ],
)
def test_bounds_are_numbers_and_none_is_no_bound(bounds: tuple[Any, Any], expected: tuple[float, float]) -> None:
    field = Field("u", bounds=bounds)

    assert (field.lower, field.upper) == expected
    assert (type(field.lower), type(field.upper)) == (float, float)


@pytest.mark.parametrize(
    "bounds", [(1, 0), (0, 0), (math.inf, None), (None, -math.inf), (math.nan, 1), (0, math.nan), (0,), (0, 1, 2), ()]
)
def test_bounds_that_leave_nothing_are_refused(bounds: Any) -> None:
    with pytest.raises(PluginError, match='Field "u" has bounds'):
        Field("u", bounds=bounds)


@pytest.mark.parametrize("name", ["", "1u", "u v", "u.v", "u-v", "u/v"])
def test_names_that_cannot_be_keys_are_refused(name: str) -> None:
    with pytest.raises(PluginError, match="names become keys"):
        Field(name)


def test_a_field_is_frozen_and_equal_to_one_that_says_the_same() -> None:
    assert Field("u", unit="mol/m3", bounds=(0.0, None)) == U
    assert hash(Field("u", unit="mol/m3", bounds=(0, None))) == hash(U)
    with pytest.raises(AttributeError):
        U.unit = "1"  # type: ignore[misc]


@pytest.mark.parametrize("halo", [0, 1, 3])
@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 4, 3)])
def test_the_interior_is_a_view_without_the_halo(shape: tuple[int, ...], halo: int) -> None:
    local = State((U,), shape, halo)["u"]

    local.interior[...] = 1.0

    assert local.interior.shape == shape
    assert local.array.shape == tuple(cells + 2 * halo for cells in shape)
    assert local.array.sum() == math.prod(shape)
    assert np.shares_memory(local.interior, local.array)


def test_a_state_maps_names_to_fields_in_their_order() -> None:
    state = State((V, U), (4,), 1)

    assert list(state) == ["v", "u"]
    assert len(state) == 2
    assert state["u"].field is U
    assert not state["u"].array.any()
    assert repr(state) == "State\n  v: (4,) [1]\n  u: (4,) [mol/m3]"


def test_a_field_that_is_not_there_is_named_with_the_nearest() -> None:
    state = State((Field("temperature"), V), (4,), 1)

    with pytest.raises(FieldMismatch, match=r'no field "temperatures" in this state\. Did you mean "temperature"'):
        state["temperatures"]


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(PluginError, match='Field "u" is declared twice'):
        State((U, V, Field("u")), (4,), 1)


def test_a_state_takes_over_the_numbers_of_another_and_is_not_the_other() -> None:
    one, other = State((U, V), (3, 2), 1), State((U, V), (3, 2), 1)
    other["u"].array[...], other["v"].array[...], other.time = 1.0, 2.0, 0.5

    one.copy_from(other)
    other["v"].array[...], other.time = 3.0, 0.7

    assert one.time == 0.5
    assert one["u"].array.min() == 1.0
    assert one["v"].array.min() == one["v"].array.max() == 2.0
