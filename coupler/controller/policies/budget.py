"""The budget: the threshold follows each step's audits, and nothing is accepted while the bound has no room.

Why the rule is what it is, and what was tried instead, is in ``docs/decisions``: 0004 and 0017.
"""

import math
from dataclasses import dataclass, replace

from coupler.controller.certificate import UNIT, AuditedSums, Tally
from coupler.controller.findings import Findings
from coupler.controller.policies.policy import GateState, Introduction, Policy

# The sums of a step arrive one step later, so what is decided now governs the step after the one that is under way.
_STEPS_AHEAD = 2
# Largest move of the threshold per step without a loss, per audited loss of 1, and downwards in one step.
_GROWTH, _GAIN, _HALVING = 0.15, 0.05, math.log(2.0)
# The threshold aims at no more than this share of the target; from the second number on, towards the target, at less
# and less of what it would aim at.
_AIM, _EASE, _LEAST_AIM = 0.9, 0.07, 0.25
# Room beyond this share of the target was saved, by a long shadow phase for example, and is spent.
_SAVED = 0.3
# So many accepted elements that the price of the certificate is in the bound, whatever was accepted before.
_MANY = 2**31
# The threshold is multiplied, so it must neither reach zero nor overflow.
_THRESHOLD_LEAST, _THRESHOLD_MOST = 1e-6, 1e6


@dataclass(frozen=True)
class Watch:
    """What the last steps looked like, for foreseeing the next ones; promises nothing.

    Parameters
    ----------
    decisions, passed : int
        Of the last step: elements, and those the gate accepted or would have but for the hard stop.
    audit_rate : float
        Of the last step.
    seen, lost : float
        Passed elements and their estimated loss, older steps counting less and less.
    """

    decisions: int = 0
    passed: int = 0
    audit_rate: float = 1.0
    seen: float = 0.0
    lost: float = 0.0

    @property
    def loss_per_passed(self) -> float:
        """A cautious guess at the loss of the next answer; 1 if none was seen yet."""
        # Two standard deviations of the estimate, and the rule of three where no loss was met.
        cautious = self.lost + 2.0 * math.sqrt(self.lost / self.audit_rate) + 3.0 / self.audit_rate
        return 1.0 if self.seen <= cautious else cautious / self.seen

    def after(self, findings: Findings, *, memory: float) -> "Watch":
        """Forget the share ``memory`` of the past and add a step."""
        sums = findings.sums
        passed = sums.accepted + sums.withheld
        if passed == 0:
            return replace(self, decisions=sums.decisions, passed=0)
        lost, keep = _lost(findings) / sums.audit_rate, 1.0 - memory
        return Watch(sums.decisions, passed, sums.audit_rate, keep * self.seen + passed, keep * self.lost + lost)


@dataclass(frozen=True)
class BudgetState(GateState):
    """Where the gate stands, and what the last steps looked like.

    Parameters
    ----------
    watch : Watch
        The last steps.
    """

    watch: Watch = Watch()


class Budget(Policy):
    """Keeps the certified loss per decision below the target, and spends what that leaves evenly over the run."""

    def start(self) -> BudgetState:
        """Give the state before the first version."""
        return BudgetState(threshold=_THRESHOLD_LEAST)

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Start from the threshold found on held-out samples; watched, not used, until the bound has room for it."""
        assert isinstance(state, BudgetState)
        stopped = self._must_stop(introduction.tally, state.watch)
        return replace(state, threshold=_clamped(introduction.threshold), stopped=stopped)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Move the threshold by the audits of the step, and look whether the bound has room for the next two."""
        assert isinstance(state, BudgetState)
        sums = findings.sums
        watch = state.watch.after(findings, memory=min(0.1, max(0.001, self._due(sums))))
        return BudgetState(self._moved(state.threshold, findings, tally), self._must_stop(tally, watch), watch)

    def _due(self, sums: AuditedSums) -> float:
        """Audited loss of a step whose mean loss is just the target."""
        return sums.decisions * sums.audit_rate * self.rules.target

    def _moved(self, threshold: float, findings: Findings, tally: Tally) -> float:
        # A stochastic approximation (adaptive conformal inference, arXiv:2106.00170, weighted by the audits): on
        # average the threshold stands still where the loss per decision is what it aims at, however few the audits.
        sums = findings.sums
        due = self._due(sums)
        if due == 0:
            return threshold
        aim = self._aim(tally, sums.audit_rate)
        gain = min(_GAIN, _GROWTH / (_AIM * due))
        change = max(-_HALVING, gain * (aim * due - _lost(findings)))
        if sums.refused == 0:
            change = min(change, 0.0)  # nothing to gain from a higher one, and the first bad scores would pass below it
        return _clamped(threshold * math.exp(change))

    def _aim(self, tally: Tally, audit_rate: float) -> float:
        """Share of the target that a step may lose, so that the bound keeps its distance from the target.

        While few losses were seen the bound rises by more than what is lost: the aim is the target over that.
        """
        none, one = (self._ceiling_after(tally, audit_rate, loss) for loss in (0, UNIT))
        rise = max(audit_rate * (one - none) / UNIT, 1.0)  # of the certified loss, per true loss
        room = 1.0 - none / (UNIT * max(tally.decisions, 1) * self.rules.target)
        return min(1.0, max(_LEAST_AIM, room / _EASE)) * min(_AIM, 1.0 / rise + max(room - _SAVED, 0.0))

    def _ceiling_after(self, tally: Tally, audit_rate: float, loss: int) -> int:
        sums = AuditedSums(audit_rate, _MANY, _MANY, _MANY, loss)
        return self.rules.certificate.add(tally, sums).loss.ceiling

    def _must_stop(self, tally: Tally, watch: Watch) -> bool:
        """Whether the bound is above the target, or would be if the next steps are as the last ones were."""
        certificate = self.rules.certificate
        foreseen = certificate.add(tally, self._expected(watch))
        return any(certificate.loss_bound(one) > self.rules.target for one in (tally, foreseen))

    def _expected(self, watch: Watch) -> AuditedSums:
        decisions = _STEPS_AHEAD * max(watch.decisions, 1)
        # Where nothing passed there is no telling how many will at once: a whole field of equal scores may.
        passed = _STEPS_AHEAD * watch.passed or decisions
        rate = max(watch.audit_rate, self.rules.certificate.audit_rate_min)
        audits = math.ceil(rate * decisions)
        loss = math.ceil(passed * watch.loss_per_passed * rate * UNIT)
        return AuditedSums(rate, decisions, audits, passed, min(loss, audits * UNIT, passed * UNIT))


def _lost(findings: Findings) -> float:
    """Loss of the answers that passed the gate, as far as audits show it; of withheld ones all of it is known."""
    sums = findings.sums
    if findings.withheld:
        return sums.loss / UNIT + findings.withheld_loss * sums.audit_rate
    return (sums.loss + sums.withheld_loss) / UNIT


def _clamped(threshold: float) -> float:
    return min(max(threshold, _THRESHOLD_LEAST), _THRESHOLD_MOST)
