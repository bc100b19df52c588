"""When a training is due, and how many samples are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.learning.trigger import TrainingTrigger, keep_shares

TRIGGER = TrainingTrigger(first=100, growth=0.5, capacity=400)


@pytest.mark.parametrize(("available", "due"), [(0, False), (99, False), (100, True), (5000, True)])
def test_the_first_training_waits_for_enough_samples(available: int, due: bool) -> None:
    assert TRIGGER.due(0, available) is due


@pytest.mark.parametrize(
    ("trained_on", "available", "due"),
    [(100, 199, False), (100, 200, True), (400, 599, False), (400, 600, True), (10_000, 10_199, False)],
)
def test_the_next_training_waits_for_a_share_of_the_buffer(trained_on: int, available: int, due: bool) -> None:
    assert TRIGGER.due(trained_on, available) is due


def test_no_new_samples_never_train_again() -> None:
    assert not TRIGGER.due(100, 100)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_samples_never_put_a_training_off(trained_on: int, new: int, more: int) -> None:
    if TRIGGER.due(trained_on, trained_on + new):
        assert TRIGGER.due(trained_on, trained_on + new + more)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 1000))
def test_the_buffer_is_renewed_at_most_once_in_the_given_steps(
    unselected: int, selected: int, capacity: int, steps: int
) -> None:
    shares = keep_shares(unselected, selected, capacity=capacity, steps=steps)

    assert 0 <= shares.selected <= 1
    assert 0 < shares.unselected <= 1
    kept = shares.unselected * unselected + shares.selected * selected
    assert kept * steps <= capacity * (1 + 1e-9) or shares.unselected == shares.selected == 1


def test_everything_is_kept_where_it_fits() -> None:
    assert keep_shares(10, 20, capacity=3000, steps=100).selected == 1.0
    assert keep_shares(0, 0, capacity=1000, steps=100).largest == 1.0


def test_audits_are_all_kept_while_fallbacks_are_thinned() -> None:
    shares = keep_shares(200, 1000, capacity=60_000, steps=100)

    assert shares.unselected == 1.0
    assert shares.selected == pytest.approx(0.4)


def test_audits_take_at_most_half_where_both_are_many() -> None:
    shares = keep_shares(10_000, 1000, capacity=60_000, steps=100)

    assert shares.unselected == pytest.approx(0.03)
    assert shares.selected == pytest.approx(0.3)


def test_without_a_model_the_audits_are_everything() -> None:
    assert keep_shares(10_000, 0, capacity=60_000, steps=100).unselected == pytest.approx(0.06)
