"""The script of a run: all that hung on a clock or on what broke, read from its ledger, to be followed again."""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.case import Case
from coupler.config import read_case
from coupler.errors import ConfigError, CouplerError
from coupler.ledger import Ledger
from coupler.records import TAKEOVERS, Event, EventKind, Reason
from coupler.runfolder import RunFolder
from coupler.summary import STOPPED, Summary, read_summary

if TYPE_CHECKING:
    from coupler.learning.registry import ModelCard

Table = NDArray[np.void]


class Standing(NamedTuple):
    """What answers for an operator in a step.

    Attributes
    ----------
    version, challenger : int
        The model that answers, and the one on trial; 0 if there is none.
    off : bool
        Whether the surrogate is switched off.
    """

    version: int
    challenger: int
    off: bool


@dataclass(frozen=True)
class Absent:
    """Elements that went without an answer in a call.

    Parameters
    ----------
    reason : Reason
        Why.
    ranges : ndarray (k, 2) of int64
        Their ids, ascending: from the first number of each pair up to and without the second.
    """

    reason: Reason
    ranges: NDArray[np.int64]


class Absences:
    """Who went without an answer, by step and call, whichever rank it was on.

    Parameters
    ----------
    calls : mapping of (step, call) to list of Absent
        Only the calls in which somebody did.
    """

    def __init__(self, calls: dict[tuple[int, int], list[Absent]]) -> None:
        self._calls = calls

    def __call__(self, step: int, call: int, ids: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Say why each element goes without an answer, ``ACCEPTED`` where it is to be asked; None if all are.

        Collective: no.
        """
        absent = self._calls.get((step, call))
        if absent is None:
            return None
        reasons = np.full(len(ids), Reason.ACCEPTED, np.uint8)
        for reason, ranges in ((one.reason, one.ranges) for one in absent):
            place = np.searchsorted(ranges[:, 0], ids, side="right") - 1
            reasons[(place >= 0) & (ids < ranges[place, 1])] = reason
        return reasons if reasons.any() else None


@dataclass(frozen=True, eq=False)
class Script:
    """What a run that follows another must be told, because it cannot find it out again.

    Everything else, thresholds and alarms included, follows from the same coins and the same counts.

    Parameters
    ----------
    path : Path
        The folder of the run that is followed.
    case : Case
        What it was asked to do.
    summary : Summary
        How it ended.
    operators : tuple of str
        Its operators.
    standings : tuple of dict
        Per operator, what answers from a step on, at the steps where that changed.
    absences : tuple of Absences
        Per operator.
    events : tuple of Event
        What was told of it.
    """

    path: Path
    case: Case
    summary: Summary
    operators: tuple[str, ...]
    standings: tuple[dict[int, Standing], ...]
    absences: tuple[Absences, ...]
    events: tuple[Event, ...]

    @staticmethod
    def read(path: Path | str) -> "Script":
        """Read the script of a finished run, and see to it that all its models are there.

        Raises
        ------
        CouplerError
            If the folder is none of a finished run, a file of it is damaged, or a model has got lost.

        Collective: no.
        """
        folder = RunFolder(Path(path).resolve())
        summary = _summary(folder)
        ledger = Ledger(folder.ledger)
        operators = ledger.operators
        script = Script(
            path=folder.path,
            case=read_case(folder.case),
            summary=summary,
            operators=operators,
            standings=tuple(_standings(ledger.steps, operator) for operator in range(len(operators))),
            absences=tuple(_absences(ledger, operator) for operator in range(len(operators))),
            events=tuple(_events(ledger.events)),
        )
        script.cards()
        return script

    @property
    def hopeless(self) -> str:
        """Why nothing was started for a model; empty if something was."""
        off = (one for one in self.events if one.kind is EventKind.SWITCHED_OFF and one.step == 1)
        return next((one.sentence for one in off), "")

    def check_operators(self, names: Sequence[str]) -> None:
        """Refuse a run of other operators.

        Raises
        ------
        ConfigError
            If these are not the operators of the run, in their order.
        """
        if tuple(names) != self.operators:
            raise ConfigError(
                f"The run in {self.path} has the operators {', '.join(self.operators)}, and this one has "
                f"{', '.join(names)}: it would be another run. Replay it with the kernel or the loop it was made with."
            )

    def cards(self) -> "list[ModelCard]":
        """Give the card of every version that answered or was on trial, its weights checked.

        Raises
        ------
        CouplerError
            If a card or the weights are missing or damaged; the sentence names the file.
        """
        # A version that took over with the last step answered in none, but is spoken of.
        taken = [(event.operator, event.version) for event in self.events if event.kind in TAKEOVERS]
        wanted = [
            (name, version)
            for index, (name, standings) in enumerate(zip(self.operators, self.standings, strict=True))
            for version in sorted(
                {number for one in standings.values() for number in one[:2]}
                | {number for operator, number in taken if operator == index} - {0}
            )
            if version
        ]
        if not wanted:
            return []
        # Imported here: a run without models needs no torch.
        from coupler.learning.registry import Registry

        registry = Registry(RunFolder(self.path).models)
        cards = [registry.card(name, version) for name, version in wanted]
        for card in cards:
            registry.check(card)
        return cards

    def copy_models(self, models: Path) -> None:
        """Put copies of all files of all versions into another run's folder of models."""
        for card in self.cards():
            for file in RunFolder(self.path).models.glob(f"{card.operator}-v{card.version:04d}.*"):
                shutil.copyfile(file, models / file.name)


def _summary(folder: RunFolder) -> Summary:
    if not folder.case.is_file():
        raise ConfigError(f"{folder.path} is no run folder: it has no case.toml. Give the folder of a finished run.")
    if not folder.summary.is_file():
        raise ConfigError(
            f"{folder.path} has no summary.json: the run goes on or was cut short, so there is no end to compare "
            "with. Give the folder of a finished run."
        )
    try:
        summary = read_summary(folder.summary)
        if summary.status == STOPPED:
            raise ConfigError(
                f"The run in {folder.path} was stopped after step {summary.steps}: there is no end to compare with. "
                f"Go on with it first: coupler resume {folder.path}"
            )
        return summary
    except (OSError, ValueError) as error:  # pydantic's and json's errors are ValueErrors
        raise CouplerError(
            f"{folder.summary} cannot be read ({str(error).partition(chr(10))[0]}): it was changed, or written by "
            "another version of coupler. Restore it, or run the case again."
        ) from error


def _standings(steps: Table, operator: int) -> dict[int, Standing]:
    """Give what stood from a step on, at steps where it was another than in the step before."""
    rows = steps[steps["operator"] == operator]
    now, found = Standing(0, 0, off=False), {}
    columns = [rows[name].tolist() for name in ("step", *Standing._fields)]
    for step, *standing in zip(*columns, strict=True):
        if Standing(*standing) != now:
            found[step] = now = Standing(*standing)
    return found


def _absences(ledger: Ledger, operator: int) -> Absences:
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for rank, group, first, stop in ledger.unanswered_ids.tolist():
        groups[rank, group].append((first, stop))
    ranges = {key: np.array(sorted(spans), np.int64) for key, spans in groups.items()}
    calls: dict[tuple[int, int], list[Absent]] = defaultdict(list)
    for step, call, whose, rank, reason, group in ledger.unanswered.tolist():
        if whose == operator:
            calls[step, call].append(Absent(Reason(reason), ranges[rank, group]))
    return Absences(dict(calls))


def _events(rows: Table) -> list[Event]:
    return [
        Event(step, operator, EventKind(kind.decode()), version, sentence.decode())
        for step, operator, version, kind, sentence in rows.tolist()
    ]
