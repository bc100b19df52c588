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
from coupler.controller.coins import MOST_CALLS, Coins, Stream, coin_seed, tosses, uniforms
from coupler.controller.controller import Controller, ControllerState, Mode
from coupler.controller.findings import SCORE_BINS, SCORE_ROWS, Findings, Measures, Scale, measure, score_edges
from coupler.controller.gate import Gate, Workspace, put_rows
from coupler.controller.limits import Limits
from coupler.controller.policies import GateState, HeldOut, Introduction, Policy, Question, Rules
from coupler.controller.statements import Losses, Statements, of_outputs

__all__ = [
    "MOST_CALLS",
    "SCORE_BINS",
    "SCORE_ROWS",
    "UNIT",
    "AuditedSums",
    "Bound",
    "Certificate",
    "Coins",
    "Controller",
    "ControllerState",
    "Evidence",
    "Findings",
    "Gate",
    "GateState",
    "HeldOut",
    "Introduction",
    "Limits",
    "Losses",
    "Measures",
    "Mode",
    "Policy",
    "Question",
    "Rules",
    "Scale",
    "Statements",
    "Stream",
    "Tally",
    "Workspace",
    "coin_seed",
    "measure",
    "of_outputs",
    "put_rows",
    "quantise",
    "score_edges",
    "sentence",
    "tosses",
    "uniforms",
]
