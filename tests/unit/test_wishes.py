"""Wishes: what one rank wants all do at the same step, and a checkpoint's own cost makes it rare enough."""

import time

import numpy as np
import pytest

from coupler.case import RunSection
from coupler.coupling.wishes import Wishes

BY_STEP = RunSection(checkpoint_seconds=0.0, checkpoint_every=3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def total(*ranks: Wishes) -> np.ndarray:
    return np.sum([rank.numbers() for rank in ranks], axis=0)


def test_by_the_step_all_agree_without_asking() -> None:
    ranks = [Wishes(BY_STEP, first=number == 0) for number in range(2)]
    due = []

    for step in range(1, 8):
        for rank in ranks:
            rank.agree(step, None)
        due.append([rank.checkpoint for rank in ranks])
        for rank in ranks:
            rank.done(0.1)

    assert due == [[step % 3 == 0] * 2 for step in range(1, 8)]


def test_the_clock_of_one_rank_counts_and_it_asks_once(clock: list[float]) -> None:
    ranks = [Wishes(RunSection(checkpoint_seconds=10.0), first=number == 0) for number in range(2)]
    clock[0] = 9.0
    assert total(*ranks).tolist() == [0, 0]
    clock[0] = 10.0

    asked = total(*ranks)
    for rank in ranks:
        rank.agree(5, asked)

    assert asked.tolist() == [1, 0]
    assert [rank.checkpoint for rank in ranks] == [True, True]
    assert total(*ranks).tolist() == [0, 0]  # it is agreed on
    ranks[0].done(0.05)
    clock[0] = 19.0
    assert total(ranks[0]).tolist() == [0, 0]
    clock[0] = 20.0
    assert total(ranks[0]).tolist() == [1, 0]


def test_checkpoints_that_take_long_take_a_hundredth_of_the_time_at_most(clock: list[float]) -> None:
    rank = Wishes(RunSection(checkpoint_seconds=10.0), first=True)
    rank.done(2.0)
    clock[0] = 199.0
    assert rank.numbers()[0] == 0
    clock[0] = 200.0
    assert rank.numbers()[0] == 1


def test_one_rank_that_is_asked_to_stop_stops_all_with_a_checkpoint() -> None:
    ranks = [Wishes(BY_STEP, first=number == 0) for number in range(3)]
    ranks[2].ask_to_stop()

    asked = total(*ranks)
    for rank in ranks:
        rank.agree(1, asked)

    assert all(rank.stop and rank.checkpoint for rank in ranks)


def test_without_checkpoints_a_stop_writes_none() -> None:
    rank = Wishes(RunSection(checkpoints=0, checkpoint_every=1), first=True)
    rank.ask_to_stop()

    rank.agree(1, total(rank))

    assert (rank.stop, rank.checkpoint) == (True, False)
