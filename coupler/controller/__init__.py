"""What decides whether an answer is taken, and what the run may claim afterwards: arithmetic on arrays."""

from coupler.controller.certificate import (
    UNIT,
    AuditedSums,
    Bound,
    Certificate,
    Evidence,
    Tally,
    quantise,
    sentence,
)
from coupler.controller.coins import MOST_CALLS, Stream, tosses, uniforms
from coupler.controller.controller import Controller, ControllerState, Mode, Watch
from coupler.controller.gate import Limits, audited_sums, judge, losses

__all__ = [
    "MOST_CALLS",
    "UNIT",
    "AuditedSums",
    "Bound",
    "Certificate",
    "Controller",
    "ControllerState",
    "Evidence",
    "Limits",
    "Mode",
    "Stream",
    "Tally",
    "Watch",
    "audited_sums",
    "judge",
    "losses",
    "quantise",
    "sentence",
    "tosses",
    "uniforms",
]
