"""Borrowed arrays: the same numbers, whoever holds them is not counted, and nothing is let go that is still held."""

import sys
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.kernels.borrow import borrowed

Floats = NDArray[np.float64]


class Lent(NamedTuple):
    numbers: Floats
    factor: float
    places: NDArray[np.int64]


@njit
def _chosen(lent: Any) -> Any:
    return lent.factor * lent.numbers[lent.places].sum()


@njit
def _from_outside(lent: Any) -> Any:
    return _chosen(borrowed(lent))


@njit
def _from_within(count: int) -> Any:
    own = Lent(np.ones(count).cumsum() - 1.0, 2.0, np.arange(count))
    lent, total = borrowed(own), 0.0
    for _ in range(1000):
        total += _chosen(lent) + np.ones(count)[0]  # would take the memory if it were free
    return total + own.numbers[0]


def test_what_is_borrowed_has_the_same_numbers_and_its_owner_keeps_it() -> None:
    lent = Lent(np.arange(10.0), 0.5, np.array([1, 3]))
    before = sys.getrefcount(lent.numbers)

    found = [_from_outside(lent) for _ in range(100)]
    after = sys.getrefcount(lent.numbers)

    assert found == [2.0] * 100
    assert after == before
    np.testing.assert_array_equal(lent.numbers, np.arange(10.0))


def test_what_a_function_lends_stays_until_the_last_line_that_names_it() -> None:
    assert _from_within(100) == 1000 * (2.0 * 4950.0 + 1.0)
