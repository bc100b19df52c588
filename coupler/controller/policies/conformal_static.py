"""Conformal, static: the threshold that conformal risk control finds on held-out samples, never moved.

Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal risk control, ICLR 2024, arXiv:2208.02814. Its guarantee is for
elements that are exchangeable with the held-out ones; those of a simulation that moves on are not.
"""

from coupler.controller.certificate import Tally
from coupler.controller.findings import Findings
from coupler.controller.policies.policy import GateState, Introduction, Policy


class ConformalStatic(Policy):
    """Keeps the threshold a version was introduced with."""

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Use the threshold whose expected held-out loss is at most the target."""
        return GateState(threshold=introduction.threshold)

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Learn nothing."""
        return state
