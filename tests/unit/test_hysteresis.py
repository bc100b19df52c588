"""Hysteresis and blending: routes do not flicker, and there is no seam where the surrogate ends."""

import numpy as np
import pytest

from coupler.controller.blending import band, mixed
from coupler.controller.hysteresis import Hysteresis

IDS = np.array([10, 11, 12, 13])
SCORE = np.array([0.5, 1.05, 1.05, 1.5])
THRESHOLD = 1.0


def _after(accepted: list[bool], share: float = 0.1) -> Hysteresis:
    memory = Hysteresis(share)
    memory.remember(np.array(accepted), IDS, 1, 0)
    return memory


def test_who_was_accepted_may_be_a_little_more_doubtful_and_nobody_else() -> None:
    eased = _after([True, True, False, True]).eased(SCORE, IDS, 2, 0)

    assert (eased < THRESHOLD).tolist() == [True, True, False, False]


def test_elements_are_known_by_their_id_in_any_order_and_number() -> None:
    memory = _after([True, True, False, True])

    eased = memory.eased(np.array([1.05, 1.05, 1.05]), np.array([12, 11, 99]), 2, 0)

    assert (eased < THRESHOLD).tolist() == [False, True, False]


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_first_time_nothing_is_remembered(share: float) -> None:
    assert Hysteresis(share).eased(SCORE, IDS, 2, 0) is SCORE


def test_calls_are_remembered_apart() -> None:
    assert _after([True, True, True, True]).eased(SCORE, IDS, 2, 1) is SCORE


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_call_that_is_asked_in_pieces_is_remembered_whole(cut: int) -> None:
    memory, accepted = Hysteresis(0.1), np.array([True, True, False, True])
    for step in (1, 2):
        for part in (slice(None, cut), slice(cut, None)):
            eased = memory.eased(SCORE[part], IDS[part], step, 0)
            whole = _after(accepted.tolist()).eased(SCORE, IDS, 2, 0)[part]
            assert np.array_equal(eased, SCORE[part] if step == 1 else whole)
            memory.remember(accepted[part], IDS[part], step, 0)


def test_a_score_that_is_not_a_number_stays_one() -> None:
    eased = _after([True, True, True, True]).eased(np.array([np.nan, np.inf, 0.1, 0.1]), IDS, 2, 0)

    assert not np.isfinite(eased[:2]).any()


def test_a_score_that_wanders_around_the_threshold_does_not_change_the_route() -> None:
    memory, ids, routes = Hysteresis(0.2), np.array([1]), []
    for step, score in enumerate((0.9, 1.05, 0.95, 1.1, 1.3, 1.1, 1.05, 0.9)):
        taken = memory.eased(np.array([score]), ids, step, 0) < THRESHOLD
        memory.remember(taken, ids, step, 0)
        routes.append(bool(taken[0]))

    assert routes == [True, True, True, True, False, False, False, True]


def test_the_band_lies_just_below_the_threshold() -> None:
    score = np.array([0.5, 0.8, 0.9, 0.99, 1.2])

    found = band(score, np.array([True, True, True, False, False]), THRESHOLD, 0.2)

    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(("threshold", "share"), [(1.0, 0.0), (np.inf, 0.2)])
def test_without_a_width_or_a_threshold_nothing_is_mixed(threshold: float, share: float) -> None:
    assert band(np.array([0.5]), np.array([True]), threshold, share).size == 0


def test_the_mixture_goes_from_the_answer_to_the_truth_without_a_jump() -> None:
    score = np.array([0.8, 0.9, 1.0])

    result = mixed(np.ones((3, 1)), np.zeros((3, 1)), score, THRESHOLD, 0.2)

    np.testing.assert_allclose(result[:, 0], [1.0, 0.5, 0.0], atol=1e-12)
