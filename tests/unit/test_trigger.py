"""When a training is due, and how many samples are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.learning.trigger import TrainingTrigger, keep_share

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


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 1000))
def test_the_buffer_is_renewed_at_most_once_in_the_given_steps(labelled: int, capacity: int, steps: int) -> None:
    share = keep_share(labelled, capacity=capacity, steps=steps)

    assert 0 < share <= 1
    assert share * labelled * steps <= capacity * (1 + 1e-12) or share == 1


def test_everything_is_kept_where_it_fits() -> None:
    assert keep_share(10, capacity=1000, steps=100) == 1.0
    assert keep_share(0, capacity=1000, steps=100) == 1.0
