"""Resumption: an unfinished run, its newest checkpoint that is whole, and whether it may go on from there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coupler.case import Case
from coupler.checkpoint import Checkpoint, Shelf
from coupler.config import case_from_text, read_case
from coupler.errors import ConfigError, CouplerError
from coupler.operator import Operator
from coupler.runfolder import RunFolder, reclaim
from coupler.summary import FINISHED, read_summary

# What may be another than before: it says where, how long and how patiently, not what is computed. Sections and keys.
_MAY_CHANGE = (
    "run.steps",
    "run.output_every",
    "run.checkpoint_seconds",
    "run.checkpoint_every",
    "run.checkpoints",
    "exchange",
    "surrogate.device",
    "surrogate.threads",
    "learning.budget",
    "ray",
    "output.pictures",
    "output.ledger",
)


@dataclass(frozen=True, eq=False)
class Resumption:
    """Where a run goes on from.

    Parameters
    ----------
    path : Path
        Its folder.
    case : Case
        What it is asked to do from here on.
    checkpoint : Checkpoint
        Where it stood.
    steps : tuple of int
        Steps of all checkpoints that were there.
    """

    path: Path
    case: Case
    checkpoint: Checkpoint
    steps: tuple[int, ...]

    @staticmethod
    def open(path: Path | str, wanted: Case | None = None) -> "Resumption":
        """Look into the folder of an unfinished run; nothing in it is changed.

        Parameters
        ----------
        path : Path or str
            The folder.
        wanted : Case, optional
            What the run is to do from here on; what is in the folder if left out.

        Raises
        ------
        ConfigError
            If it is no run's folder, the run is finished, or the case was changed in what must not change.
        CouplerError
            If there is no checkpoint that can be used.

        Collective: no; rank 0 does it for all.
        """
        folder = RunFolder(Path(path).resolve())
        _check_unfinished(folder)
        shelf = Shelf(folder.checkpoints)
        steps, checkpoint = tuple(shelf.steps()), shelf.newest()
        before = case_from_text(str(checkpoint.facts["case"]), folder=folder.path)
        case = _merged(before, wanted or read_case(folder.case))
        _check_case(folder, before, case, checkpoint.step)
        return Resumption(folder.path, case, checkpoint, steps)

    def check_operators(self, operators: Mapping[str, Operator]) -> None:
        """Refuse to go on with other operators.

        Raises
        ------
        ConfigError
            If names, columns, units, bounds or tolerances are not those of the run.
        """
        known = self.checkpoint.facts["operators"]
        mine = signatures(operators)
        if mine != known:
            changed = next((name for name in (*mine, *known) if mine.get(name) != known.get(name)), "their order")
            raise ConfigError(
                f"The run in {self.path} was made with other operators than these ({changed} differs in columns, "
                "units, bounds or tolerances, or is not there): what it has learned would be of something else. Go "
                "on with the kernel or script it was made with."
            )

    def claim(self, ranks: int) -> RunFolder:
        """Take the folder: nobody else may use it until the run ends; forget checkpoints that cannot be used.

        Raises
        ------
        ConfigError
            If a run is going on there.

        Collective: no; rank 0 does it.
        """
        folder = RunFolder(self.path)
        reclaim(folder, self.case, {"step": self.checkpoint.step, "ranks": ranks})
        if tuple(Shelf(folder.checkpoints).steps()) != self.steps:
            folder.release()
            raise ConfigError(f"The run in {self.path} went on meanwhile: look at it, and type the same again.")
        Shelf(folder.checkpoints).forget_after(self.checkpoint.step)
        folder.summary.unlink(missing_ok=True)  # of a run that was stopped
        return folder


def signatures(operators: Mapping[str, Operator]) -> dict[str, Any]:
    """Give what a checkpoint says of the operators, as plain data in their order."""
    return {name: json.loads(json.dumps(operator.signature.to_json())) for name, operator in operators.items()}


def _check_unfinished(folder: RunFolder) -> None:
    if not folder.case.is_file():
        raise ConfigError(f"{folder.path} is no run folder: it has no case.toml. Give the folder of a run.")
    if not folder.summary.is_file():
        return
    try:
        summary = read_summary(folder.summary)
    except (OSError, ValueError) as error:  # pydantic's and json's errors are ValueErrors
        raise CouplerError(
            f"{folder.summary} cannot be read ({str(error).partition(chr(10))[0]}), so nobody can say whether the run "
            "is finished: delete it if it is not."
        ) from error
    if summary.status == FINISHED:
        raise ConfigError(
            f"The run in {folder.path} is finished: all its {summary.steps} steps were made, so there is nothing to "
            "go on with. For more steps run the case again with a larger run.steps."
        )


def _merged(before: Case, wanted: Case) -> Case:
    """Put in what was chosen when the run began."""
    if wanted.controller.audit_rate != "auto":
        return wanted
    section = wanted.controller.model_copy(update={"audit_rate": before.controller.audit_rate})
    return wanted.model_copy(update={"controller": section})


class _Difference(NamedTuple):
    key: str
    before: object
    after: object


def _check_case(folder: RunFolder, before: Case, after: Case, step: int) -> None:
    for one in _differences(before.model_dump(), after.model_dump()):
        if not any(one.key == key or one.key.startswith(f"{key}.") for key in _MAY_CHANGE):
            raise ConfigError(
                f"{one.key} is {one.after!r} now and was {one.before!r} in the first {step} steps of {folder.path}: "
                "that would be another run, and its certificate would say nothing. Leave it as it was, or run the "
                f"case again. What may change: {', '.join(_MAY_CHANGE)}."
            )
    if after.run.steps < step:
        raise ConfigError(
            f"run.steps = {after.run.steps}, and {folder.path} has made {step} steps already: give at least {step}."
        )


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], path: Sequence[str] = ()
) -> Iterator[_Difference]:
    for name in dict.fromkeys([*before, *after]):
        old, new, keys = before.get(name), after.get(name), (*path, name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, keys)
        elif old != new:
            yield _Difference(".".join(keys), old, new)
