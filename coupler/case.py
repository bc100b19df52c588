"""Cases: what a run is asked to do, as plain frozen records, and what of it excludes what else."""

from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
PerOutput = float | list[float]
WITH_RANKS = "with-ranks"
"""The value of ``ray.servers`` that names no resource: a server on every node that has ranks."""


def _key(default: Any, meaning: str, *, unit: str = "1", **limits: Any) -> Any:
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **limits)


class Section(BaseModel):
    """One table of a case; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RunSection(Section):
    """How long to run, how to repeat it and what to write."""

    steps: int = _key(100, "number of time steps", ge=0)
    dt: Positive = _key(1.0, "time step, in the kernel's unit of time", unit="kernel time")
    seed: int = _key(0, "seed of everything random: audit coins, sampling, training", ge=0, lt=2**63)
    output_every: int = _key(0, "steps between two pictures of the fields in fields.h5; 0: first and last only", ge=0)
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = _key(
        60.0,
        "seconds between two checkpoints, from which `coupler resume` goes on; longer where one takes more than a "
        "hundredth of that; 0: none by the clock",
        unit="s",
    )
    checkpoint_every: int = _key(
        0, "steps between two checkpoints besides those by the clock; 0: none by the step", unit="steps", ge=0
    )
    checkpoints: int = _key(
        2,
        "checkpoints that are kept, the newest ones, while the run goes on; 0: none is written, and what ends the run "
        "ends it for good",
        unit="checkpoints",
        ge=0,
    )


class KernelSection(Section):
    """Which simulation to run."""

    name: str | None = _key(None, "the kernel: package.module:Class or path/to/file.py:Class")
    params: dict[str, Any] = _key({}, "keyword arguments of the kernel")


class GridSection(Section):
    """The Cartesian grid the kernel runs on."""

    shape: list[int] | None = _key(None, "cells per dimension, 1 to 3 numbers", unit="cells")
    length: list[float] | None = _key(
        None, "size of the domain per dimension; 1.0 each if left out", unit="kernel length"
    )
    periodic: bool | list[bool] = _key(True, "whether the domain wraps around, one value or one per dimension")


class OperatorSection(Section):
    """The tolerance of one operator; its own declaration holds where a key is left out."""

    atol: PerOutput | None = _key(None, "absolute tolerance, one or one per output", unit="output")
    rtol: PerOutput | None = _key(None, "relative tolerance, one or one per output")


class SurrogateSection(Section):
    """The model that answers in place of the truth."""

    name: str = _key(
        "coupler.models.mlp_ensemble:MLPEnsemble", "the surrogate: package.module:Class or path/to/file.py:Class"
    )
    device: str = _key("auto", "where it runs: auto, cpu or cuda:N; asked for CUDA where there is none is an error")
    threads: int = _key(
        1,
        "threads of the server, and of the trainer, which has one where learning is asynchronous and cores are full",
        unit="threads",
        ge=1,
    )
    form: Literal["auto", "fused", "eager", "bf16", "compiled", "graph"] = _key(
        "auto",
        "how a model is run; auto: the fastest form that answers as eager does, measured when a version is loaded, in "
        "deterministic runs by a fixed preference; fused: the model's own compiled form; eager: torch as it is; bf16: "
        "products in bfloat16; compiled: torch's compiler, which needs a C++ compiler and tens of seconds per version; "
        "graph: recorded once and replayed, on a GPU",
    )
    params: dict[str, Any] = _key({}, "keyword arguments of the surrogate")


class ExchangeSection(Section):
    """How elements reach the model and answers come back."""

    transport: Literal["auto", "shared", "objectstore", "inprocess"] = _key(
        "auto",
        "shared: through the node's memory to the server on it; objectstore: through Ray's object store to servers "
        "anywhere; inprocess: the model inside every rank, cheapest where they fill the cores of a node "
        "without a GPU; auto: shared where a server runs on the node, objectstore where none does",
    )
    deadline: Positive = _key(5.0, "longest wait for an answer; what is late goes to the truth", unit="s")
    patience: Positive = _key(
        120.0, "deterministic mode: longest wait for an answer, after which the run ends with an error", unit="s"
    )
    slot_elements: int = _key(
        65536, "elements a rank can ask about at once; more are asked in rounds", unit="elements", ge=1
    )
    sharing: Literal["auto", "on", "off"] = _key(
        "auto",
        "whether a rank with no truth left to compute takes over some of its neighbours' on the node, with the same "
        "bits as result; on: always; off: never; auto: while it pays, and not in mode physics",
    )


class ControllerSection(Section):
    """When the surrogate's answer is taken, and what may be claimed afterwards."""

    mode: Literal["physics", "shadow", "surrogate", "certified"] = _key(
        "certified",
        "physics: no surrogate at all; shadow: truth used, surrogate watched; surrogate: never falls back, nothing is "
        "promised; certified: accepted within the budget",
    )
    policy: str = _key(
        "budget",
        "the rule that moves the threshold: budget keeps the certified loss below the target; proxima, static, "
        "conformal_static, conformal_pid, isat, random, always and never are what others do, for comparison; one of "
        "your own is package.module:Class or path/to/file.py:Class",
    )
    params: dict[str, Any] = _key({}, "keyword arguments of the policy")
    target: Share = _key(0.02, "mean capped error per decision the run must certify to stay below")
    delta: Share = _key(0.05, "probability that the certificate may fail")
    cap: Positive = _key(5.0, "error, in tolerances, that counts as a loss of 1", unit="tolerances")
    threshold: float | None = _key(
        None, "pins the threshold on the score (0 accepts nothing); found and moved if left out", ge=0
    )
    audit_rate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = _key(
        0.02,
        "share of the decisions whose truth is computed to audit them; auto: chosen from target, delta and the number "
        "of decisions of the run, so run.steps must be what is run",
    )
    regions: int = _key(
        8,
        "regions of the input space that are watched one by one: where accepted answers are found to be outside of "
        "tolerance in the mean, the truth is used until the model has been trained anew; 0: none",
        unit="regions",
        ge=0,
        le=256,
    )
    certify_outputs: bool = _key(
        False, "whether summary.json states a bound for each output, too; all of them together hold with 1 - delta"
    )
    box: dict[str, dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]] = _key(
        {},
        "parts of the input space with statements of their own, as [controller.box.NAME] tables of input = [lower, "
        "upper]; all of them together hold with 1 - delta",
    )
    repair: float = _key(
        1.0,
        "largest change of an output by which an answer is moved onto the operator's conserved sums before it is "
        "judged; what misses them by more goes to the truth; 0: answers stay as they are",
        unit="tolerances",
        ge=0,
    )
    hysteresis: float = _key(
        0.0,
        "by this share a score may be above the threshold where the element was accepted last time, so that routes do "
        "not flicker; bits depend on the ranks if elements move between them",
        ge=0,
        le=1,
    )
    blend: float = _key(
        0.0,
        "share of the threshold below it in which answer and truth are mixed, so that there is no seam; the truth is "
        "computed there, too",
        ge=0,
        le=1,
    )
    economics: Literal["auto", "off"] = _key(
        "auto",
        "auto: a surrogate that costs more than it saves is switched off, and tried again now and then, by measured "
        "seconds, so not in deterministic runs; off: it is asked whatever it costs",
    )
    alarm_rate: Share = _key(
        1e-6, "false alarms of a region that is in order come at most once in 1 / alarm_rate steps, on average"
    )
    twin_every: int = _key(
        0,
        "steps between two twin windows, in which a copy of the state goes by physics alone beside the run and the "
        "distance between the two is measured; 0: never. A loop of your own asks coupling.truth instead",
        unit="steps",
        ge=0,
    )
    twin_steps: int = _key(
        10,
        "steps of a twin window, at most twin_every; they cost twin_steps / twin_every of a run of physics alone",
        unit="steps",
        ge=1,
    )

    @model_validator(mode="after")
    def _windows_do_not_overlap(self) -> "ControllerSection":
        if 0 < self.twin_every < self.twin_steps:
            raise ValueError(
                f"controller.twin_steps = {self.twin_steps} is more than controller.twin_every = {self.twin_every}, "
                "and a twin window must end before the next one begins: make twin_steps smaller or twin_every larger"
            )
        return self


class LearningSection(Section):
    """When models are trained, and on what."""

    mode: Literal["asynchronous", "deterministic", "collect", "off"] = _key(
        "asynchronous",
        "asynchronous: the run never waits for training; deterministic: a model takes over exactly `lag` steps after "
        "its training began, on any number of ranks; collect: the model of `start` answers to the end, and the truth's "
        "answers are kept for `coupler train`; off: nothing is kept either",
    )
    lag: int = _key(
        20, "deterministic mode: steps from the start of a training to its model taking over", unit="steps", ge=2
    )
    first: int = _key(20_000, "samples before the first training", unit="samples", ge=100)
    growth: Share = _key(0.5, "share of the buffer that must be new before the next training")
    fallback: Share = _key(
        0.5, "share of the decisions that fall back above which, as under an alarm, a quarter of `growth` is enough"
    )
    buffer: int = _key(60_000, "samples a training may learn from", unit="samples", ge=100)
    anchors: float = _key(
        0.1,
        "share of the buffer that is drawn from the first samples of the run and never replaced, so that no model "
        "forgets where the run began",
        ge=0,
        lt=1,
    )
    recent: float = _key(
        0.5,
        "share of the buffer that is the newest samples; what neither this nor anchors takes is spread evenly over "
        "the kinds and regions of all older samples",
        gt=0,
        le=1,
    )
    renewal: int = _key(
        40, "steps in which the truth's answers may fill the buffer once; the rest is not kept", unit="steps", ge=1
    )
    budget: Positive = _key(20.0, "asynchronous mode: processor time of a training", unit="s")
    start: str | None = _key(
        None,
        "folder of another run, or of `coupler train`, whose models answer from the first step on; begins without any "
        "model if left out",
    )
    trial: int = _key(
        5000,
        "audits on which a new version must show that it errs less than the one that answers; after so many without a "
        "difference that one stays. As many tell afterwards whether to take the new one back",
        unit="audits",
        ge=20,
    )

    @property
    def trains(self) -> bool:
        """Whether there is a trainer."""
        return self.mode in ("asynchronous", "deterministic")

    @model_validator(mode="after")
    def _who_collects_has_a_model(self) -> "LearningSection":
        if self.mode == "collect" and self.start is None:
            raise ValueError(
                'learning.mode = "collect" keeps truth at states that a model has led to, and without learning.start '
                "there is no model: name one, or record a run by physics with output.tape = true"
            )
        return self


class RaySection(Section):
    """The Ray cluster that holds servers and trainer."""

    address: str | None = _key(
        None, "address of a running cluster; RAY_ADDRESS if left out; without either one is started on loopback"
    )
    servers: str = _key(
        WITH_RANKS,
        "where models answer; with-ranks: a server on every node that has ranks; otherwise the name of a Ray resource, "
        "such as GPU: a server on every node of the cluster that has it",
        min_length=1,
    )
    restarts: int = _key(
        5,
        "how often a server, a relay, the trainer, or Ray where the run has started it, is started again within "
        "restart_window; what is lost once more stays away and the run goes on without it; 0: nothing is started again",
        ge=0,
    )
    restart_window: Positive = _key(600.0, "time after which a restart does not count any more", unit="s")
    silence: Positive = _key(
        30.0,
        "a server or trainer that does not answer its supervisor, or is at one question, for so long is ended and "
        "started again",
        unit="s",
    )


class OutputSection(Section):
    """What a run writes down meanwhile, and what it draws at its end."""

    pictures: bool = _key(True, "draw the fields and the budget over time into the run folder")
    ledger: Literal["compact", "audits"] = _key(
        "compact",
        "what the ledger holds; compact: every call and every step of all ranks, in counts; audits: besides, every "
        "audited answer by itself, with its score, its error and what the gate said",
    )
    prometheus: int = _key(
        0,
        "port of this machine at which rank 0 tells Prometheus of the run, http://127.0.0.1:PORT/metrics; 0: none",
        unit="port",
        ge=0,
        le=65535,
    )
    tracker: str | None = _key(
        None,
        "who is told of the run while it goes on: tensorboard, mlflow, or one of your own as package.module:Class or "
        "path/to/file.py:Class",
    )
    tracker_params: dict[str, Any] = _key({}, "keyword arguments of the tracker")
    tape: bool = _key(
        False,
        "record every operator call with its truth into tape/, to compare policies and models on it later; in mode "
        "physics or shadow, 8 bytes per element and call for its id and for every input and output",
    )
    tape_every: int = _key(1, "record the calls of every n-th step only", unit="steps", ge=1)
    tape_share: Annotated[float, Field(gt=0, le=1)] = _key(
        1.0, "share of the elements that is recorded: the same ones in every step, on any number of ranks"
    )


class TraceSection(Section):
    """The timeline of a run, trace.json, which Perfetto and Chrome open."""

    on: bool = _key(False, "write down what ranks, models, trainer and files do when, into trace/ and trace.json")
    spans: int = _key(
        200_000, "spans of a rank after which no more are written; 32 bytes each, some ten per step", unit="spans", ge=1
    )


class Case(Section):
    """A whole case, frozen; :func:`read_case` makes one from a file."""

    run: RunSection = Field(default=RunSection(), description="how long to run, how to repeat it, what to write")
    kernel: KernelSection = Field(default=KernelSection(), description="which simulation to run")
    grid: GridSection = Field(default=GridSection(), description="the Cartesian grid")
    operator: dict[str, OperatorSection] = Field(default={}, description="tolerance per operator, [operator.NAME]")
    surrogate: SurrogateSection = Field(default=SurrogateSection(), description="the model that answers for the truth")
    exchange: ExchangeSection = Field(default=ExchangeSection(), description="how elements reach the model")
    controller: ControllerSection = Field(default=ControllerSection(), description="when an answer is taken")
    learning: LearningSection = Field(default=LearningSection(), description="when models are trained")
    ray: RaySection = Field(default=RaySection(), description="the Ray cluster")
    output: OutputSection = Field(default=OutputSection(), description="ledger, tapes, trackers and pictures")
    trace: TraceSection = Field(default=TraceSection(), description="the timeline for Perfetto")

    @property
    def economical(self) -> bool:
        """Whether what does not pay is switched off: by the clock, so not where the same bits are promised.

        A run that collects is for what comes after it.
        """
        timed = self.learning.mode in ("asynchronous", "off")
        return timed and self.controller.mode == "certified" and self.controller.economics == "auto"

    @model_validator(mode="after")
    def _samples_fit_the_buffer(self) -> "Case":
        if self.learning.first > self.learning.buffer:
            raise ValueError(
                f"learning.first = {self.learning.first} samples never fit into "
                f"learning.buffer = {self.learning.buffer}: make the buffer larger"
            )
        return self

    @model_validator(mode="after")
    def _shares_fit_the_buffer(self) -> "Case":
        anchors, recent = self.learning.anchors, self.learning.recent
        if anchors + recent > 1 + 1e-12:
            raise ValueError(
                f"learning.anchors = {anchors:g} and learning.recent = {recent:g} are shares of one buffer and come to "
                f"{anchors + recent:g}: make one of them smaller, for example learning.recent={1 - anchors:g}"
            )
        return self

    @model_validator(mode="after")
    def _servers_are_asked(self) -> "Case":
        if self.exchange.transport == "inprocess" and self.ray.servers != WITH_RANKS:
            raise ValueError(
                f'ray.servers = "{self.ray.servers}" asks for servers, and with exchange.transport = "inprocess" every '
                "rank answers itself: leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _a_tape_has_truth(self) -> "Case":
        if self.output.tape and self.controller.mode not in ("physics", "shadow"):
            raise ValueError(
                "output.tape = true records the truth of every element, and with controller.mode = "
                f'"{self.controller.mode}" it is not computed where an answer is taken: set controller.mode to '
                '"physics" or "shadow", or leave output.tape out'
            )
        return self

    def to_toml(self) -> str:
        """Give the effective case, defaults included, as TOML."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))
