"""What a rank counts during a step for one operator: the integers the ranks add up."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums
from coupler.records import Decision, Reason

_AUDITED = len(AuditedSums(audit_rate=1.0, decisions=0).counts)


@dataclass
class Counts:
    """Integers of one operator and step, of one rank or summed over ranks.

    Parameters
    ----------
    reasons : ndarray (number of reasons,) of int64
        Elements by :class:`Reason`; they sum to all decisions.
    audited : ndarray of int64
        What the certificate needs, :attr:`AuditedSums.counts`.
    samples : int
        Samples kept.
    rounds_done : int
        Leading ranks that see the outcome of the training round under way.
    """

    reasons: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Reason), np.int64))
    audited: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_AUDITED, np.int64))
    samples: int = 0
    rounds_done: int = 0

    LENGTH = len(Reason) + _AUDITED + 2

    @property
    def elements(self) -> int:
        """All decisions."""
        return int(self.reasons.sum())

    @property
    def decisions(self) -> dict[str, int]:
        """Elements by category, keyed as in ``summary.json``."""
        totals = dict.fromkeys((decision.name.lower() for decision in reversed(Decision)), 0)
        for reason in Reason:
            totals[reason.decision.name.lower()] += int(self.reasons[reason])
        return totals

    def sums(self, audit_rate: float) -> AuditedSums:
        """Give the certificate its numbers."""
        return AuditedSums.of(audit_rate, self.audited)

    def pack(self) -> NDArray[np.int64]:
        """Give all numbers as one array for the reduction; :meth:`unpack` reads it."""
        return np.concatenate([self.reasons, self.audited, np.array([self.samples, self.rounds_done], np.int64)])

    @classmethod
    def unpack(cls, numbers: NDArray[np.int64]) -> "Counts":
        """Read what :meth:`pack` gave."""
        reasons, audited, rest = np.split(numbers, [len(Reason), len(Reason) + _AUDITED])
        return cls(reasons.copy(), audited.copy(), int(rest[0]), int(rest[1]))

    def add(self, other: "Counts") -> None:
        """Add another's numbers to these."""
        self.reasons += other.reasons
        self.audited += other.audited
        self.samples += other.samples
        self.rounds_done += other.rounds_done
