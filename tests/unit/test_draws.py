"""Draws that belong to elements."""

import numpy as np

from coupler.learning.draws import element_draws


def test_draws_are_uniform_and_independent_between_purposes() -> None:
    ids = np.arange(100_000)
    zeros = np.zeros_like(ids)

    first, second = (element_draws(zeros, zeros, ids, purpose=purpose) for purpose in (1, 2))

    # Five standard deviations of a mean of 1e5 uniform numbers, and of their correlation.
    assert abs(first.mean() - 0.5) < 5 * 0.29 / 316
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 316
    assert first.min() >= 0
    assert first.max() < 1
