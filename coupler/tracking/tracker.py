"""The tracker: the contract of whoever is told of a run, and how one is found by its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coupler.case import Case
from coupler.errors import ConfigError, did_you_mean
from coupler.plugin import build, load
from coupler.progress import Progress
from coupler.records import Event
from coupler.summary import Summary

_STOCK = {
    "tensorboard": "coupler.tracking.tensorboard:TensorBoardTracker",
    "mlflow": "coupler.tracking.mlflow:MLflowTracker",
}
_PROMETHEUS = "coupler.tracking.prometheus:PrometheusTracker"


@dataclass(frozen=True)
class Start:
    """What a tracker is told first.

    Parameters
    ----------
    folder : Path
        The run folder.
    name : str
        Of the kernel, or of a loop of the user's own.
    case : Case
        The effective case.
    operators : tuple of str
        Names behind the numbers of operators.
    """

    folder: Path
    name: str
    case: Case
    operators: tuple[str, ...]

    def flat_case(self) -> dict[str, str]:
        """Give the case as ``section.key`` with its value in words, for trackers that keep parameters so."""
        return dict(_flat("", self.case.model_dump(exclude_none=True)))


class Tracker:
    """Told of a run on rank 0, in a thread of its own: the run never waits, and goes on if this fails.

    Derive from it and say ``[output] tracker = "my_tracker:MyTracker"``; keyword arguments come from
    ``output.tracker_params``. Every method may be left out. Where a package is needed, import it in ``begin``.
    """

    def begin(self, start: Start) -> None:
        """Be told what begins.

        Raises
        ------
        CouplerError
            If it cannot track; the run does not start then. This alone happens before the run, not in the thread.
        """

    def steps(self, steps: Sequence[Progress]) -> None:
        """Be told of the steps since the last time, in order, at least one; some four times a second."""

    def event(self, event: Event) -> None:
        """Be told what happened to a model or a switch."""

    def end(self, summary: Summary) -> None:
        """Be told how the run ended; not called if it failed."""

    def close(self) -> None:
        """Let go of everything; always the last call."""


def open_trackers(case: Case) -> list[Tracker]:
    """Make the trackers that a case asks for.

    Raises
    ------
    ConfigError, PluginError
        If there is none of that name, it is no tracker, or its parameters are wrong.

    Collective: no.
    """
    section = case.output
    found: list[Tracker] = []
    if section.tracker is not None:
        plugin = load(_full_name(section.tracker), Tracker)
        found.append(build(plugin, section.tracker_params, key="output.tracker_params"))
    if section.prometheus:
        found.append(build(load(_PROMETHEUS, Tracker), {"port": section.prometheus}, key="output.prometheus"))
    return found


def _full_name(name: str) -> str:
    if ":" in name:
        return name
    if name not in _STOCK:
        raise ConfigError(
            f'output.tracker = "{name}" is no tracker.{did_you_mean(name, _STOCK)} One of your own is '
            "package.module:Class or path/to/file.py:Class."
        )
    return _STOCK[name]


def _flat(prefix: str, table: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        rows += _flat(name, value) if isinstance(value, Mapping) else [(name, str(value))]
    return rows
