"""Never: no answer is taken; what a surrogate would have saved and cost is measured all the same."""

from coupler.controller.certificate import Tally
from coupler.controller.findings import Findings
from coupler.controller.policies.policy import GateState, Introduction, Policy


class Never(Policy):
    """Leaves everything to the truth."""

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Keep the gate shut."""
        return GateState(threshold=0.0)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Learn nothing."""
        return state
