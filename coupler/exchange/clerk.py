"""The clerk: answers the questions of an arena that compiled code can answer alone, and leaves the others.

A thread that goes through Python for every question finds the interpreter out of its caches each time, as ranks have
worked meanwhile. So listing, forward, answer and the wait for the next question are one compiled call, which comes back
where a question needs more: another form, a version it does not know, a slot that has moved.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numba import njit

from coupler.exchange.arena import BELL, STOP, Arena, Slot
from coupler.exchange.atomics import load_acquire, monotonic_ns
from coupler.exchange.doorbell import Patience, await_change
from coupler.exchange.questions import (
    COLUMNS,
    CONTROL_LINES,
    HOW_MANY,
    IN_GENERATION,
    NUMBER,
    OF_VERSION,
    SLOT,
    WORDS,
    answer,
    list_questions,
)
from coupler.routine import Routine, call_routine

Routines = Mapping[tuple[int, int], Routine]
"""Routines by operator and version."""

# Rows of what the clerk knows of every slot, and of every routine.
_CONTROL, _SLOT_OPERATOR, _GENERATION, _CAPACITY, _INPUTS, _MEAN, _SCORE = range(7)
_OPERATOR, _VERSION, _ADDRESS, _MOST = range(4)


class Question(NamedTuple):
    """A question that the clerk has left.

    Attributes
    ----------
    slot : int
        Where it lies.
    number : int
        Which one of its slot it is.
    elements : int
        Its elements.
    version : int
        Who is asked.
    generation : int
        How often the slot had moved when it was put.
    dt : float
        Time step of its elements.
    """

    slot: int
    number: int
    elements: int
    version: int
    generation: int
    dt: float


class Clerk:
    """Answers what it has routines for.

    Parameters
    ----------
    arena : Arena
        Where the questions lie.
    """

    def __init__(self, arena: Arena) -> None:
        self._words = arena.words
        self._patience = Patience(crowded=bool(arena.crowded[0]))
        many = len(arena.slots)
        self._found, self._steps = np.zeros((many, COLUMNS), np.int64), np.zeros(many)
        self._slots = np.zeros((7, many), np.int64)
        for index, slot in enumerate(arena.slots):
            self._slots[_CONTROL, index] = arena.layout.offset(index) // 4
            self.follow(index, slot)
        self.learn({})

    def follow(self, index: int, slot: Slot) -> None:
        """Be told where a slot's rows are now."""
        places = (array.ctypes.data for array in (slot.inputs, slot.mean, slot.score))
        self._slots[_SLOT_OPERATOR:, index] = slot.operator, slot.generation, slot.capacity, *places

    def learn(self, routines: Routines) -> None:
        """Answer with these routines from the next call of :meth:`attend` on, and no others.

        Until then it may go on with those from before. Any thread may call it.
        """
        rows = [(*key, routine.address, routine.most) for key, routine in routines.items()]
        # In one piece: a call of attend keeps alive what it began with.
        self._routines = np.array(rows, np.int64).reshape(-1, 4), tuple(routines.values())

    def attend(self, timeout: float) -> list[Question]:
        """Answer questions for a while, and give those that are left as soon as there are any.

        Parameters
        ----------
        timeout : float
            Longest time [s]; nothing is given when it is up, the arena is dismissed or a signal has come.

        Collective: no. Releases the GIL.
        """
        table, _held = self._routines
        memory, nanoseconds = self._patience.memory, int(timeout * 1e9)
        left = _attend(self._words, self._slots, table, nanoseconds, memory, self._found, self._steps)
        rows, steps = self._found[:left].tolist(), self._steps[:left].tolist()
        return [Question._make((*row, dt)) for row, dt in zip(rows, steps, strict=True)]


@njit(nogil=True, cache=True)
def _attend(words, slots, routines, timeout, memory, found, steps):  # type: ignore[no-untyped-def]
    bell, stop = words[BELL * WORDS : BELL * WORDS + 2], words[STOP * WORDS : STOP * WORDS + 1]
    ends = monotonic_ns() + timeout
    while True:
        seen = load_acquire(bell, 0)
        many = list_questions(words, slots[_CONTROL], found, steps)
        left = _answer_round(words, slots, routines, found[:many], steps)
        rest = ends - monotonic_ns()
        if left > 0 or rest <= 0 or load_acquire(stop, 0):
            return left
        if many == 0 and not await_change(bell, seen, rest, memory):
            return 0


@njit(nogil=True, cache=True)
def _answer_round(words, slots, routines, found, steps):  # type: ignore[no-untyped-def]
    """Answer what can be answered, and move the others to the front of the list; give how many they are."""
    total, left = found[:, HOW_MANY].sum(), 0
    for place in range(len(found)):
        if not _answer_one(words, slots, routines, found[place], steps[place], total):
            found[left], steps[left] = found[place], steps[place]
            left += 1
    return left


@njit(nogil=True, cache=True)
def _answer_one(words, slots, routines, question, dt, total):  # type: ignore[no-untyped-def]
    """Answer a question of a round of so many elements in total; say whether that was possible."""
    slot = slots[:, question[SLOT]]
    address = _find(routines, slot[_SLOT_OPERATOR], question[OF_VERSION], total)
    if address == 0 or question[IN_GENERATION] != slot[_GENERATION]:
        return False
    started = monotonic_ns()
    count = min(question[HOW_MANY], slot[_CAPACITY])
    if call_routine(address, count, slot[_INPUTS], dt, slot[_MEAN], slot[_SCORE]):
        return False
    control = words[slot[_CONTROL] : slot[_CONTROL] + CONTROL_LINES * WORDS]
    answer(control, question[NUMBER], 1e-9 * (monotonic_ns() - started))
    return True


@njit(nogil=True, cache=True)
def _find(routines, operator, version, total):  # type: ignore[no-untyped-def]
    """Give the address of a routine for so many elements, 0 if there is none."""
    for place in range(len(routines)):
        routine = routines[place]
        if routine[_OPERATOR] == operator and routine[_VERSION] == version and total <= routine[_MOST]:
            return routine[_ADDRESS]
    return 0
