"""Entries: what the ranks noted in their own records, as rows of the ledger's tables."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums
from coupler.coupling.account import StepTotals
from coupler.coupling.call import CallRecord
from coupler.ledger import EVENT, RECORD, STEP, UNANSWERED, UNANSWERED_IDS
from coupler.records import Event

Table = NDArray[np.void]

# Columns that are called as in a call's record, and those that are called otherwise in its sums.
_SAME = (
    "step",
    "call",
    "threshold",
    "stopped",
    "audit_rate",
    "version",
    "truth_seconds",
    "wait_seconds",
    "model_seconds",
    "hidden_seconds",
)
_SUMS = {
    "audits": "audits",
    "acceptable": "accepted",
    "loss": "loss",
    "exceedances": "exceedances",
    "withheld": "withheld",
    "withheld_loss": "withheld_loss",
    "refused": "refused",
}
_SETTINGS = ("version", "challenger", "off", "stopped", "alarms", "threshold", "audit_rate", "unit")


class OperatorCall(NamedTuple):
    """A call and whose it was.

    Attributes
    ----------
    operator : int
        Number of the operator.
    call : CallRecord
        What it did.
    """

    operator: int
    call: CallRecord


class OperatorStep(NamedTuple):
    """A step of all operators and where their certificates stood after it.

    Attributes
    ----------
    totals : StepTotals
        What was counted.
    bounds : tuple of float
        Certified mean loss per decision, per operator.
    """

    totals: StepTotals
    bounds: tuple[float, ...]


def records(calls: Sequence[OperatorCall], rank: int) -> Table:
    """Give the calls of a rank as rows of ``records``."""
    rows = np.zeros(len(calls), RECORD)
    rows["operator"], rows["rank"] = [one.operator for one in calls], rank
    for name in _SAME:
        rows[name] = [getattr(one.call, name) for one in calls]
    if calls:
        rows["reasons"] = [one.call.reasons for one in calls]
        sums = [AuditedSums.of(one.call.audit_rate, one.call.sums) for one in calls]
        for name, attribute in _SUMS.items():
            rows[name] = [getattr(one, attribute) for one in sums]
    return rows


def steps(noted: Sequence[OperatorStep]) -> Table:
    """Give steps as rows of ``steps``, one per operator."""
    rows = np.zeros(sum(len(one.bounds) for one in noted), STEP)
    rows["step"] = [one.totals.step for one in noted for _ in one.bounds]
    rows["operator"] = [operator for one in noted for operator in range(len(one.bounds))]
    rows["bound"] = [bound for one in noted for bound in one.bounds]
    settings = [setting for one in noted for setting in one.totals.settings]
    for name in _SETTINGS:
        rows[name] = [getattr(setting, name) for setting in settings]
    if noted:
        rows["scores"] = [counts.measures.scores for one in noted for counts in one.totals.counts]
    return rows


def events(told: Sequence[Event]) -> Table:
    """Give events as rows of ``events``; a sentence that is too long is cut."""
    rows = np.zeros(len(told), EVENT)
    for row, event in zip(rows, told, strict=True):
        row["step"], row["operator"], row["version"] = event.step, event.operator, event.version
        row["kind"], row["sentence"] = event.kind.encode(), _cut(event.sentence, EVENT["sentence"].itemsize)
    return rows


class Groups:
    """Numbers the groups of ids of one rank that went unanswered: the same group again is not written twice.

    A server that is gone leaves the same elements without an answer in every call until the end.

    Attributes
    ----------
    count : int
        Number of the next group.

    Parameters
    ----------
    rank : int
        Whose.
    count : int
        Number of the first one, in a run that goes on.
    """

    def __init__(self, rank: int, count: int = 0) -> None:
        self._rank = rank
        self._known: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self.count = count

    def rows(self, calls: Sequence[OperatorCall]) -> dict[str, Table]:
        """Give what went unanswered as rows of ``unanswered`` and ``unanswered_ids``."""
        found: list[tuple[int, ...]] = []
        spans: list[tuple[int, ...]] = []
        for operator, call in calls:
            for reason, ranges in call.unanswered:
                if len(ranges):
                    key = (operator, int(reason))
                    if key not in self._known or not np.array_equal(self._known[key], ranges):
                        spans += self._new(key, ranges)
                    found.append((call.step, call.call, operator, self._rank, int(reason), self._numbers[key]))
        return {"unanswered": np.array(found, UNANSWERED), "unanswered_ids": np.array(spans, UNANSWERED_IDS)}

    def _new(self, key: tuple[int, int], ranges: NDArray[np.int64]) -> list[tuple[int, ...]]:
        self._known[key], self._numbers[key] = ranges, self.count
        self.count += 1
        return [(self._rank, self._numbers[key], *ends) for ends in ranges.tolist()]


def _cut(sentence: str, most: int) -> bytes:
    return sentence.encode()[:most].decode(errors="ignore").encode()
