"""What a system is to the benchmarks: something that answers a batch, and can be timed at it."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.rivals.workload import Workload
from benchmarks.harness.timing import each


class Unavailable(Exception):
    """A system cannot take part here; the message says why."""


class System(ABC):
    """A way to have a batch answered.

    The order is :meth:`prepare`, then :meth:`answered` and :meth:`repeat` any number of times, then the next workload.

    Attributes
    ----------
    name : str
        The rows' name for it.
    facts : dict
        Further columns of its rows.
    """

    name: str
    facts: dict[str, str | int | float]

    @abstractmethod
    def prepare(self, workload: Workload) -> None:
        """Get ready for a workload.

        Raises
        ------
        Unavailable
            If the system takes no part in it.
        """

    @abstractmethod
    def answered(self, seed: int) -> NDArray[np.float64]:
        """Have the batch of this seed answered and give the answer, to be compared."""

    @abstractmethod
    def repeat(self, times: int) -> NDArray[np.float64]:
        """Do so many round trips and give the seconds of each."""

    @abstractmethod
    def close(self) -> None:
        """End whatever was started."""


class LocalSystem(System):
    """A system whose rank is this very process: a round trip is one call of ``answer``."""

    def __init__(self) -> None:
        self.workload: Workload
        self._inputs = np.empty((0, 0))

    def prepare(self, workload: Workload) -> None:
        """Remember the workload and draw its batch."""
        self.workload = workload
        self._inputs = workload.inputs()
        self.open(workload)

    def answered(self, seed: int) -> NDArray[np.float64]:
        """Ask about a batch of its own."""
        return self.answer(self.workload.inputs(seed))

    def repeat(self, times: int) -> NDArray[np.float64]:
        """Time :meth:`answer` with the same batch every time."""
        return each(lambda: self.answer(self._inputs))(times)

    @abstractmethod
    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Do one round trip; what it gives is valid until the next."""

    def open(self, workload: Workload) -> None:
        """Do what the workload needs beyond that; nothing, usually."""

    def close(self) -> None:
        """End whatever was started; nothing, usually."""
