"""The first threshold: conformal risk control against its definition and its promise."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.learning.calibration import risk_controlled_threshold

# Few distinct values, so that ties occur.
_score = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, np.inf, np.nan])
_error = st.one_of(st.floats(0, 20), st.sampled_from([0.0, np.inf, np.nan]))
_held_out = st.lists(st.tuples(_score, _error), min_size=1, max_size=60)
_target = st.floats(0.001, 0.9)


def _arrays(pairs: list[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.array(pairs, dtype=np.float64)
    return values[:, 0], values[:, 1]


def _risk(score: NDArray[np.float64], error: NDArray[np.float64], threshold: float, cap: float) -> float:
    loss = [min(e / cap, 1.0) if np.isfinite(e) else 1.0 for s, e in zip(score, error, strict=True) if s < threshold]
    return (sum(loss) + 1) / (len(score) + 1)


@given(_held_out, _target)
def test_the_threshold_keeps_the_risk_at_the_target(pairs: list[tuple[float, float]], target: float) -> None:
    score, error = _arrays(pairs)

    threshold = risk_controlled_threshold(score, error, cap=5.0, target=target)

    assert np.isfinite(threshold)
    if threshold > 0:
        assert _risk(score, error, threshold, 5.0) <= target + 1e-12  # sums in another order


@given(_held_out, _target)
def test_no_larger_threshold_keeps_the_risk(pairs: list[tuple[float, float]], target: float) -> None:
    score, error = _arrays(pairs)
    threshold = risk_controlled_threshold(score, error, cap=5.0, target=target)
    refused = score[np.isfinite(score) & (score >= threshold)]

    if refused.size:
        larger = float(np.nextafter(refused.min(), np.inf))
        assert _risk(score, error, larger, 5.0) > target - 1e-12


@given(_held_out, _target)
def test_a_stricter_target_never_raises_the_threshold(pairs: list[tuple[float, float]], target: float) -> None:
    score, error = _arrays(pairs)

    stricter = risk_controlled_threshold(score, error, cap=5.0, target=target / 2)

    assert stricter <= risk_controlled_threshold(score, error, cap=5.0, target=target)


def test_too_few_elements_accept_nothing() -> None:
    # 1 / (n + 1) alone is above the target.
    assert risk_controlled_threshold(np.zeros(10), np.zeros(10), cap=5.0, target=0.02) == 0.0


def test_no_elements_accept_nothing() -> None:
    assert risk_controlled_threshold(np.empty(0), np.empty(0), cap=5.0, target=0.9) == 0.0


def test_a_perfect_model_is_accepted_as_far_as_scores_were_seen() -> None:
    score = np.linspace(0.1, 2.0, 200)

    threshold = risk_controlled_threshold(score, np.zeros(200), cap=5.0, target=0.02)

    assert threshold == np.nextafter(2.0, np.inf)


def test_new_elements_lose_no_more_than_the_target_on_average() -> None:
    random = np.random.default_rng(0)
    losses = []
    for _ in range(400):
        score = random.exponential(1.0, 301)
        error = score * random.exponential(2.0, 301)
        threshold = risk_controlled_threshold(score[1:], error[1:], cap=5.0, target=0.05)
        losses.append(min(error[0] / 5.0, 1.0) if score[0] < threshold else 0.0)

    # Mean of 400 losses of standard deviation about 0.1: three standard errors are 0.015.
    assert np.mean(losses) <= 0.05 + 0.015
