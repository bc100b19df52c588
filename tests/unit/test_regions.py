"""Regions and alarms: where a version is found wrong is noticed, and where it is in order nothing is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.controller.regions import REGION_NUMBERS, Alarms, Regions, watch
from coupler.records import Reason

Floats = NDArray[np.float64]

REGIONS = Regions(centres=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), scale=np.array([1.0, 10.0]))
ATOL, RTOL, CAP, LEVEL, RATE = np.array([1.0]), np.zeros(1), 5.0, 0.2, 1e-3


def _numbers(inputs: Floats, error: Floats, reason: Reason = Reason.ACCEPTED) -> NDArray[np.int64]:
    numbers = np.zeros((len(REGIONS.centres), REGION_NUMBERS), np.int64)
    verdicts = np.full(len(inputs), reason, np.uint8)
    truth = np.zeros((len(inputs), 1))
    watch(inputs, error[:, None], verdicts, truth, REGIONS, ATOL, RTOL, CAP, LEVEL, numbers)
    return numbers


def _alarms() -> Alarms:
    return Alarms(LEVEL, RATE).renewed(len(REGIONS.centres))


def _step(rng: np.random.Generator, region: int, mean_error: float, audits: int = 10) -> NDArray[np.int64]:
    inputs = np.tile(REGIONS.centres[region] * REGIONS.scale, (audits, 1))
    return _numbers(inputs, rng.exponential(mean_error, audits))


def test_an_element_lies_in_the_region_of_the_nearest_centre_in_scaled_units() -> None:
    inputs = np.array([[0.1, 1.0], [0.9, 1.0], [0.1, 9.0], [0.1, 4.0]])

    assert REGIONS.find(inputs).tolist() == [0, 1, 2, 0]


def test_no_element_and_no_region_are_both_all_right() -> None:
    assert REGIONS.find(np.empty((0, 2))).shape == (0,)
    assert Regions.none(2).centres.shape == (0, 2)


def test_a_region_with_errors_far_above_tolerance_is_under_alarm_within_a_few_steps_and_no_other() -> None:
    rng, alarms = np.random.default_rng(1), _alarms()

    for _ in range(10):
        alarms = alarms.after(_step(rng, 1, 4.0) + _step(rng, 0, 0.5))

    assert alarms.raised == (False, True, False)


def test_a_model_that_turns_bad_after_a_long_good_time_is_noticed_as_fast() -> None:
    rng, alarms = np.random.default_rng(2), _alarms()
    for _ in range(2000):
        alarms = alarms.after(_step(rng, 2, 0.2))
    before = alarms.raised

    for _ in range(10):
        alarms = alarms.after(_step(rng, 2, 4.0))

    assert (before, alarms.raised) == ((False, False, False), (False, False, True))


def test_false_alarms_are_rarer_than_the_rate_at_the_very_level() -> None:
    rng = np.random.default_rng(3)
    raised = 0

    for _ in range(100):
        alarms = _alarms()
        for _ in range(100):
            # Losses of 0 or 1 whose mean is just the level: the hardest case that is in order.
            alarms = alarms.after(_numbers(np.zeros((10, 2)), np.where(rng.random(10) < LEVEL, CAP, 0.0)))
        raised += alarms.raised[0]

    # 100 runs of 100 steps at one alarm in 1000 steps at most: 10 expected at most, 19 is beyond 99 %.
    assert raised <= 19


def test_an_alarm_stays_until_another_version_answers() -> None:
    rng, alarms = np.random.default_rng(4), _alarms()
    for _ in range(10):
        alarms = alarms.after(_step(rng, 0, 5.0))
    for _ in range(50):
        alarms = alarms.after(_step(rng, 0, 0.0))

    assert alarms.raised == (True, False, False)
    assert not alarms.renewed(3).any


@pytest.mark.parametrize("reason", [Reason.SCORE, Reason.BUDGET, Reason.ALARM, Reason.NOT_FINITE])
def test_only_answers_that_were_accepted_count(reason: Reason) -> None:
    assert not _numbers(np.zeros((5, 2)), np.full(5, 100.0), reason).any()


def test_numbers_of_more_regions_than_a_version_has_are_not_looked_at() -> None:
    alarms = Alarms(LEVEL, RATE).renewed(1)

    after = alarms.after(np.zeros((8, REGION_NUMBERS), np.int64))

    assert after.raised == (False,)


def test_a_step_of_another_version_says_nothing_of_this_one() -> None:
    alarms = Alarms(LEVEL, RATE).renewed(3)

    assert alarms.after(np.zeros((0, REGION_NUMBERS), np.int64)) == alarms


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-20, 20), st.floats(0, 50)), max_size=40), st.integers(0, 40))
def test_it_does_not_matter_which_rank_saw_an_audit(rows: list[tuple[float, float, float]], cut: int) -> None:
    table = np.array(rows).reshape(-1, 3)
    inputs, error = np.ascontiguousarray(table[:, :2]), np.ascontiguousarray(table[:, 2])

    whole = _numbers(inputs, error)

    assert np.array_equal(whole, _numbers(inputs[:cut], error[:cut]) + _numbers(inputs[cut:], error[cut:]))
