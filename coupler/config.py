"""Cases: what a run is asked to do, read from TOML, checked before anything starts, explained key by key."""

import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from coupler.errors import ConfigError, PluginError, did_you_mean
from coupler.plugin import absolute

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
PerOutput = float | list[float]
# Keys that name a plug-in, which may be a file.
_PLUGINS = (["kernel", "name"], ["surrogate", "name"], ["controller", "policy"], ["output", "tracker"])
# Keys that name a folder.
_FOLDERS = (["learning", "start"],)
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
    threads: int = _key(1, "torch threads of the server", unit="threads", ge=1)
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


def read_case(path: Path | str | None, overrides: Sequence[str] = ()) -> Case:
    """Read a case file and apply ``section.key=value`` overrides.

    Parameters
    ----------
    path : Path, str or None
        The TOML file; None starts from the defaults. Paths inside it are relative to its folder.
    overrides : sequence of str
        ``section.key=value`` with a TOML value; a word that is no TOML value is a string.

    Returns
    -------
    Case

    Raises
    ------
    ConfigError
        If the file is missing or no TOML, a key is unknown (the nearest one is named) or a value is wrong.

    Collective: no; every rank reads the same file and finds the same mistakes.
    """
    text = "" if path is None else _text_of(Path(path))
    data = _parse(text, path)
    folder = Path.cwd() if path is None else Path(path).resolve().parent
    given = {_apply(data, override): override for override in overrides}
    return case_from(data, folder=folder, source=_Source(None if path is None else str(path), text, given))


def case_from_text(text: str, *, folder: Path) -> Case:
    """Make a case of the text of a case file, with paths relative to a folder.

    Raises
    ------
    ConfigError
        As :func:`read_case`.
    """
    return case_from(_parse(text, "The case"), folder=folder)


@dataclass(frozen=True)
class _Source:
    """Where a case's values come from, for messages: a file's text, and overrides by key."""

    path: str | None = None
    text: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, keys: list[str]) -> str:
        """Say where a key was given: an override, file and line, file; with a colon, or nothing."""
        for length in range(len(keys), 1, -1):
            if (key := ".".join(keys[:length])) in self.overrides:
                return f"--set {self.overrides[key]}: "
        line = _line_of(keys, self.text)
        return f"{self.path}:{line}: " if self.path and line else f"{self.path}: " if self.path else ""


def case_from(data: Mapping[str, Any], *, folder: Path, source: _Source = _Source()) -> Case:
    """Check plain data and make it a case; plug-ins named by file, and folders, get absolute paths from ``folder``.

    Raises
    ------
    ConfigError
        As :func:`read_case`.
    """
    try:
        case = Case.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error.errors()[0], data, source)) from None
    kernel, surrogate, controller, output = case.kernel, case.surrogate, case.controller, case.output
    learning = case.learning
    try:
        if kernel.name is not None:
            kernel = kernel.model_copy(update={"name": absolute(kernel.name, folder)})
        surrogate = surrogate.model_copy(update={"name": absolute(surrogate.name, folder)})
        controller = controller.model_copy(update={"policy": absolute(controller.policy, folder)})
        if output.tracker is not None:
            output = output.model_copy(update={"tracker": absolute(output.tracker, folder)})
    except PluginError as error:
        raise ConfigError(str(error)) from None
    if learning.start is not None:
        learning = learning.model_copy(update={"start": str((folder / learning.start).resolve())})
    placed = {
        "kernel": kernel,
        "surrogate": surrogate,
        "controller": controller,
        "learning": learning,
        "output": output,
    }
    return case.model_copy(update=placed)


class KeyExplanation(Section):
    """One key of a case in words: what ``coupler explain`` prints."""

    key: str
    default: str
    unit: str
    meaning: str


def explain(key: str = "") -> list[KeyExplanation]:
    """Explain a key, a section, or everything: from the same models that read the case.

    Raises
    ------
    ConfigError
        If there is no such section or key.
    """
    rows = list(_explanations())
    chosen = [row for row in rows if not key or row.key == key or row.key.startswith(key + ".")]
    if not chosen:
        raise ConfigError(f'No case has a key "{key}".{did_you_mean(key, (row.key for row in rows))}')
    return chosen


def _explanations() -> Iterable[KeyExplanation]:
    for section, entry in Case.model_fields.items():
        model = OperatorSection if section == "operator" else entry.annotation
        assert isinstance(model, type) and issubclass(model, Section), section
        prefix = "operator.NAME" if section == "operator" else section
        for name, item in model.model_fields.items():
            extra = item.json_schema_extra
            assert isinstance(extra, dict), name
            default = "(unset)" if item.default is None else _toml_value(item.default)
            yield KeyExplanation(
                key=f"{prefix}.{name}", default=default, unit=str(extra["unit"]), meaning=item.description or ""
            )


def _toml_value(value: Any) -> str:
    return "{}" if value == {} else tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def _text_of(path: Path) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
        near = (
            did_you_mean(path.name, (item.name for item in path.parent.glob("*.toml"))) if path.parent.is_dir() else ""
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The case file {path} cannot be read: {error}.") from error
    raise ConfigError(f"There is no case file {path}.{near}")


def _parse(text: str, source: Path | str | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits, brackets without end
        raise ConfigError(f"{source} is not valid TOML: {error}.") from error


def _apply(data: dict[str, Any], override: str) -> str:
    key, separator, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts) or len(parts) < 2:
        raise ConfigError(f"--set {override}: write section.key=value, for example --set run.steps=10.")
    if not override.isascii() and override != override.encode(errors="replace").decode():
        raise ConfigError(
            f"--set {override!r} holds bytes that are no text, and a case file could not keep them: type UTF-8."
        )
    table = data
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f'--set {override}: "{part}" is a value, not a section.')
    table[parts[-1]] = override_value(value.strip())
    # What is typed in a shell is relative to where that is.
    if parts in _PLUGINS and isinstance(table[parts[-1]], str):
        table[parts[-1]] = absolute(table[parts[-1]], Path.cwd())
    if parts in _FOLDERS and isinstance(table[parts[-1]], str):
        table[parts[-1]] = str(Path(table[parts[-1]]).resolve())
    return ".".join(parts)


def override_value(value: str) -> Any:
    """Read the right-hand side of ``--set``: a TOML value, and a word that is none is a string."""
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value
    return read["value"] if len(read) == 1 else value


def _sentence(error: ErrorDetails, data: Mapping[str, Any], source: _Source) -> str:
    keys, value = _found(error["loc"], data)
    where, key = source.place_of(keys), ".".join(keys)
    if error["type"] == "extra_forbidden":
        kind = "section" if len(keys) == 1 else "key"
        return f'{where}there is no {kind} "{key}".{did_you_mean(keys[-1], _known(keys[:-1]))}'
    if error["type"] == "value_error":
        return f"{where}{error['ctx']['error']}."
    said = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}{key} = {reprlib.repr(value)}: {said}. `coupler explain {_explained(keys)}` says what it means."


def _found(place: tuple[int | str, ...], data: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Give the keys that lead to a mistake, and the value there; the place also names types and numbers in lists."""
    keys: list[str] = []
    value: Any = data
    for part in place:
        if isinstance(value, Mapping) and part in value:
            keys.append(str(part))
            value = value[part]
    return keys, value


def _known(keys: list[str]) -> list[str]:
    if not keys:
        return list(Case.model_fields)
    if keys[0] == "operator":
        return list(OperatorSection.model_fields)
    model = Case.model_fields[keys[0]].annotation
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, Section) else []


def _explained(keys: list[str]) -> str:
    if keys[0] == "operator":
        return "operator.NAME"
    return ".".join(keys[:2])


def _line_of(keys: list[str], text: str) -> int | None:
    """Line of the key in the file, or of what it is in, for messages; None if it is nowhere."""
    section, lines = "", {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.split("#", 1)[0].strip()
        if line.startswith("[") and line.endswith("]"):
            section = _bare(line.strip("[] "))
            lines[section] = number
        elif "=" in line:
            lines[".".join(filter(None, [section, _bare(line.partition("=")[0])]))] = number
    within = (".".join(keys[:length]) for length in range(len(keys), 0, -1))
    return next((lines[key] for key in within if key in lines), None)


def _bare(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
