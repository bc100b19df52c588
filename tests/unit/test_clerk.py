"""The clerk: what compiled code answers by itself at the desk, and what it leaves."""

from collections.abc import Iterator

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from coupler.exchange import Arena, ArenaLayout, Desk, SlotShape
from coupler.exchange.doorbell import Patience
from coupler.fused import Activation, DenseForward, DenseLayer
from coupler.routine import Routine, make_routine

N_IN, N_OUT, CAPACITY, DT = 5, 3, 40, 0.5
# Much longer than anything here may take.
LONG_SECONDS = 60.0


@pytest.fixture
def arena() -> Iterator[Arena]:
    """An arena of two ranks."""
    arena = Arena.create(ArenaLayout((SlotShape(0, CAPACITY, N_IN, N_OUT),) * 2))
    yield arena
    arena.close()


@pytest.fixture(scope="module")
def forward() -> DenseForward:
    random = np.random.default_rng(0)
    sizes = ((N_IN, 8, Activation.SILU), (8, N_OUT, Activation.IDENTITY))
    return DenseForward([DenseLayer(random.normal(size=(2, n, m)), np.ones((2, m)), kind) for n, m, kind in sizes])


def _ask(arena: Arena, slot: int, count: int, version: int = 1) -> NDArray[np.float64]:
    inputs = np.random.default_rng(count).normal(size=(count, N_IN))
    arena.slots[slot].inputs[:count] = inputs
    arena.slots[slot].ask(arena.bell, count, DT, version)
    return inputs


def _expected(forward: DenseForward, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    mean, score = np.empty((len(inputs), N_OUT)), np.empty(len(inputs))
    forward(inputs, DT, mean, score)
    return np.column_stack((mean, score))


def _answer(arena: Arena, slot: int, count: int) -> NDArray[np.float64]:
    assert not arena.slots[slot].pending
    return np.column_stack((arena.slots[slot].mean[:count], arena.slots[slot].score[:count]))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, CAPACITY])
def test_a_routine_gives_the_same_bits_as_its_forward(arena: Arena, forward: DenseForward, count: int) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): forward.routine()})
    questions = [_ask(arena, 0, count), _ask(arena, 1, 7)]

    assert not desk.batches(0.0)

    for slot, inputs in enumerate(questions):
        np.testing.assert_array_equal(_answer(arena, slot, len(inputs)), _expected(forward, inputs))


def test_the_time_of_the_model_and_of_the_whole_turn_come_with_the_answer(arena: Arena, forward: DenseForward) -> None:
    desk, slot = Desk(arena), arena.slots[0]
    desk.learn({(0, 1): forward.routine()})
    _ask(arena, 0, CAPACITY)

    desk.batches(0.0)

    arrived, seconds, turnaround = slot.wait(0.0, Patience())
    assert arrived
    assert 0 < seconds < turnaround < LONG_SECONDS


def test_another_version_or_operator_is_left_while_the_rest_is_answered(arena: Arena, forward: DenseForward) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): forward.routine(), (1, 2): forward.routine()})
    _ask(arena, 0, 4, version=2)
    inputs = _ask(arena, 1, 5)

    (batch,) = desk.batches(0.0)

    assert (batch.operator, batch.version, batch.slots) == (0, 2, [arena.slots[0]])
    np.testing.assert_array_equal(_answer(arena, 1, 5), _expected(forward, inputs))


def test_what_is_learned_later_replaces_what_was_known(arena: Arena, forward: DenseForward) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): forward.routine()})
    desk.learn({})
    _ask(arena, 0, 4)

    assert len(desk.batches(0.0)) == 1


def test_a_slot_that_has_moved_is_followed_once_and_then_answered_by_the_routine(forward: DenseForward) -> None:
    arena = Arena.create(ArenaLayout((SlotShape(0, 2, N_IN, N_OUT),)))
    desk = Desk(Arena.attach(arena.address))
    desk.learn({(0, 1): forward.routine()})
    arena.slots[0].grow(CAPACITY)
    _ask(arena, 0, CAPACITY)
    (batch,) = desk.batches(0.0)
    batch.answer(0.0)

    inputs = _ask(arena, 0, CAPACITY)

    assert not desk.batches(0.0)
    np.testing.assert_array_equal(_answer(arena, 0, CAPACITY), _expected(forward, inputs))
    arena.close()


def test_a_round_of_more_elements_than_one_should_answer_is_left_for_many(arena: Arena, forward: DenseForward) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): forward.routine()._replace(most=10)})
    _ask(arena, 0, 6)
    _ask(arena, 1, 5)

    (batch,) = desk.batches(0.0)

    assert [len(part.inputs) for part in batch.parts] == [6, 5]


def test_a_question_of_more_elements_than_its_slot_has_stays_inside_it(arena: Arena, forward: DenseForward) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): forward.routine()})
    inputs = _ask(arena, 0, CAPACITY)
    arena.slots[0].ask(arena.bell, 2**31, DT, 1)

    assert not desk.batches(0.0)
    np.testing.assert_array_equal(_answer(arena, 0, CAPACITY), _expected(forward, inputs))
    assert not arena.slots[1].mean.any()


def test_a_routine_that_fails_leaves_the_question_to_whoever_can_say_why(arena: Arena) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): _failing()})
    _ask(arena, 0, 4)

    assert len(desk.batches(0.0)) == 1


def test_a_dismissed_desk_returns_at_once(arena: Arena, forward: DenseForward) -> None:
    desk = Desk(arena)
    desk.learn({(0, 1): forward.routine()})
    arena.dismiss()
    inputs = _ask(arena, 0, 4)

    assert not desk.batches(LONG_SECONDS)
    assert not desk.open
    np.testing.assert_array_equal(_answer(arena, 0, 4), _expected(forward, inputs))


@njit(nogil=True)
def _raise(inputs, dt, mean, score):  # type: ignore[no-untyped-def]
    if len(inputs):
        raise ValueError


def _failing() -> Routine:
    _raise(np.empty((0, N_IN)), DT, np.empty((0, N_OUT)), np.empty(0))
    return make_routine(_raise, N_IN, N_OUT, ())
