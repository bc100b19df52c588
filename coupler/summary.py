"""``summary.json``: what a run did, in keys that scripts may rely on."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from coupler.atomic import replacing

FINISHED, STOPPED = "finished", "stopped"
"""How a run ended: after its last step, or earlier, where it was asked to; then it can be resumed."""


class _Record(BaseModel):
    # JSON has no number for what is not finite: a field that blew up gives a mass of "NaN", and can be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Decisions(_Record):
    """What became of the elements; the six numbers sum to all elements."""

    accepted: int = 0
    fallback: int = 0
    audited: int = 0
    vetoed: int = 0
    timeout: int = 0
    disabled: int = 0


class StatementSummary(_Record):
    """What may be claimed of one output, or of one box of the inputs."""

    decisions: int
    accepted: int
    audits: int
    loss_bound_per_decision: float
    loss_bound_per_accepted: float
    loss_estimate_per_decision: float
    exceedance_bound: float


class FamilySummary(_Record):
    """Statements that hold together with probability 1 - delta, beside the main one."""

    name: str
    lines: dict[str, StatementSummary]
    sentence: str


class CertificateSummary(_Record):
    """What the run may claim; bounds hold with probability 1 - delta over the audit coins."""

    delta: float
    cap: float
    target: float
    loss_bound_per_decision: float
    loss_estimate_per_decision: float
    exceedance_bound: float
    audits: int
    loss_bound_per_accepted: float
    exceedance_estimate: float
    sentence: str
    families: list[FamilySummary] = Field(default_factory=list)


class Seconds(_Record):
    """Wall-clock seconds on the slowest rank, per activity; ``total`` includes everything, set-up too.

    ``learn`` is what the ranks spend on learning: gathering samples, and in deterministic mode waiting for a training.
    ``twin`` is all that twin windows take, their truth and their halos included; no other activity contains it.
    """

    total: float = 0.0
    setup: float = 0.0
    truth: float = 0.0
    wait: float = 0.0
    gather: float = 0.0
    gate: float = 0.0
    scatter: float = 0.0
    halo: float = 0.0
    io: float = 0.0
    sync: float = 0.0
    learn: float = 0.0
    twin: float = 0.0


class SharedTruth(_Record):
    """Truth that ranks computed for neighbours on their node, part of what was computed in all.

    ``seconds`` is its processor time, ``overhead_seconds`` what sharing cost beside it, both summed over the ranks.
    """

    elements: int = 0
    seconds: float = 0.0
    overhead_seconds: float = 0.0


class ModelSummary(_Record):
    """One version that was promoted."""

    operator: str
    version: int
    step: int
    sha256: str


class EventSummary(_Record):
    """Something that happened to a model, to the switch of a surrogate, or to the services.

    ``step`` is the first it holds for; ``operator`` is empty where it is about all of them.
    """

    operator: str
    step: int
    kind: str
    version: int
    sentence: str


class ConservedSum(_Record):
    """A conserved sum over the whole domain."""

    start: float
    end: float


class TwinDistance(_Record):
    """How far one field moved away from physics in a twin window.

    ``rms_over_range`` and ``largest`` are of the window's last step: the root mean square over all cells of the
    difference between run and twin, over the range (largest minus smallest value) of the twin; and the largest
    difference of a cell, in the field's unit. ``growth`` is ``rms_over_range`` after every step of the window.
    """

    rms_over_range: float
    largest: float
    growth: list[float]


class TwinWindow(_Record):
    """One twin window: the first step that was run twice, how many were, and the distance by field."""

    step: int
    steps: int
    fields: dict[str, TwinDistance]


class Summary(_Record):
    """The whole of ``summary.json``.

    ``status`` is ``finished``, or ``stopped`` where the run was asked to end early and can be resumed. Of a run that
    was resumed everything is of the whole run, except ``seconds``, costs and ``speedup_estimate``, which are of the
    piece since. ``decisions``, ``elements`` and ``certificate`` are of all operators together. ``wait_hidden_share`` is
    the share of the time between questions and answers, over all ranks, that nobody had to wait: audits ran meanwhile.
    ``server_restarts`` counts how often a server, a relay, or Ray with all of them was started again. ``coin_seed`` is
    what the audit coins hang on: ``seed``, and the weights of the models the run began with, if it did with any.
    """

    status: str
    steps: int
    ranks: int
    seed: int
    coin_seed: int
    mode: str
    elements: int
    decisions: Decisions
    certificate: CertificateSummary
    seconds: Seconds
    truth_seconds_per_element: float
    surrogate_seconds_per_element: float
    speedup_estimate: float
    models: list[ModelSummary] = Field(default_factory=list)
    retrainings: int = 0
    rollbacks: int = 0
    events: list[EventSummary] = Field(default_factory=list)
    server_restarts: int = 0
    state_sha256: str | None = None
    mass: dict[str, ConservedSum] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)
    shared: SharedTruth = SharedTruth()
    wait_hidden_share: float = 0.0
    twins: list[TwinWindow] = Field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the file atomically: it is either not there or whole."""
        with replacing(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_summary(path: Path) -> Summary:
    """Read ``summary.json`` back."""
    return Summary.model_validate_json(path.read_text(encoding="utf-8"))
