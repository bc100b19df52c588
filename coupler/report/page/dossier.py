"""The dossier of a run: all that its folder holds, as far as it can be read, for whoever tells of it."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from coupler.errors import CouplerError
from coupler.ledger import Ledger
from coupler.progress import Progress, read_metrics
from coupler.records import TAKEOVERS, Decision, EventKind
from coupler.report.recording import Recording, read_recording, reading
from coupler.runfolder import RunFolder
from coupler.summary import EventSummary, ModelSummary, Summary, read_summary

T = TypeVar("T")
# A file that a run is writing just now can be read a moment later.
_MOST_LOOKS = 3


@dataclass(frozen=True)
class Dossier:
    """What a run folder holds; what it lacks is None or empty, and ``gaps`` says why.

    Parameters
    ----------
    name : str
        What the run is called beside others.
    path : Path
        The folder.
    case : mapping
        The effective case, plain data; empty if it cannot be read.
    case_text : str
        The same as it was written.
    environment : mapping
        ``environment.json``.
    summary : Summary or None
        None while the run goes on, and where it was cut short.
    metrics : sequence of Progress
        One per step.
    ledger : Ledger or None
        With its tables already read.
    recording : Recording or None
        The fields.
    cards : sequence of mapping
        Model cards of all versions, by operator and version.
    rounds : sequence of mapping
        Outcomes of training rounds.
    gaps : mapping of str to str
        By file: why there is nothing of it.
    """

    name: str
    path: Path
    case: Mapping[str, Any] = field(default_factory=dict)
    case_text: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    summary: Summary | None = None
    metrics: Sequence[Progress] = ()
    ledger: Ledger | None = None
    recording: Recording | None = None
    cards: Sequence[Mapping[str, Any]] = ()
    rounds: Sequence[Mapping[str, Any]] = ()
    gaps: Mapping[str, str] = field(default_factory=dict)

    def key(self, section: str, key: str, default: T) -> T:
        """Give a key of the case, or the default where it cannot be read."""
        found = self.case.get(section, {}).get(key, default)
        return found if isinstance(found, type(default)) else default

    @property
    def mode(self) -> str:
        """How the run decided."""
        return self.summary.mode if self.summary is not None else self.key("controller", "mode", "certified")

    @property
    def asks(self) -> bool:
        """Whether there is a surrogate to tell of."""
        return self.mode != "physics"

    @property
    def kernel(self) -> str:
        """The kernel by its class; a loop of the user's own has none."""
        return self.key("kernel", "name", "").rpartition(":")[2] or "a loop of its own"

    @property
    def grid(self) -> str:
        """Cells per dimension, in words; empty for a loop of the user's own."""
        shape: list[int] = self.key("grid", "shape", [])
        return " × ".join(map(str, shape))

    @property
    def target(self) -> float:
        """The bound that was asked for."""
        return self.summary.certificate.target if self.summary is not None else self.key("controller", "target", 0.02)

    @property
    def steps(self) -> int:
        """Steps that are known to have been made."""
        if self.summary is not None:
            return self.summary.steps
        return self.metrics[-1].step if self.metrics else 0

    @property
    def state(self) -> str:
        """Where the run stands, in a few words."""
        if self.summary is not None:
            return f"{self.summary.status}, {self.steps} steps"
        wanted = self.key("run", "steps", 0)
        return f"going on or cut short, step {self.steps}" + (f" of {wanted}" if wanted else "")

    @cached_property
    def decisions(self) -> dict[Decision, int]:
        """What became of the elements so far."""
        if self.summary is not None:
            return {decision: getattr(self.summary.decisions, decision.name.lower()) for decision in Decision}
        return {
            decision: sum(progress.decisions.get(decision.name.lower(), 0) for progress in self.metrics)
            for decision in Decision
        }

    def share(self, decision: Decision) -> float:
        """Share of all decisions so far; 0 where there were none."""
        return self.decisions[decision] / max(sum(self.decisions.values()), 1)

    @cached_property
    def events(self) -> Sequence[EventSummary]:
        """What happened to models and switches; of a run that has not ended, what its ledger has."""
        if self.summary is not None:
            return self.summary.events
        if self.ledger is None:
            return ()
        names = self.ledger.operators
        return [
            EventSummary(
                operator=names[row["operator"]],
                step=int(row["step"]),
                kind=row["kind"].decode(),
                version=int(row["version"]),
                sentence=row["sentence"].decode(),
            )
            for row in self.ledger.events
        ]

    @property
    def models(self) -> Sequence[ModelSummary]:
        """Versions that took over, with the step from which they answered."""
        if self.summary is not None:
            return self.summary.models
        took_over = [event for event in self.events if EventKind(event.kind) in TAKEOVERS]
        if took_over:
            return [
                ModelSummary(operator=event.operator, version=event.version, step=event.step, sha256="")
                for event in took_over
            ]
        # The ledger of a run that goes on is behind its metrics.
        pairs = pairwise([0, *(progress.version for progress in self.metrics)])
        return [
            ModelSummary(operator="", version=after, step=progress.step, sha256="")
            for progress, (before, after) in zip(self.metrics, pairs, strict=True)
            if after != before
        ]

    @property
    def sentence(self) -> str:
        """What may be claimed of the run, in its own words where it has ended."""
        if not self.asks:
            return "This run computed the truth of every element: there is no surrogate, and nothing to certify."
        if self.summary is not None:
            return self.summary.certificate.sentence
        if not self.metrics:
            return "Nothing can be said yet: the run has not come to the end of its first step."
        return _so_far(self.metrics[-1], self.key("controller", "delta", 0.05), self.key("controller", "cap", 5.0))


def read_dossier(path: Path, name: str) -> Dossier:
    """Read what can be read of a run, going on, ended or cut short.

    Parameters
    ----------
    path : Path
        The run folder.
    name : str
        What to call it.

    Raises
    ------
    CouplerError
        If there is no such folder, or it holds nothing that a run writes.

    Collective: no.
    """
    folder = RunFolder(path)
    if not any(place.exists() for place in folder.places):
        what = "holds nothing that a run writes" if path.is_dir() else "is no folder"
        raise CouplerError(
            f"{path} {what}, so there is nothing to report: give the folder of a run, as --out named it."
        )
    gaps: dict[str, str] = {}
    case_text = _read(lambda: folder.case.read_text(encoding="utf-8"), folder.case, gaps) or ""
    return Dossier(
        name=name,
        path=path,
        case=_read(lambda: tomllib.loads(case_text), folder.case, gaps) or {},
        case_text=case_text,
        environment=_read(lambda: _json_of(folder.environment), folder.environment, gaps) or {},
        summary=_read(lambda: read_summary(folder.summary), folder.summary, gaps),
        metrics=_read(lambda: read_metrics(folder.metrics), folder.metrics, gaps) or (),
        ledger=_read(lambda: _ledger_of(folder.ledger), folder.ledger, gaps),
        recording=_read(lambda: read_recording(folder.fields), folder.fields, gaps),
        cards=_documents(folder.models, "*-v[0-9]*.json", gaps),
        rounds=_documents(folder.models, "*-round-*.json", gaps),
        gaps=gaps,
    )


def _read(read: Callable[[], T], path: Path, gaps: dict[str, str]) -> T | None:
    """Read a file, and look again where a run may be writing it; what cannot be read is a gap with its reason."""
    for looks_left in reversed(range(_MOST_LOOKS)):
        try:
            with reading(path):
                return read()
        except CouplerError as error:
            if not path.exists():
                gaps[path.name] = "not there"
            elif looks_left:
                continue
            else:
                gaps[path.name] = str(error)
            return None
    return None


def _ledger_of(path: Path) -> Ledger:
    ledger = Ledger(path)
    for table in (ledger.records, ledger.steps, ledger.events, ledger.audits):
        assert isinstance(table, np.ndarray)  # looked at here, where what is wrong with it becomes a gap
    return ledger


def _documents(folder: Path, pattern: str, gaps: dict[str, str]) -> Sequence[Mapping[str, Any]]:
    found = [_read(partial(_json_of, path), path, gaps) for path in sorted(folder.glob(pattern))]
    return [document for document in found if document is not None]


def _json_of(path: Path) -> Mapping[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise TypeError("it holds no table of names and values")
    return document


def _so_far(last: Progress, delta: float, cap: float) -> str:
    return (
        f"Up to step {last.step}, with probability at least {1 - delta:g} over the audit coins, the mean capped error "
        f"(1 is an error of {cap:g} tolerances or more) was at most {last.loss_bound:.3g} per decision; with the same "
        f"probability, at most {100 * last.exceedance_bound:.3g} % of the decisions were outside tolerance. The run "
        "goes on, or was cut short."
    )
