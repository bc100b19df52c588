"""Regions of the inputs, whatever the inputs are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coupler.controller.regions import Regions
from coupler.learning.clusters import find_regions


def _clouds(count: int = 600) -> np.ndarray:
    """Three clouds far apart, with a second column a million times larger."""
    random = np.random.default_rng(3)
    middle = np.array([[0.0, 0.0], [1.0, 1e6], [5.0, 0.0]])[np.arange(count) % 3]
    return middle + random.normal(size=(count, 2)) * [0.05, 5e4]


def _same(first: Regions, second: Regions) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_clouds_become_regions() -> None:
    inputs = _clouds()

    regions = find_regions(inputs, most=3, seed=1)

    found = regions.find(inputs)
    assert [len(set(found[cloud::3].tolist())) for cloud in range(3)] == [1, 1, 1]
    assert len(set(found.tolist())) == 3


def test_the_same_seed_gives_the_same_bits() -> None:
    inputs = _clouds()

    assert _same(find_regions(inputs, most=8, seed=5), find_regions(inputs.copy(), most=8, seed=5))


@pytest.mark.parametrize(
    ("inputs", "regions"),
    [
        (np.array([[2.0, 3.0]]), 1),
        (np.zeros((50, 2)), 1),
        (np.repeat([[1.0, 2.0], [1.0, 3.0]], 40, axis=0), 2),
        (np.array([[1e-300, 1.0], [1e-300, 2.0], [1e-300, 4.0]]), 3),
        (np.empty((0, 2)), 0),
    ],
    ids=["one sample", "all zero", "two distinct", "a constant column", "no sample"],
)
def test_few_distinct_inputs_are_regions_of_their_own(inputs: np.ndarray, regions: int) -> None:
    found = find_regions(inputs, most=8, seed=0)

    assert found.centres.shape == (regions, 2)
    assert np.isfinite(found.centres).all()
    assert (found.scale > 0).all()
    assert sorted(set(found.find(inputs).tolist())) == list(range(regions))


def test_no_regions_can_be_asked_for() -> None:
    assert _same(find_regions(_clouds(), most=0, seed=0), Regions.none(2))


def test_many_inputs_are_thinned() -> None:
    regions = find_regions(np.random.default_rng(0).random((50_000, 2)), most=4, seed=0)

    assert len(regions.centres) == 4


@given(
    arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(-1e12, 1e12)), st.integers(1, 9)
)
def test_every_input_has_a_region_and_every_region_is_finite(inputs: np.ndarray, most: int) -> None:
    regions = find_regions(inputs, most=most, seed=0)

    assert 1 <= len(regions.centres) <= most
    assert np.isfinite(regions.centres).all()
    assert (regions.scale > 0).all()
