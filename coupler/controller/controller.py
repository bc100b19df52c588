"""The controller: how the threshold moves, when nothing may be accepted, and what each mode uses of it.

Every rank holds the same state and advances it with the same sums, so no rank needs to ask another. Why the rule is
what it is, and what was tried instead, is in ``docs/decisions/0004-threshold-rule.md``.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from coupler.controller.certificate import UNIT, AuditedSums, Bound, Certificate, Tally
from coupler.controller.gate import judge
from coupler.controller.limits import Floats, Limits
from coupler.errors import ConfigError, did_you_mean
from coupler.records import Reason

Mode = Literal["physics", "shadow", "surrogate", "certified"]

# The sums of a step arrive one step later, so what is decided now governs the step after the one that is under way.
_STEPS_AHEAD = 2
# Largest move of the threshold per step without a loss, per audited loss of 1, and downwards in one step.
_GROWTH, _GAIN, _HALVING = 0.02, 0.05, math.log(2.0)
# The threshold aims at this share of the target; from the second number on, towards the target, at less and less.
_AIM, _EASE, _LEAST_AIM = 0.9, 0.1, 0.25
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

    def after(self, sums: AuditedSums, *, memory: float) -> "Watch":
        """Forget the share ``memory`` of the past and add a step."""
        passed = sums.accepted + sums.withheld
        if passed == 0:
            return Watch(sums.decisions, 0, self.audit_rate, self.seen, self.lost)
        lost = (sums.loss + sums.withheld_loss) / UNIT / sums.audit_rate
        keep = 1.0 - memory
        return Watch(sums.decisions, passed, sums.audit_rate, keep * self.seen + passed, keep * self.lost + lost)


@dataclass(frozen=True)
class ControllerState:
    """All that changes while a run goes on; the same on every rank.

    Parameters
    ----------
    threshold : float
        Scores strictly below it are accepted.
    stopped : bool
        The hard stop: nothing is accepted until the bound has room again.
    version : int
        Model that answers; 0 before the first.
    step : int
        Steps counted.
    tally : Tally
        Evidence for the certificate.
    watch : Watch
        The last steps.
    """

    threshold: float
    stopped: bool
    version: int
    step: int
    tally: Tally
    watch: Watch


@dataclass(frozen=True)
class Controller:
    """Rules of one operator's budget; all its functions are pure.

    Parameters
    ----------
    mode : {"physics", "shadow", "surrogate", "certified"}
        physics never asks the surrogate; shadow asks and uses the truth everywhere, every answer audited; surrogate
        takes every answer, without gate or hard stop, audited so that the user sees how wrong it is; certified
        accepts within the budget.
    target : float
        Certified mean loss per decision to stay below.
    delta : float
        Probability that the certificate may fail.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    audit_rate : float
        Share of the decisions that is audited.
    threshold : float, optional
        Pins the threshold: it is never moved, and 0 accepts nothing. The hard stop still holds.

    Raises
    ------
    ConfigError
        If the mode is unknown or a number is outside its range.
    """

    mode: Mode = "certified"
    target: float = 0.02
    delta: float = 0.05
    cap: float = 2.0
    audit_rate: float = 0.02
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f'There is no mode "{self.mode}".{did_you_mean(self.mode, get_args(Mode))}')
        for key, value in (("target", self.target), ("delta", self.delta)):
            if not 0 < value < 1:
                raise ConfigError(f"controller.{key} = {value}: it is a share, set it between 0 and 1.")
        if not 0 < self.audit_rate <= 1:
            raise ConfigError(
                f"controller.audit_rate = {self.audit_rate}: without audits nothing can be certified. "
                "Set it above 0 and at most 1."
            )
        if not 0 < self.cap < math.inf:
            raise ConfigError(f"controller.cap = {self.cap}: the loss is error / cap. Set it above 0, for example 2.0.")
        if self.threshold is not None and not self.threshold >= 0:
            raise ConfigError(f"controller.threshold = {self.threshold}: scores are not negative. Set 0 or more.")

    @property
    def asks(self) -> bool:
        """Whether the surrogate is asked at all."""
        return self.mode != "physics"

    @property
    def uses_gate(self) -> bool:
        """Whether answers are judged; if not, all are taken (surrogate) or none is asked for (physics)."""
        return self.mode in ("shadow", "certified")

    @property
    def takes_answers(self) -> bool:
        """Whether an accepted answer goes into the simulation."""
        return self.mode in ("surrogate", "certified")

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate whose statement this controller keeps below the target."""
        least = 1.0 if self.mode == "shadow" else self.audit_rate
        return Certificate(delta=self.delta, cap=self.cap, audit_rate_min=least)

    def audit_rate_now(self, state: ControllerState) -> float:
        """Give the probability of an audit in the next step; 0 while there is no answer to audit."""
        if not self.asks or state.version == 0:
            return 0.0
        return 1.0 if self.mode == "shadow" else self.audit_rate

    def judge(
        self, state: ControllerState, inputs: Floats, mean: Floats, score: Floats, limits: Limits
    ) -> NDArray[np.uint8]:
        """Judge a batch as the mode wants it: by :func:`~coupler.controller.judge`, or all accepted (surrogate).

        In shadow mode the reasons say what would have been accepted; the truth is used all the same.

        Collective: no.
        """
        if not self.uses_gate:
            return np.full(len(score), Reason.ACCEPTED, dtype=np.uint8)
        return judge(inputs, mean, score, limits, threshold=state.threshold, stopped=state.stopped)

    def start(self) -> ControllerState:
        """Give the state before the first step: no model, nothing accepted."""
        return ControllerState(
            threshold=self._restarted(0.0),
            stopped=False,
            version=0,
            step=0,
            tally=self.certificate.start(),
            watch=Watch(),
        )

    def advance(self, state: ControllerState, sums: AuditedSums) -> ControllerState:
        """Take in one step's sums and decide how the next steps are gated.

        Parameters
        ----------
        state : ControllerState
            Before.
        sums : AuditedSums
            Of one step, all ranks.

        Returns
        -------
        ControllerState

        Collective: no, but every rank must pass the same sums in the same order.
        """
        tally = self.certificate.add(state.tally, sums)
        memory = min(0.1, max(0.001, self._due(sums)))
        watch = state.watch.after(sums, memory=memory)
        moved = ControllerState(state.threshold, state.stopped, state.version, state.step + 1, tally, watch)
        if not self.uses_gate or state.version == 0:
            return moved
        threshold = state.threshold if self.threshold is not None else self._moved(moved, sums)
        return replace(moved, threshold=threshold, stopped=self._must_stop(moved))

    def promoted(self, state: ControllerState, version: int, threshold: float) -> ControllerState:
        """Let another model answer, from the threshold found for it on held-out samples.

        The first model is watched, not used, until its audits show that the bound has room for it.
        """
        assert version > 0, version
        started = replace(state, version=version, threshold=self._restarted(threshold))
        return replace(started, stopped=self.uses_gate and self._must_stop(started))

    def bound(self, state: ControllerState) -> Bound:
        """Say what the run may claim so far."""
        return self.certificate.bound(state.tally)

    def _restarted(self, threshold: float) -> float:
        if self.mode == "surrogate":
            return math.inf
        if self.threshold is not None:
            return self.threshold
        return _clamped(threshold)

    def _due(self, sums: AuditedSums) -> float:
        """Audited loss of a step whose mean loss is just the target."""
        return sums.decisions * sums.audit_rate * self.target

    def _moved(self, state: ControllerState, sums: AuditedSums) -> float:
        # A stochastic approximation (adaptive conformal inference, arXiv:2106.00170, weighted by the audits): on
        # average the threshold stands still where the loss per decision is what it aims at, however few the audits.
        due = self._due(sums)
        if due == 0:
            return state.threshold
        room = 1.0 - self.certificate.loss_bound(state.tally) / self.target
        aim = min(_AIM, max(_LEAST_AIM, room / _EASE))
        gain = min(_GAIN, _GROWTH / (_AIM * due))
        change = max(-_HALVING, gain * (aim * due - (sums.loss + sums.withheld_loss) / UNIT))
        if sums.refused == 0:
            change = min(change, 0.0)  # nothing to gain from a higher one, and the first bad scores would pass below it
        return _clamped(state.threshold * math.exp(change))

    def _must_stop(self, state: ControllerState) -> bool:
        """Whether the bound is above the target, or would be if the next steps are as the last ones were."""
        foreseen = self.certificate.add(state.tally, self._expected(state.watch))
        return any(self.certificate.loss_bound(tally) > self.target for tally in (state.tally, foreseen))

    def _expected(self, watch: Watch) -> AuditedSums:
        decisions = _STEPS_AHEAD * max(watch.decisions, 1)
        passed = decisions if watch.seen == 0 else _STEPS_AHEAD * watch.passed
        rate = max(watch.audit_rate, self.certificate.audit_rate_min)
        audits = math.ceil(rate * decisions)
        loss = math.ceil(passed * watch.loss_per_passed * rate * UNIT)
        return AuditedSums(rate, decisions, audits, passed, min(loss, audits * UNIT, passed * UNIT))


def _clamped(threshold: float) -> float:
    return min(max(threshold, _THRESHOLD_LEAST), _THRESHOLD_MOST)
