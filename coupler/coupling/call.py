"""What goes through one call of ``evaluate`` on a rank, and what is noted of it for the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.records import Reason

Floats = NDArray[np.float64]
Reasons = NDArray[np.uint8]
Rows = NDArray[np.int64]


@dataclass(slots=True)
class Piece:
    """Elements on their way through one call of ``evaluate``, as many as fit the transport.

    Parameters
    ----------
    inputs, outputs : ndarray (n, n_in) and (n, n_out)
        What goes in, and where the result goes.
    ids : ndarray (n,) of int64
        Global ids.
    dt : float
        Time step.
    step, call : int
        When: the step, and the number of the call within it.
    """

    inputs: Floats
    outputs: Floats
    ids: NDArray[np.int64]
    dt: float
    step: int
    call: int

    def take(self, rows: "slice | Rows") -> "Piece":
        """Give a part: by a slice the same memory, by positions copies of it."""
        return Piece(self.inputs[rows], self.outputs[rows], self.ids[rows], self.dt, self.step, self.call)


class Audits(NamedTuple):
    """The audited answers of one piece, one by one, for ledgers that want them.

    Attributes
    ----------
    step, call : int
        The step, and the number of the call within it.
    ids : ndarray (n,) of int64
        Global ids.
    score, error : ndarray (n,)
        What the answer claimed of itself, and how wrong it was [tolerances].
    verdicts : ndarray (n,) of uint8
        What the gate said, as a :class:`Reason`.
    """

    step: int
    call: int
    ids: NDArray[np.int64]
    score: Floats
    error: Floats
    verdicts: Reasons


class Unanswered(NamedTuple):
    """Elements of a call that went without an answer.

    Attributes
    ----------
    reason : Reason
        Why.
    ranges : ndarray (k, 2) of int64
        Their ids, from the first number of each pair up to and without the second, ascending.
    """

    reason: Reason
    ranges: NDArray[np.int64]


class StepSetting(NamedTuple):
    """What held for one operator in a step.

    Attributes
    ----------
    audit_rate : float
        Rate its coins had.
    version : int
        The model that answered.
    challenger : int
        The one that was on trial; 0 if none was.
    off, stopped : bool
        Whether the surrogate was switched off, and whether nothing was accepted.
    alarms : int
        Regions under alarm.
    threshold, unit : float
        On the score, and what scores are counted from.
    """

    audit_rate: float
    version: int
    challenger: int
    off: bool = False
    stopped: bool = False
    alarms: int = 0
    threshold: float = 0.0
    unit: float = 1.0


class CallRecord(NamedTuple):
    """What one call did on this rank, for the ledger.

    Attributes
    ----------
    step, call : int
        The step, and the number of the call within it.
    reasons : list of int
        Elements by :class:`Reason`.
    sums : list of int
        What the certificate needs, :attr:`AuditedSums.counts`.
    threshold, audit_rate, version : float, float, int
        What held in this step.
    truth_seconds, wait_seconds, model_seconds : float
        Time of the truth, of waiting for answers, and of the model for the batches they travelled in [s].
    hidden_seconds : float
        Time that passed between questions and their answers while this rank did other work [s].
    stopped : bool
        Whether nothing was accepted in this step.
    unanswered : sequence of Unanswered
        Who went without an answer; a tail of the call's elements, unless the run follows a script.
    """

    step: int
    call: int
    reasons: list[int]
    sums: list[int]
    threshold: float
    audit_rate: float
    version: int
    truth_seconds: float
    wait_seconds: float
    model_seconds: float
    hidden_seconds: float
    stopped: bool = False
    unanswered: Sequence[Unanswered] = ()


def id_ranges(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give ids, in whatever order, as ascending ranges (k, 2)."""
    if not len(ids):
        return np.empty((0, 2), np.int64)
    ordered = np.sort(ids)
    edges = np.flatnonzero(np.diff(ordered) != 1)
    firsts, lasts = np.append(0, edges + 1), np.append(edges, len(ordered) - 1)
    return np.stack([ordered[firsts], ordered[lasts] + 1], axis=1)
