"""The in-process transport: the model inside the rank, for CPU-only machines and as the yardstick."""

import time

import numpy as np
from numpy.typing import NDArray

from coupler.exchange.arena import SlotShape
from coupler.exchange.guard import Guard
from coupler.exchange.transport import Answer, Load, Predict, Transport
from coupler.records import Reason, Rows


class InProcessTransport(Transport):
    """Answers by calling the model here and now.

    Parameters
    ----------
    shape : SlotShape
        Capacity and columns, as a slot of the arena would have.
    predict : callable
        The model; see :data:`coupler.exchange.transport.Predict`.
    load : callable
        Loads a version of it; see :data:`coupler.exchange.transport.Load`.
    """

    def __init__(self, shape: SlotShape, predict: Predict, load: Load) -> None:
        self.capacity = shape.capacity
        self._predict, self._load = predict, load
        self._guard = Guard()
        self._inputs = np.zeros((shape.capacity, shape.n_in))
        self._mean = np.zeros((shape.capacity, shape.n_out))
        self._score = np.zeros(shape.capacity)
        self._question = (0, 0.0, 0)

    def inputs(self, count: int) -> NDArray[np.float64]:
        """Give the private array to gather into."""
        return self._inputs[:count]

    def ask(self, count: int, dt: float, version: int) -> None:
        """Remember the question; the work is done when the answer is wanted."""
        self._question = (count, dt, version)

    def answer(self, deadline: float) -> Answer:
        """Run the model; there is nobody to wait for, so the deadline does not apply.

        What it cannot answer is not finite, as from a server, and the gates send it to the truth.
        """
        count, dt, version = self._question
        rows = Rows(self._inputs[:count], dt, self._mean[:count], self._score[:count])
        started = time.perf_counter()
        self._guard.answer(self._predict, [rows], version)
        seconds = time.perf_counter() - started
        return Answer(Reason.ACCEPTED, rows.mean, rows.score, seconds, seconds)

    def prepare(self, version: int) -> None:
        """Load the version into this rank."""
        self._load(version)

    @property
    def busy(self) -> bool:
        """Never: the answer is computed when it is wanted."""
        return False

    @property
    def lost(self) -> bool:
        """Never: the model dies with the rank."""
        return False

    def close(self) -> None:
        """Nothing is held."""
