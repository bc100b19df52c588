"""Small records that travel between the layers: why an element went where it went, and what came back."""

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rows(NamedTuple):
    """One part of a batch: elements to be answered, and the place for their answer; usually views of a slot.

    Attributes
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs.
    dt : float
        Time step of all of them.
    mean : ndarray (n, n_out)
        Receives the answer.
    score : ndarray (n,)
        Receives its doubt.
    """

    inputs: NDArray[np.float64]
    dt: float
    mean: NDArray[np.float64]
    score: NDArray[np.float64]


class Decision(IntEnum):
    """What became of an element; each element counts once, under the first that applies in this order.

    The names are the keys of ``summary.json``.
    """

    TIMEOUT = 0
    DISABLED = 1
    AUDITED = 2
    VETOED = 3
    FALLBACK = 4
    ACCEPTED = 5


class Reason(IntEnum):
    """Why an element was routed as it was; one byte per element in the ledger's counts."""

    ACCEPTED = 0
    SCORE = 1
    BUDGET = 2
    NOT_FINITE = 3
    OUT_OF_BOUNDS = 4
    NOT_CONSERVED = 5
    OUT_OF_RANGE = 6
    AUDIT = 7
    TIMEOUT = 8
    SERVER_LOST = 9
    NO_MODEL = 10
    PHYSICS = 11
    ALARM = 12
    SWITCHED_OFF = 13

    @property
    def decision(self) -> Decision:
        """The category this reason counts under."""
        return _DECISIONS[self]

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return _SENTENCES[self]


_DECISIONS = {
    Reason.ACCEPTED: Decision.ACCEPTED,
    Reason.SCORE: Decision.FALLBACK,
    Reason.BUDGET: Decision.FALLBACK,
    Reason.ALARM: Decision.FALLBACK,
    Reason.NOT_FINITE: Decision.VETOED,
    Reason.OUT_OF_BOUNDS: Decision.VETOED,
    Reason.NOT_CONSERVED: Decision.VETOED,
    Reason.OUT_OF_RANGE: Decision.VETOED,
    Reason.AUDIT: Decision.AUDITED,
    Reason.TIMEOUT: Decision.TIMEOUT,
    Reason.SERVER_LOST: Decision.DISABLED,
    Reason.NO_MODEL: Decision.DISABLED,
    Reason.SWITCHED_OFF: Decision.DISABLED,
    Reason.PHYSICS: Decision.DISABLED,
}

_SENTENCES = {
    Reason.ACCEPTED: "the surrogate's answer was taken",
    Reason.SCORE: "the score was not below the threshold",
    Reason.BUDGET: "the certified loss was above the target, so nothing was accepted",
    Reason.ALARM: "the surrogate was found wrong in this region of the inputs, and has not been trained since",
    Reason.NOT_FINITE: "the surrogate's answer was not finite",
    Reason.OUT_OF_BOUNDS: "the surrogate's answer was outside the bounds of a field",
    Reason.NOT_CONSERVED: "the surrogate's answer broke a conserved sum",
    Reason.OUT_OF_RANGE: "the inputs were outside the range the model was trained on",
    Reason.AUDIT: "the audit coin asked for the truth",
    Reason.TIMEOUT: "the surrogate did not answer before the deadline",
    Reason.SERVER_LOST: "the surrogate server is gone",
    Reason.NO_MODEL: "no model has been trained yet",
    Reason.SWITCHED_OFF: "the surrogate does not pay at the measured costs, so it is not asked",
    Reason.PHYSICS: "the run was asked for physics only",
}


class EventKind(StrEnum):
    """What happened to a model, to the decision whether to ask it, or to the services that answer and train."""

    TRAINING = "training"
    TRIAL = "trial"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled-back"
    ALARM = "alarm"
    SWITCHED_OFF = "switched-off"
    SWITCHED_ON = "switched-on"
    SERVER_LOST = "server-lost"
    SERVER_BACK = "server-back"
    TRAINER_LOST = "trainer-lost"
    TRAINER_BACK = "trainer-back"
    RAY_LOST = "ray-lost"
    RAY_BACK = "ray-back"
    GIVEN_UP = "given-up"


TAKEOVERS = (EventKind.PROMOTED, EventKind.ROLLED_BACK)
"""What lets another version answer."""

OF_MODELS = (EventKind.TRAINING, EventKind.TRIAL, EventKind.PROMOTED, EventKind.REJECTED, EventKind.ROLLED_BACK)
"""What happens to models again and again as a run learns; the others are news."""

NO_OPERATOR = -1
"""The number of the operator in an event that concerns all of them."""


class Notice(NamedTuple):
    """Something that happened to the services of a run; rank 0 hears of it, and it becomes an event.

    Attributes
    ----------
    kind : EventKind
        What happened.
    sentence : str
        In words, with its figures.
    """

    kind: EventKind
    sentence: str


class Event(NamedTuple):
    """Something that changed how the steps after it were decided; the same on every rank.

    Attributes
    ----------
    step : int
        The first step it holds for.
    operator : int
        Number of the operator; ``NO_OPERATOR`` if it is about all of them.
    kind : EventKind
        What happened.
    version : int
        The model it happened to; 0 if none.
    sentence : str
        In words, with its figures.
    """

    step: int
    operator: int
    kind: EventKind
    version: int
    sentence: str


def count_restarts(events: Iterable[Event]) -> int:
    """Count how often ranks were given a server again that they had lost."""
    return sum(event.kind in (EventKind.SERVER_BACK, EventKind.RAY_BACK) for event in events)
