"""Conformal PID control: the threshold as a controlled variable, the loss per decision as what is controlled.

Angelopoulos, Candès and Tibshirani, Conformal PID control for time series prediction, NeurIPS 2023, arXiv:2307.16895:
quantile tracking (proportional) with an error integrator that saturates. Losses are weighted by their audits, 1 / p, as
only few are seen; there is no scorecaster, because the scores already are forecasts.
"""

import math
from dataclasses import dataclass

import numpy as np

from coupler.controller.certificate import UNIT, Tally
from coupler.controller.findings import AUDITED, REFUSED, Findings, score_edges
from coupler.controller.policies.policy import GateState, Introduction, Policy, Rules


@dataclass(frozen=True)
class PidState(GateState):
    """Where the gate stands, and what the controller remembers.

    Parameters
    ----------
    tracked : float
        Threshold of the proportional part alone.
    unit : float
        Score that the bins of this version are counted from.
    width : float
        Largest usual score lately.
    steps : int
        Steps since the version answers.
    excess : float
        Sum of loss above target over these steps.
    """

    tracked: float = 0.0
    unit: float = 1.0
    width: float = 0.0
    steps: int = 0
    excess: float = 0.0


class ConformalPid(Policy):
    """Tracks the threshold at which the loss per decision is the target.

    Parameters
    ----------
    rules : Rules
        What it is to keep to.
    rate : float
        Learning rate, in units of the usual width of the scores per loss of 1.
    integral : float
        Gain of the integrator, in the same unit; 0 leaves it out.
    saturation : float
        Summed excess at which the integrator's answer has no limit any more.
    """

    def __init__(self, rules: Rules, rate: float = 0.5, integral: float = 1.0, saturation: float = 5.0) -> None:
        super().__init__(rules)
        if not rate > 0 or integral < 0 or not saturation > 0:
            raise ValueError(
                f"rate = {rate} and saturation = {saturation} must be above 0, integral = {integral} not below"
            )
        self._rate, self._integral, self._saturation = float(rate), float(integral), float(saturation)

    def start(self) -> PidState:
        """Give the state before the first version."""
        return PidState(threshold=0.0)

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Start from the held-out threshold."""
        first = introduction.threshold
        return PidState(first, tracked=first, unit=first if 0 < first < math.inf else 1.0, width=first)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Move by the audited loss of the step above the target, and by the sum of all of them."""
        assert isinstance(state, PidState)
        sums = findings.sums
        if not sums.decisions or not sums.audit_rate:
            return state
        excess = sums.loss / UNIT / sums.audit_rate / sums.decisions - self.rules.target
        width = max(0.95 * state.width, self._usual(findings, state.unit))
        tracked = max(0.0, state.tracked - self._rate * width * excess)
        steps, total = state.steps + 1, state.excess + excess
        threshold = max(0.0, tracked - width * self._saturated(total, steps))
        return PidState(threshold, False, tracked, state.unit, width, steps, total)

    def _saturated(self, total: float, steps: int) -> float:
        inside = total * math.log(steps + 1) / (self._saturation * (steps + 1))
        return self._integral * math.tan(min(max(inside, -1.5), 1.5))

    def _usual(self, findings: Findings, unit: float) -> float:
        """Score that 19 of 20 elements of known truth stay below; 0 where none is known."""
        counts = findings.scores[AUDITED] / findings.sums.audit_rate + findings.scores[REFUSED]
        total = counts.sum()
        if not total:
            return 0.0
        return float(score_edges(unit)[int(np.searchsorted(counts.cumsum(), 0.95 * total))])
