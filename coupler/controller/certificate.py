"""The certificate: a bound on the loss of all decisions from the few that were audited, valid at every moment.

The statement and its proof are in ``docs/certificate.md``. Everything is counted in integers, weights rounded up to
multiples of 2**-32, so sums over ranks are exact in any order and no rounding ever favours the surrogate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNIT = 2**32
_SQUARED = UNIT * UNIT


def quantise(loss: ArrayLike) -> NDArray[np.int64]:
    """Round losses up to whole multiples of 2**-32; what is not a number, or above 1, counts as 1.

    Parameters
    ----------
    loss : array_like
        Losses, not negative: error / cap.

    Returns
    -------
    ndarray of int64, the shape of ``loss``
        In units of 2**-32.

    Collective: no.
    """
    capped = np.nan_to_num(np.asarray(loss, dtype=np.float64), nan=1.0, posinf=1.0)
    return np.ceil(np.clip(capped, 0.0, 1.0) * UNIT).astype(np.int64)


@dataclass(frozen=True)
class AuditedSums:
    """What one step adds to the evidence: integers, summed over calls and ranks in any order.

    Parameters
    ----------
    audit_rate : float
        Probability of an audit in this step, the same for all its decisions.
    decisions : int
        Elements decided on, accepted or not.
    audits : int
        Elements whose coin asked for the truth.
    accepted : int
        Elements the gate accepted, audited or not.
    loss : int
        Sum of the quantised losses of audited, accepted elements; an audit without a result counts 1.
    exceedances : int
        Audited, accepted elements outside tolerance (error > 1).
    withheld, withheld_loss : int
        The same as ``accepted`` and ``loss`` for elements that only the hard stop kept from being accepted. Their
        loss is 0 for the certificate; they tell whether it is safe to go on.
    refused : int
        Elements that only their score kept from being accepted.
    """

    audit_rate: float
    decisions: int
    audits: int = 0
    accepted: int = 0
    loss: int = 0
    exceedances: int = 0
    withheld: int = 0
    withheld_loss: int = 0
    refused: int = 0

    @property
    def counts(self) -> NDArray[np.int64]:
        """All integers in the order of the fields (8,): what a reduction over ranks adds up."""
        return np.array([vars(self)[item.name] for item in fields(self)[1:]], dtype=np.int64)

    @staticmethod
    def of(audit_rate: float, counts: Sequence[int] | NDArray[np.int64]) -> "AuditedSums":
        """Read what :attr:`counts` gave, after it was added up."""
        return AuditedSums(audit_rate, *(counts.tolist() if isinstance(counts, np.ndarray) else counts))


@dataclass(frozen=True)
class Evidence:
    """All that is known of one kind of loss.

    Parameters
    ----------
    weighted : tuple of int, one per constant of the certificate
        Sum of audited loss times its weight [2**-64].
    estimate : int
        Sum of audited loss over its audit rate [2**-64]: estimates the loss of all decisions, without a promise.
    ceiling : int
        Certified upper bound on the loss of all decisions [2**-32].
    """

    weighted: tuple[int, ...]
    estimate: int = 0
    ceiling: int = 0


@dataclass(frozen=True)
class Tally:
    """The evidence of a run so far; plain integers, so that a checkpoint of it is exact.

    Parameters
    ----------
    decisions, accepted, audits : int
        Totals, as in :class:`AuditedSums`.
    loss, exceedance : Evidence
        Of the capped error, and of being outside tolerance.
    """

    decisions: int
    accepted: int
    audits: int
    loss: Evidence
    exceedance: Evidence


@dataclass(frozen=True)
class Bound:
    """What may be claimed, and what is only estimated. A loss of 1 is an error of ``cap`` tolerances or more.

    Parameters
    ----------
    delta, cap : float
        As in :class:`Certificate`.
    decisions, accepted, audits : int
        Totals; ``accepted`` counts what the gate accepted, audited or not.
    loss_bound_per_decision, loss_bound_per_accepted : float
        Certified mean loss. Loss and exceedance hold with probability 1 - delta each.
    loss_estimate_per_decision, loss_estimate_per_accepted : float
        Unbiased estimates, no promise.
    exceedance_bound, exceedance_bound_per_accepted : float
        Certified share outside tolerance.
    exceedance_estimate, exceedance_estimate_per_accepted : float
        Estimates of that share, no promise.
    """

    delta: float
    cap: float
    decisions: int
    accepted: int
    audits: int
    loss_bound_per_decision: float
    loss_bound_per_accepted: float
    loss_estimate_per_decision: float
    loss_estimate_per_accepted: float
    exceedance_bound: float
    exceedance_bound_per_accepted: float
    exceedance_estimate: float
    exceedance_estimate_per_accepted: float


@dataclass(frozen=True)
class Certificate:
    """The rule that turns audits into a bound; every function of it is pure.

    Parameters
    ----------
    delta : float
        Probability that the bound may ever fail, over the audit coins.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    audit_rate_min : float
        No step may audit at a lower rate. The bound is tightest when the rates in use are near it.
    constants : int
        How many constants c the bound takes its minimum over, geometric between 0.02 and 0.9 of the least rate:
        large ones are good while few losses were seen, small ones when many were.
    """

    delta: float
    cap: float
    audit_rate_min: float
    constants: int = 8

    def __post_init__(self) -> None:
        assert 0 < self.delta < 1 and 0 < self.audit_rate_min <= 1, self
        assert self.cap > 0 and self.constants >= 2, self

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """The constants c, all below the least audit rate."""
        last = self.constants - 1
        return tuple(self.audit_rate_min * 0.02 * 45.0 ** (k / last) for k in range(self.constants))

    @cached_property
    def _price(self) -> float:
        return math.log(self.constants / self.delta)

    def weights(self, audit_rate: float) -> tuple[int, ...]:
        """Weight of an audited loss for each constant, -ln(1 - c / p) rounded up [2**-32]."""
        assert self.audit_rate_min <= audit_rate <= 1, (audit_rate, self.audit_rate_min)
        return _weights(self.grid, audit_rate)

    def start(self) -> Tally:
        """Give the tally before the first decision."""
        nothing = Evidence(weighted=(0,) * self.constants)
        return Tally(decisions=0, accepted=0, audits=0, loss=nothing, exceedance=nothing)

    def add(self, tally: Tally, sums: AuditedSums) -> Tally:
        """Give the tally after one more step, or after one more group of decisions with a common audit rate.

        Parameters
        ----------
        tally : Tally
            Everything before.
        sums : AuditedSums
            Of all ranks. Where nothing was accepted the audit rate may be anything, 0 included.

        Returns
        -------
        Tally

        Collective: no, but the sums must be those of all ranks, and the same on all of them.
        """
        assert 0 <= sums.accepted + sums.withheld <= sums.decisions and sums.audits <= sums.decisions, sums
        if sums.accepted == 0:  # nothing that could have been lost
            assert sums.loss == sums.exceedances == 0, sums
            audits = tally.audits + sums.audits
            return Tally(tally.decisions + sums.decisions, tally.accepted, audits, tally.loss, tally.exceedance)
        return Tally(
            decisions=tally.decisions + sums.decisions,
            accepted=tally.accepted + sums.accepted,
            audits=tally.audits + sums.audits,
            loss=self._learn(tally.loss, sums.loss, sums),
            exceedance=self._learn(tally.exceedance, sums.exceedances * UNIT, sums),
        )

    def bound(self, tally: Tally) -> Bound:
        """Say what the tally certifies; all means are 0 where there is nothing to divide by."""
        loss, exceedance = tally.loss, tally.exceedance
        decisions, accepted = tally.decisions, tally.accepted
        return Bound(
            delta=self.delta,
            cap=self.cap,
            decisions=decisions,
            accepted=accepted,
            audits=tally.audits,
            loss_bound_per_decision=_mean(loss.ceiling, UNIT * decisions),
            loss_bound_per_accepted=_mean(loss.ceiling, UNIT * accepted),
            loss_estimate_per_decision=_mean(loss.estimate, _SQUARED * decisions),
            loss_estimate_per_accepted=_mean(loss.estimate, _SQUARED * accepted),
            exceedance_bound=_mean(exceedance.ceiling, UNIT * decisions),
            exceedance_bound_per_accepted=_mean(exceedance.ceiling, UNIT * accepted),
            exceedance_estimate=_mean(exceedance.estimate, _SQUARED * decisions),
            exceedance_estimate_per_accepted=_mean(exceedance.estimate, _SQUARED * accepted),
        )

    def loss_bound(self, tally: Tally) -> float:
        """Give the certified mean loss per decision alone, :attr:`Bound.loss_bound_per_decision`."""
        return _mean(tally.loss.ceiling, UNIT * tally.decisions)

    def _learn(self, evidence: Evidence, audited: int, sums: AuditedSums) -> Evidence:
        assert 0 <= audited <= min(sums.audits, sums.accepted) * UNIT, sums
        weights = self.weights(sums.audit_rate)
        weighted = tuple([known + weight * audited for known, weight in zip(evidence.weighted, weights, strict=True)])
        # A new loss is at most 1 per accepted decision: yesterday's bound plus what was accepted since is one, too.
        ceiling = min(self._ceiling(weighted), evidence.ceiling + sums.accepted * UNIT)
        estimate = evidence.estimate + audited * round(UNIT / sums.audit_rate)
        return Evidence(weighted, estimate, ceiling)

    def _ceiling(self, weighted: tuple[int, ...]) -> int:
        price = self._price
        bounds = [(total / _SQUARED + price) / c for total, c in zip(weighted, self.grid, strict=True)]
        return math.ceil(min(bounds) * UNIT)


def sentence(bound: Bound) -> str:
    """State a bound in one sentence that names its denominators; accepted are audited elements, too."""
    if not bound.accepted:
        return f"With probability 1 nothing was lost: no answer was accepted in {bound.decisions} decisions."
    rate, rest = _mean(bound.audits, bound.decisions), bound.decisions - bound.accepted
    return (
        f"With probability at least {1 - bound.delta:g} over the audit coins, the mean capped error (1 is an error of "
        f"{bound.cap:g} tolerances or more) was at most {bound.loss_bound_per_decision:.3g} per decision and "
        f"{bound.loss_bound_per_accepted:.3g} per accepted decision; with the same probability, at most "
        f"{100 * bound.exceedance_bound:.3g} % of the decisions and {100 * bound.exceedance_bound_per_accepted:.3g} % "
        f"of the accepted ones were outside tolerance ({bound.decisions} decisions: {bound.accepted} accepted by the "
        f"gate, {rest} not; {bound.audits} audits, {100 * rate:.3g} %)."
    )


@lru_cache(maxsize=64)
def _weights(grid: tuple[float, ...], audit_rate: float) -> tuple[int, ...]:
    # One more than the whole part is above the true value whatever the last bit of log1p on this machine.
    return tuple(math.floor(-math.log1p(-c / audit_rate) * UNIT) + 1 for c in grid)


def _mean(total: int, count: int) -> float:
    return total / count if count else 0.0  # integers: correctly rounded whatever their size
