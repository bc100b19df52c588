"""Trials: a poisoned candidate is never promoted, a good one within a stated number of audits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.controller import UNIT
from coupler.controller.trial import TRIAL_NUMBERS, Trial, Verdict, compare

Floats = NDArray[np.float64]

ATOL, RTOL, CAP = np.array([1.0]), np.zeros(1), 5.0
MOST = 5000
TRIALS = 200


def _numbers(before: Floats, after: Floats) -> NDArray[np.int64]:
    """Add up audits whose errors, in tolerances, were these; the truth is 0."""
    numbers = np.zeros(TRIAL_NUMBERS, np.int64)
    compare(before[:, None], after[:, None], np.zeros((len(before), 1)), ATOL, RTOL, CAP, numbers)
    return numbers


def _run(seed: int, *, worse: float, audits_a_step: int = 20) -> Trial:
    """Judge a challenger whose errors are those of the defender times a factor, both lognormal and correlated."""
    rng, trial = np.random.default_rng(seed), Trial(challenger=2, defender=1)
    while trial.verdict(MOST) is Verdict.OPEN:
        shared = rng.normal(0.0, 0.8, audits_a_step)
        before = 0.3 * np.exp(shared + rng.normal(0.0, 0.5, audits_a_step))
        after = 0.3 * worse * np.exp(shared + rng.normal(0.0, 0.5, audits_a_step))
        trial = trial.after(_numbers(before, after))
    return trial


def test_a_poisoned_challenger_is_never_promoted_in_two_hundred_trials() -> None:
    verdicts = [_run(seed, worse=3.0).verdict(MOST) for seed in range(TRIALS)]

    assert set(verdicts) == {Verdict.DEFENDER}


def test_a_good_challenger_is_promoted_within_a_thousand_audits() -> None:
    trials = [_run(seed, worse=0.5) for seed in range(TRIALS)]

    assert {trial.verdict(MOST) for trial in trials} == {Verdict.CHALLENGER}
    # Half the error, with a mean loss of 0.09: a median of some 340 audits, seen with these seeds.
    assert np.median([trial.audits for trial in trials]) < 500
    assert max(trial.audits for trial in trials) < 1000


def test_a_challenger_that_is_no_better_is_promoted_in_one_of_twenty_trials_at_most() -> None:
    verdicts = [_run(seed, worse=1.0).verdict(MOST) for seed in range(TRIALS)]

    # 5 % of 200 is 10; 18 is beyond 99 % of a binomial.
    assert verdicts.count(Verdict.CHALLENGER) <= 18
    assert verdicts.count(Verdict.DRAW) > TRIALS / 2


def test_a_trial_begins_undecided_and_without_a_loss() -> None:
    trial = Trial(challenger=2, defender=1)

    assert trial.verdict(MOST) is Verdict.OPEN
    assert (trial.audits, trial.defender_loss, trial.challenger_loss) == (0, 0.0, 0.0)


def test_a_step_without_audits_changes_nothing() -> None:
    trial = _run(1, worse=2.0)

    assert trial.after(_numbers(np.empty(0), np.empty(0))) == trial


def test_an_answer_that_is_not_finite_is_a_full_loss() -> None:
    numbers = _numbers(np.array([0.0, 0.0, 0.0]), np.array([np.nan, np.inf, 1e300]))

    trial = Trial(challenger=2, defender=1).after(numbers)

    assert (trial.defender_loss, trial.challenger_loss) == (0.0, 1.0)


def test_the_sentence_names_both_versions_and_how_many_audits_there_were() -> None:
    trial = Trial(challenger=8, defender=7).after(_numbers(np.array([1.0, 2.0]), np.array([0.5, 0.5])))

    assert trial.sentence == (
        "on 2 audits that both answered, version 8 had a mean capped error of 0.1 and version 7 one of 0.3"
    )


ERRORS = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(ERRORS, st.integers(0, 40))
def test_it_does_not_matter_which_rank_saw_an_audit(errors: list[tuple[float, float]], cut: int) -> None:
    before, after = np.array(errors).T

    whole = _numbers(before, after)

    np.testing.assert_array_equal(whole, _numbers(before[:cut], after[:cut]) + _numbers(before[cut:], after[cut:]))


@settings(max_examples=200, deadline=None)
@given(ERRORS)
def test_exchanging_the_two_versions_exchanges_everything(errors: list[tuple[float, float]]) -> None:
    before, after = np.array(errors).T

    one, other = _numbers(before, after), _numbers(after, before)

    assert one[1:3].tolist() == other[2:0:-1].tolist()
    assert np.array_equal(one[3:].reshape(2, -1), other[3:].reshape(2, -1)[::-1])


@settings(max_examples=200, deadline=None)
@given(ERRORS)
def test_no_rounding_makes_anybody_richer(errors: list[tuple[float, float]]) -> None:
    before, after = (np.minimum(part / CAP, 1.0) for part in np.array(errors).T)

    numbers = _numbers(before * CAP, after * CAP)

    exact = [np.log1p(bet * (before - after)).sum() for bet in (0.1, 0.3, 0.9)]
    assert (numbers[3:6] / UNIT <= np.array(exact) + 1e-12).all()
    np.testing.assert_allclose(numbers[3:6] / UNIT, exact, atol=len(before) / UNIT + 1e-12)


def test_answers_of_another_shape_are_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        compare(
            np.zeros((2, 1)), np.zeros((3, 1)), np.zeros((2, 1)), ATOL, RTOL, CAP, np.zeros(TRIAL_NUMBERS, np.int64)
        )
