"""What a policy made of a recorded stream, step by step and in all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.controller import UNIT

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Playback:
    """One policy in front of one stream, with one seed of the coins; arrays have an entry for each step.

    Parameters
    ----------
    decisions, asked, accepted, audits : ndarray (steps,) of int64
        Elements decided on; those the surrogate was asked about, all but in the shadow phase; those the gate accepted;
        those of the accepted whose coin asked for the truth all the same.
    loss, exceedances : ndarray (steps,) of int64
        True loss of the accepted elements [2**-32], and how many of them were outside tolerance.
    bound : ndarray (steps,)
        Certified mean loss per decision, of all findings that had arrived after the step.
    threshold : ndarray (steps,)
        That the step was gated by.
    stopped : ndarray (steps,) of bool
        Whether the hard stop held in it.
    """

    decisions: Whole
    asked: Whole
    accepted: Whole
    audits: Whole
    loss: Whole
    exceedances: Whole
    bound: Floats
    threshold: Floats
    stopped: NDArray[np.bool_]

    @property
    def running_loss(self) -> Floats:
        """True mean loss per decision up to the end of each step (steps,)."""
        lost: Floats = np.cumsum(self.loss) / UNIT
        return lost / np.maximum(np.cumsum(self.decisions), 1)

    @property
    def true_loss(self) -> float:
        """True mean loss per decision at the end; 0 where there was no step."""
        return float(self.running_loss[-1]) if self.loss.size else 0.0

    @property
    def accepted_share(self) -> float:
        """Share of all decisions that the gate accepted."""
        return self._share(self.accepted)

    @property
    def truth_share(self) -> float:
        """Share of all decisions whose truth was computed: shadow phase, fallback and audits."""
        return 1.0 - self._share(self.accepted - self.audits)

    @property
    def highest_bound(self) -> float:
        """Largest certified loss per decision after any step."""
        return float(self.bound.max(initial=0.0))

    def kept(self, target: float) -> bool:
        """Say whether the true mean loss per decision was at most the target after every step."""
        return bool((self.running_loss <= target).all())

    def speedup(self, cost_ratio: float) -> float:
        """Predict how many times faster than physics the run would have been.

        It is 1 / (f + p(1 - f) + c): f and p(1 - f) are the counted shares of fallback and of audited accepted
        elements, and c is what the answers cost.

        Parameters
        ----------
        cost_ratio : float
            Cost of an answer over the cost of the truth of an element.
        """
        return 1.0 / max(self.truth_share + cost_ratio * self._share(self.asked), 1e-12)

    def _share(self, counts: Whole) -> float:
        return float(counts.sum() / max(self.decisions.sum(), 1))
