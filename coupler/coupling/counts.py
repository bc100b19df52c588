"""What a rank counts during a step for one operator: the integers the ranks add up."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums
from coupler.records import Decision, Reason

_AUDITED = len(AuditedSums(audit_rate=1.0, decisions=0).counts)
# Names of the categories, and of that of each reason.
_DECISIONS = tuple(decision.name.lower() for decision in reversed(Decision))
_DECISION_OF = tuple(reason.decision.name.lower() for reason in Reason)


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
    shared_elements, shared_nanoseconds : int
        Elements whose truth ranks computed for their neighbours, and the processor time of it [ns].
    sharing_nanoseconds : int
        What sharing cost the ranks beside truth: laying out, waiting, computing twice [ns].
    """

    reasons: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Reason), np.int64))
    audited: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_AUDITED, np.int64))
    samples: int = 0
    rounds_done: int = 0
    shared_elements: int = 0
    shared_nanoseconds: int = 0
    sharing_nanoseconds: int = 0

    LENGTH = len(Reason) + _AUDITED + 5

    @property
    def elements(self) -> int:
        """All decisions."""
        return int(self.reasons.sum())

    @property
    def decisions(self) -> dict[str, int]:
        """Elements by category, keyed as in ``summary.json``."""
        totals = dict.fromkeys(_DECISIONS, 0)
        for decision, count in zip(_DECISION_OF, self.reasons.tolist(), strict=True):
            totals[decision] += count
        return totals

    def sums(self, audit_rate: float) -> AuditedSums:
        """Give the certificate its numbers."""
        return AuditedSums.of(audit_rate, self.audited)

    def pack(self) -> NDArray[np.int64]:
        """Give all numbers as one array for the reduction; :meth:`unpack` reads it."""
        rest = (
            self.samples,
            self.rounds_done,
            self.shared_elements,
            self.shared_nanoseconds,
            self.sharing_nanoseconds,
        )
        return np.concatenate([self.reasons, self.audited, np.array(rest, np.int64)])

    @classmethod
    def unpack(cls, numbers: NDArray[np.int64]) -> "Counts":
        """Read what :meth:`pack` gave."""
        first, second = len(_DECISION_OF), len(_DECISION_OF) + _AUDITED
        return cls(numbers[:first].copy(), numbers[first:second].copy(), *numbers[second:].tolist())

    def add(self, other: "Counts") -> None:
        """Add another's numbers to these."""
        self.reasons += other.reasons
        self.audited += other.audited
        self.samples += other.samples
        self.rounds_done += other.rounds_done
        self.shared_elements += other.shared_elements
        self.shared_nanoseconds += other.shared_nanoseconds
        self.sharing_nanoseconds += other.sharing_nanoseconds
