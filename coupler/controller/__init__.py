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
from coupler.controller.coins import MOST_CALLS, Coins, Stream, tosses, uniforms
from coupler.controller.controller import Controller, ControllerState, Mode, Watch
from coupler.controller.gate import Gate, Workspace, audited_sums, judge, losses, put_rows
from coupler.controller.limits import Limits
from coupler.controller.statements import Losses, Statements, of_outputs

__all__ = [
    "MOST_CALLS",
    "UNIT",
    "AuditedSums",
    "Bound",
    "Certificate",
    "Coins",
    "Controller",
    "ControllerState",
    "Evidence",
    "Gate",
    "Limits",
    "Losses",
    "Mode",
    "Statements",
    "Stream",
    "Tally",
    "Watch",
    "Workspace",
    "audited_sums",
    "judge",
    "losses",
    "of_outputs",
    "put_rows",
    "quantise",
    "sentence",
    "tosses",
    "uniforms",
]
