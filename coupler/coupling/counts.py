"""What a rank counts during a step for one operator: the integers the ranks add up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums, Findings, Measures
from coupler.controller.boxes import BOX_NUMBERS
from coupler.controller.findings import SCORE_BINS, SCORE_ROWS, TRUTHS
from coupler.controller.regions import REGION_NUMBERS
from coupler.controller.trial import TRIAL_NUMBERS
from coupler.records import Decision, Reason

Integers = NDArray[np.int64]

_AUDITED = len(AuditedSums(audit_rate=1.0, decisions=0).counts)
# Names of the categories, and of that of each reason.
_DECISIONS = tuple(decision.name.lower() for decision in reversed(Decision))
_DECISION_OF = tuple(reason.decision.name.lower() for reason in Reason)
# Single numbers, in this order.
_SINGLE = ("samples", "rounds_done", "shared_elements", "shared_nanoseconds", "sharing_nanoseconds", "notices")


@dataclass(frozen=True)
class CountsShape:
    """How much there is to count for an operator.

    Parameters
    ----------
    outputs : int
        Its output fields.
    regions : int
        Regions of its input space that are watched.
    boxes : int
        Boxes of its input space that there are statements about.
    """

    outputs: int = 0
    regions: int = 0
    boxes: int = 0

    @property
    def common(self) -> int:
        """Numbers that every operator has, whatever its shape; they come first."""
        return len(Reason) + _AUDITED + len(_SINGLE) + TRUTHS + SCORE_ROWS * SCORE_BINS + TRIAL_NUMBERS

    @property
    def length(self) -> int:
        """All numbers."""
        return self.common + 2 * self.outputs + REGION_NUMBERS * self.regions + BOX_NUMBERS * self.boxes


def _single(name: str) -> property:
    place = len(Reason) + _AUDITED + _SINGLE.index(name)

    def read(self: "Counts") -> int:
        return int(self.numbers[place])

    def write(self: "Counts", value: int) -> None:
        self.numbers[place] = value

    return property(read, write)


class Counts:
    """Integers of one operator and step, of one rank or summed over ranks: one array, and names for its parts.

    Attributes
    ----------
    numbers : ndarray (shape.length,) of int64
        All of them, as the reduction adds them up.
    reasons : ndarray (number of reasons,)
        Elements by :class:`Reason`; they sum to all decisions.
    audited : ndarray
        What the certificate needs, :attr:`AuditedSums.counts`.
    measures : Measures
        What known truth says of answers.
    trial : ndarray (TRIAL_NUMBERS,)
        Audits that two versions answered.
    regions : ndarray (regions, REGION_NUMBERS)
        Audited answers by region.
    boxes : ndarray (boxes, BOX_NUMBERS)
        Decisions and audits by box.
    samples : int
        Samples kept.
    rounds_done : int
        Leading ranks that see the outcome of the training round under way.
    shared_elements, shared_nanoseconds : int
        Elements whose truth ranks computed for their neighbours, and the processor time of it [ns].
    notices : int
        Notices about the services that rank 0 has and the others have not, of the first operator.
    sharing_nanoseconds : int
        What sharing cost the ranks beside truth: laying out, waiting, computing twice [ns].

    Parameters
    ----------
    shape : CountsShape
        How much there is to count.
    numbers : ndarray, optional
        All numbers; zeros if left out. They are used in place.
    """

    samples = _single("samples")
    rounds_done = _single("rounds_done")
    shared_elements = _single("shared_elements")
    shared_nanoseconds = _single("shared_nanoseconds")
    sharing_nanoseconds = _single("sharing_nanoseconds")
    notices = _single("notices")

    def __init__(self, shape: CountsShape = CountsShape(), numbers: Integers | None = None) -> None:
        self.shape = shape
        self.numbers = np.zeros(shape.length, np.int64) if numbers is None else numbers
        assert self.numbers.shape == (shape.length,), (self.numbers.shape, shape)
        first, place = len(Reason), len(Reason) + _AUDITED + len(_SINGLE)
        self.reasons, self.audited = self.numbers[:first], self.numbers[first : first + _AUDITED]
        truths, scores = self._part(place, TRUTHS), place + TRUTHS
        trial = scores + SCORE_ROWS * SCORE_BINS
        self.trial = self._part(trial, TRIAL_NUMBERS)
        outputs = self._part(shape.common, 2 * shape.outputs).reshape(2, shape.outputs)
        self.measures = Measures(
            self._part(scores, SCORE_ROWS * SCORE_BINS).reshape(SCORE_ROWS, SCORE_BINS), truths, outputs
        )
        regions = shape.common + 2 * shape.outputs
        boxes = regions + REGION_NUMBERS * shape.regions
        self.regions = self._part(regions, boxes - regions).reshape(shape.regions, REGION_NUMBERS)
        self.boxes = self.numbers[boxes:].reshape(shape.boxes, BOX_NUMBERS)

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

    def findings(self, audit_rate: float) -> Findings:
        """Give the controller its numbers."""
        sums = AuditedSums.of(audit_rate, self.audited)
        return Findings.of(sums, self.measures, self.regions)

    def add(self, other: "Counts") -> None:
        """Add another's numbers to these; of operators that differ in shape, those that both have."""
        length = self.shape.length if self.shape == other.shape else self.shape.common
        self.numbers[:length] += other.numbers[:length]

    def clear(self) -> None:
        """Begin the next step."""
        self.numbers.fill(0)

    def _part(self, start: int, length: int) -> Integers:
        return self.numbers[start : start + length]
