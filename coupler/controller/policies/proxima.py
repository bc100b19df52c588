"""Proxima: the threshold that a linear relation between score and error gives for a wanted error.

Zamora, Logan, Ward et al., Proxima: accelerating the integration of machine learning in atomistic simulations, ICS
2021: alpha is the mean of error over score in the last truth calls, and the threshold moves by (error - wanted) /
alpha. Theirs are single calls of a slow code; here a step has many, and what was theirs of a call is taken of a step.
"""

from dataclasses import dataclass

from coupler.controller.certificate import UNIT, Tally
from coupler.controller.findings import AUDITED, AUDITED_LOSS, Findings
from coupler.controller.policies.policy import GateState, Introduction, Policy, Rules


@dataclass(frozen=True)
class ProximaState(GateState):
    """Where the gate stands, and what the last steps found.

    Parameters
    ----------
    ratios : tuple of float
        Mean of error over score of each of the last steps with truth.
    errors : tuple of float
        Mean error of the audited, accepted answers of each of the last steps that had any, 0 where nothing was
        accepted [tolerances].
    """

    ratios: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()


class Proxima(Policy):
    """Steers the mean error of the accepted answers to a wanted one.

    Parameters
    ----------
    rules : Rules
        What it is to keep to.
    error : float, optional
        Wanted mean error of an accepted answer [tolerances]; the target if left out.
    window : int
        Steps that are remembered.
    """

    def __init__(self, rules: Rules, error: float | None = None, window: int = 8) -> None:
        super().__init__(rules)
        self._error = rules.target * rules.cap if error is None else float(error)
        self._window = int(window)
        if not self._error > 0 or self._window < 1:
            raise ValueError(f"error = {error} and window = {window} must be above 0")

    def start(self) -> ProximaState:
        """Give the state before the first version."""
        return ProximaState(threshold=0.0)

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Start from the held-out threshold, with the relation of score to error found there."""
        score, error = introduction.held_out.score, introduction.held_out.error
        known = (score > 0) & (error < self.rules.cap * 1e3)
        ratios = (float((error[known] / score[known]).mean()),) if known.any() else ()
        return ProximaState(threshold=introduction.threshold, ratios=ratios)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Move the threshold by what the mean error is off, in units of score."""
        assert isinstance(state, ProximaState)
        ratios, errors = state.ratios, state.errors
        if findings.known:
            ratios = (*ratios, findings.ratio / findings.known)[-self._window :]
        audits = int(findings.scores[AUDITED].sum())
        if not findings.sums.accepted:
            # Nothing was wrong. Without this a threshold at 0 would stay there: nothing accepted is audited any more.
            errors = (*errors, 0.0)[-self._window :]
        elif audits:
            mean = self.rules.cap * float(findings.scores[AUDITED_LOSS].sum()) / UNIT / audits
            errors = (*errors, mean)[-self._window :]
        return ProximaState(self._moved(state.threshold, ratios, errors), ratios=ratios, errors=errors)

    def _moved(self, threshold: float, ratios: tuple[float, ...], errors: tuple[float, ...]) -> float:
        slope = sum(ratios) / len(ratios) if ratios else 0.0
        if not slope:
            return threshold
        error = sum(errors) / len(errors) if errors else 0.0
        return max(0.0, threshold - (error - self._error) / slope)
