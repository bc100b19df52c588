"""Random: a share of the answers is taken, drawn without looking at them; what every score must beat."""

from coupler.controller.certificate import Tally
from coupler.controller.coins import Stream, uniforms
from coupler.controller.findings import Findings
from coupler.controller.limits import Floats
from coupler.controller.policies.policy import GateState, Introduction, Policy, Question, Rules


class RandomShare(Policy):
    """Takes a fixed share of the answers, whichever.

    Parameters
    ----------
    rules : Rules
        What it is to keep to, which it does not; its seed draws.
    share : float
        Share of the answers that is taken.
    """

    def __init__(self, rules: Rules, share: float = 0.5) -> None:
        super().__init__(rules)
        if not 0 <= share <= 1:
            raise ValueError(f"share = {share} must be between 0 and 1")
        self._share = float(share)

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Use the share: the scores are uniform in [0, 1)."""
        return GateState(threshold=self._share)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Learn nothing."""
        return state

    def scores(self, state: GateState, question: Question) -> Floats:
        """Draw the scores, the same for the same elements on any ranks."""
        return uniforms(self.rules.seed, question.step, question.call, question.ids, stream=Stream.POLICY)
