"""The controller: what each mode does, and the state that policy, certificate and version go through together.

Every rank holds the same state and advances it with the same sums, so no rank needs to ask another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from coupler.controller.certificate import Bound, Certificate, Tally
from coupler.controller.findings import Findings
from coupler.controller.policies import GateState, HeldOut, Introduction, Policy, Rules, make_policy
from coupler.controller.regions import Alarms
from coupler.errors import ConfigError, did_you_mean

# A region is in order while accepted answers there are within tolerance in the mean, and within half of the cap.
_MOST_LEVEL = 0.5

Mode = Literal["physics", "shadow", "surrogate", "certified"]


@dataclass(frozen=True)
class ControllerState:
    """All that changes while a run goes on; the same on every rank.

    Parameters
    ----------
    gate : GateState
        Where the policy has the gate.
    version : int
        Model that answers; 0 before the first.
    step : int
        Steps counted.
    tally : Tally
        Evidence for the certificate.
    alarms : Alarms
        The detectors of the regions of the input space.
    unit : float
        Score that the present version's scores are counted from.
    """

    gate: GateState
    version: int
    step: int
    tally: Tally
    alarms: Alarms
    unit: float = 1.0

    @property
    def threshold(self) -> float:
        """Scores strictly below it are accepted."""
        return self.gate.threshold

    @property
    def stopped(self) -> bool:
        """The hard stop: nothing is accepted."""
        return self.gate.stopped


@dataclass(frozen=True)
class Controller:
    """Rules of one operator's budget; all its functions are pure.

    Parameters
    ----------
    mode : {"physics", "shadow", "surrogate", "certified"}
        physics never asks the surrogate; shadow asks and uses the truth everywhere, every answer audited; surrogate
        takes every answer, without gate or hard stop, audited so that the user sees how wrong it is; certified
        accepts what the policy lets through.
    target : float
        Certified mean loss per decision to stay below.
    delta : float
        Probability that the certificate may fail.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    audit_rate : float
        Share of the decisions that is audited.
    threshold : float, optional
        Pins the threshold: it is never moved, and 0 accepts nothing. A hard stop still holds.
    policy : str
        The rule that moves the threshold: a short name or ``module:Class``.
    params : mapping
        Further parameters of the policy.
    seed : int
        Seed of the run, for policies that draw.
    alarm_rate : float
        False alarms of a region come at most once in 1 / alarm_rate steps, on average.
    repair : float
        Largest change of an output by which an answer is moved onto the conserved sums [tolerances].
    hysteresis : float
        Share by which the score of an element that was accepted last time may be above the threshold.
    blend : float
        Width of the band below the threshold in which answer and truth are mixed, as a share of the threshold.

    Raises
    ------
    ConfigError, PluginError
        If the mode or the policy is unknown or a number is outside its range.
    """

    mode: Mode = "certified"
    target: float = 0.02
    delta: float = 0.05
    cap: float = 2.0
    audit_rate: float = 0.02
    threshold: float | None = None
    policy: str = "budget"
    params: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    alarm_rate: float = 1e-6
    repair: float = 1.0
    hysteresis: float = 0.0
    blend: float = 0.0

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
        assert self.rule is not None  # built now, so that a wrong one is refused before anything starts

    @cached_property
    def rule(self) -> Policy:
        """The policy that moves the gate."""
        return make_policy(
            "always" if self.mode == "surrogate" else self.policy,
            {} if self.mode == "surrogate" else self.params,
            Rules(target=self.target, cap=self.cap, certificate=self.certificate, seed=self.seed),
        )

    @property
    def asks(self) -> bool:
        """Whether the surrogate is asked at all."""
        return self.mode != "physics"

    @property
    def uses_gate(self) -> bool:
        """Whether answers are judged; if not, all are taken (surrogate) or none is asked for (physics)."""
        return self.mode in ("shadow", "certified")

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate whose statement the run makes."""
        least = 1.0 if self.mode == "shadow" else self.audit_rate
        return Certificate(delta=self.delta, cap=self.cap, audit_rate_min=least)

    def audit_rate_now(self, state: ControllerState) -> float:
        """Give the probability of an audit in the next step; 0 while there is no answer to audit."""
        if not self.asks or state.version == 0:
            return 0.0
        return 1.0 if self.mode == "shadow" else self.audit_rate

    def start(self) -> ControllerState:
        """Give the state before the first step: no model, nothing accepted."""
        return ControllerState(
            gate=self._pinned(self.rule.start()),
            version=0,
            step=0,
            tally=self.certificate.start(),
            alarms=Alarms(level=min(1.0 / self.cap, _MOST_LEVEL), rate=self.alarm_rate),
        )

    def advance(self, state: ControllerState, findings: Findings) -> ControllerState:
        """Take in what a step found and decide how the next steps are gated.

        Parameters
        ----------
        state : ControllerState
            Before.
        findings : Findings
            Of one step, all ranks.

        Returns
        -------
        ControllerState

        Collective: no, but every rank must pass the same findings in the same order.
        """
        tally = self.certificate.add(state.tally, findings.sums)
        gate = self._pinned(self.rule.advance(state.gate, findings, tally))
        if not self.uses_gate or state.version == 0:
            # What was seen counts; where the gate stands does not change while nobody stands before it.
            gate = replace(gate, threshold=state.threshold, stopped=state.stopped)
        return replace(state, gate=gate, step=state.step + 1, tally=tally, alarms=state.alarms.after(findings.regions))

    def promoted(
        self,
        state: ControllerState,
        version: int,
        threshold: float,
        *,
        held_out: HeldOut | None = None,
        regions: int = 0,
    ) -> ControllerState:
        """Let another version answer.

        Parameters
        ----------
        state : ControllerState
            Before.
        version : int
            Its number, above 0.
        threshold : float
            The one found for it on held-out samples.
        held_out : HeldOut, optional
            Those samples.
        regions : int
            Regions of the input space it is watched in.

        Returns
        -------
        ControllerState
            No alarm is left.

        Collective: no.
        """
        assert version > 0, version
        introduction = Introduction(threshold, held_out or _nothing_held_out(), state.tally)
        gate = self._pinned(self.rule.promoted(state.gate, introduction))
        return replace(
            state,
            gate=gate,
            version=version,
            alarms=state.alarms.renewed(regions),
            unit=threshold if 0 < threshold < math.inf else 1.0,
        )

    def bound(self, state: ControllerState) -> Bound:
        """Say what the run may claim so far."""
        return self.certificate.bound(state.tally)

    def _pinned(self, gate: GateState) -> GateState:
        if self.threshold is None or self.mode == "surrogate":
            return gate
        return replace(gate, threshold=self.threshold)


def _nothing_held_out() -> HeldOut:
    return HeldOut(np.empty((0, 0)), np.empty(0), np.empty(0))
