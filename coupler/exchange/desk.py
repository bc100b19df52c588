"""The desk: where whoever answers an arena takes the questions, all that are ready at once, and gives the answers."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from coupler.errors import CouplerError
from coupler.exchange.arena import Arena, Slot, await_questions
from coupler.exchange.doorbell import Patience
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
        self._patience = Patience()
        many = len(arena.slots)
        self._places = np.array([arena.layout.offset(index) // 4 for index in range(many)], np.int64)
        self._found, self._steps = np.zeros((many, 5), np.int64), np.zeros(many)
        self._rows: list[tuple[tuple[int, float], Rows] | None] = [None] * many

    @property
    def open(self) -> bool:
        """Whether answers are still wanted."""
        return not self._arena.stop[0]

    def batches(self, timeout: float) -> Sequence[Batch]:
        """Give the questions that are ready now, by operator and version; wait for the first for a while.

        Parameters
        ----------
        timeout : float
            Longest wait [s]; nothing is given if nobody asked.

        Collective: no.
        """
        many = await_questions(
            self._arena.words, self._places, int(timeout * 1e9), self._patience.memory, self._found, self._steps
        )
        batches: dict[tuple[int, int], Batch] = {}
        for place in range(many):
            index, number, count, version, generation = self._found[place].tolist()
            slot = self._arena.slots[index]
            if generation != slot.generation and not self._follow(slot, index):
                slot.answer(number, math.nan)
                continue
            key = slot.operator, version
            if key not in batches:
                batches[key] = Batch(*key, [], [], [])
            batch = batches[key]
            batch.slots.append(slot)
            batch.numbers.append(number)
            batch.parts.append(self._views(index, slot, count, float(self._steps[place])))
        return list(batches.values())

    def _follow(self, slot: Slot, index: int) -> bool:
        """Go where a rank's slot has moved to; say whether that can be read: the rank may be gone."""
        self._rows[index] = None
        try:
            memory = slot.follow()
        except CouplerError:
            return False
        self._mapped(memory)
        return True

    def _views(self, index: int, slot: Slot, count: int, dt: float) -> Rows:
        """Give the views of a question; a slot is mostly asked about as many elements as before."""
        known = self._rows[index]
        if known is None or known[0] != (count, dt):
            within = min(count, slot.capacity)
            known = (count, dt), Rows(slot.inputs[:within], dt, slot.mean[:within], slot.score[:within])
            self._rows[index] = known
        return known[1]
