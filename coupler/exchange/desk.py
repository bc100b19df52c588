"""The desk: where whoever answers an arena takes the questions, all that are ready at once, and gives the answers."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from coupler.errors import CouplerError
from coupler.exchange.arena import Arena, Slot
from coupler.exchange.clerk import Clerk, Routines
from coupler.records import Rows


class Batch(NamedTuple):
    """Questions that one forward can answer, from whichever ranks were ready; they may abandon them meanwhile.

    Attributes
    ----------
    operator, version : int
        Whose model is asked, and which version of it.
    slots : list of Slot
        Where the questions lie.
    numbers : list of int
        Which question of its slot each is.
    parts : list of Rows
        Their elements and the places for the answers: views of the slots.
    """

    operator: int
    version: int
    slots: list[Slot]
    numbers: list[int]
    parts: list[Rows]

    def answer(self, seconds: float) -> None:
        """Tell every rank that its mean and score are there.

        Parameters
        ----------
        seconds : float
            Time the model took for the batch.
        """
        for slot, number in zip(self.slots, self.numbers, strict=True):
            slot.answer(number, seconds)


class Desk:
    """Takes the questions of all slots, without an order among ranks: whoever is ready is in the next batch.

    Parameters
    ----------
    arena : Arena
        What is answered.
    mapped : callable, optional
        Told of all memory in which questions will lie, before they do.
    """

    def __init__(self, arena: Arena, mapped: Callable[[memoryview], None] = lambda memory: None) -> None:
        self._arena, self._mapped = arena, mapped
        mapped(arena.memory)
        self._clerk = Clerk(arena)
        self._rows: list[tuple[tuple[int, float], Rows] | None] = [None] * len(arena.slots)

    @property
    def open(self) -> bool:
        """Whether answers are still wanted."""
        return not self._arena.stop[0]

    def learn(self, routines: Routines) -> None:
        """Have everything answered here that these routines can answer, and nothing else; any thread may call it.

        Parameters
        ----------
        routines : mapping of (operator, version) to Routine
            All there are.
        """
        self._clerk.learn(routines)

    def batches(self, timeout: float) -> Sequence[Batch]:
        """Give the questions that are ready and no routine answers, by operator and version; wait for the first.

        Meanwhile what routines can answer is answered.

        Parameters
        ----------
        timeout : float
            Longest time [s]; nothing is given if nobody asked for anything else.

        Collective: no.
        """
        batches: dict[tuple[int, int], Batch] = {}
        for question in self._clerk.attend(timeout):
            slot = self._arena.slots[question.slot]
            if question.generation != slot.generation and not self._follow(slot, question.slot):
                slot.answer(question.number, math.nan)
                continue
            key = slot.operator, question.version
            if key not in batches:
                batches[key] = Batch(*key, [], [], [])
            batch = batches[key]
            batch.slots.append(slot)
            batch.numbers.append(question.number)
            batch.parts.append(self._views(question.slot, slot, question.elements, question.dt))
        return list(batches.values())

    def _follow(self, slot: Slot, index: int) -> bool:
        """Go where a rank's slot has moved to; say whether that can be read: the rank may be gone."""
        self._rows[index] = None
        try:
            memory = slot.follow()
        except CouplerError:
            return False
        self._mapped(memory)
        self._clerk.follow(index, slot)
        return True

    def _views(self, index: int, slot: Slot, count: int, dt: float) -> Rows:
        """Give the views of a question; a slot is mostly asked about as many elements as before."""
        known = self._rows[index]
        if known is None or known[0] != (count, dt):
            within = min(count, slot.capacity)
            known = (count, dt), Rows(slot.inputs[:within], dt, slot.mean[:within], slot.score[:within])
            self._rows[index] = known
        return known[1]
