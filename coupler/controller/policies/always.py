"""Always: every answer that passes the hard checks is taken."""

import math

from coupler.controller.certificate import Tally
from coupler.controller.findings import Findings
from coupler.controller.policies.policy import GateState, Introduction, Policy


class Always(Policy):
    """Takes whatever is possible, and lets the certificate say how wrong that was."""

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Open the gate."""
        return GateState(threshold=math.inf)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Learn nothing."""
        return state
