"""Static: one threshold on the score, chosen by the user and never moved."""

import math

from coupler.controller.certificate import Tally
from coupler.controller.findings import Findings
from coupler.controller.policies.policy import GateState, Introduction, Policy, Rules


class Static(Policy):
    """What most active-learning codes do: trust a score below a number.

    Parameters
    ----------
    rules : Rules
        What it is to keep to, which it does not.
    threshold : float
        Scores strictly below it are accepted; 1.0 is about "at tolerance" if the score is honest.
    """

    def __init__(self, rules: Rules, threshold: float = 1.0) -> None:
        super().__init__(rules)
        if not threshold >= 0 or math.isnan(threshold):
            raise ValueError(f"threshold = {threshold}: scores are not negative, set 0 or more")
        self._threshold = float(threshold)

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Use the number."""
        return GateState(threshold=self._threshold)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Learn nothing."""
        return state
