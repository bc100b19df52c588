"""What every transport does: take a question, give the answer or the reason why there is none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.records import Reason, Rows

Load = Callable[[int], None]
"""``load(version)`` makes a version of the model ready to be asked."""

Predict = Callable[[Sequence[Rows], int], None]
"""``predict(parts, version)`` answers every part of a batch in place."""


class Answer(NamedTuple):
    """What came back.

    Attributes
    ----------
    reason : Reason
        ``ACCEPTED`` if the arrays hold an answer, otherwise why they do not.
    mean : ndarray (n, n_out)
        The surrogate's outputs, a view that is valid until the next question.
    score : ndarray (n,)
        Its doubt, likewise.
    seconds : float
        Time the model itself took for the batch this question travelled in [s].
    turnaround : float
        Time from the question to its answer [s], however much of it the rank spent on other work.
    """

    reason: Reason
    mean: NDArray[np.float64]
    score: NDArray[np.float64]
    seconds: float
    turnaround: float

    @property
    def arrived(self) -> bool:
        """Whether there is an answer."""
        return self.reason is Reason.ACCEPTED


class Transport(ABC):
    """One rank's line to the model of one operator.

    The order is: fill :meth:`inputs`, :meth:`ask`, do other work, :meth:`answer`.

    Attributes
    ----------
    capacity : int
        Most elements of one question.
    """

    capacity: int

    def room(self, count: int) -> int:
        """Make room for a question of so many elements; give how many of them it can have."""
        return min(count, self.capacity)

    @abstractmethod
    def inputs(self, count: int) -> NDArray[np.float64]:
        """Give the array (count, n_in) to gather a question into, ``count`` at most :meth:`room`."""

    @abstractmethod
    def ask(self, count: int, dt: float, version: int) -> None:
        """Send the question: the first ``count`` rows of the inputs, to this version of the model."""

    @abstractmethod
    def answer(self, deadline: float) -> Answer:
        """Wait for the answer to the last question, at most ``deadline`` seconds; never raises for a lost server."""

    @abstractmethod
    def prepare(self, version: int) -> None:
        """Make a version ready to be asked, before the first question to it."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether the last question is still unanswered, so that its place is taken."""

    @property
    @abstractmethod
    def lost(self) -> bool:
        """Whether nobody will answer any more."""

    def renew(self, patience: float = 0.0) -> bool:
        """Turn to whoever answers now, if that is somebody else than before.

        Parameters
        ----------
        patience : float
            How long to wait for somebody, where nobody answers [s].

        Returns
        -------
        bool
            Whether it is somebody else. A question that was put before is answered by them, too.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Let go of whatever the transport holds."""
