"""Replay: a finished run done again from its ledger, and whether it is bitwise the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums, Certificate, Tally
from coupler.coupling.script import Script
from coupler.errors import ConfigError, CouplerError
from coupler.ledger import Ledger
from coupler.records import Reason
from coupler.simulation import Simulation
from coupler.summary import CertificateSummary, Summary

Table = NDArray[np.void]

# What a record counts, which ranks add up, and what held in the step, which is the same on all of them.
_SUMS = ("audits", "acceptable", "loss", "exceedances", "withheld", "withheld_loss", "refused")
_HELD = ("version", "threshold", "stopped", "audit_rate")
_STEP = ("version", "challenger", "off", "stopped", "alarms", "threshold", "audit_rate", "bound", "unit", "scores")
_TEXT = 12


@dataclass(frozen=True)
class Tick:
    """One thing that was compared.

    Parameters
    ----------
    line : str
        What.
    difference : str
        The first difference, in words; empty if there is none.
    """

    line: str
    difference: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Parameters
    ----------
    before, after : Summary
        How they ended.
    folder : Path
        Where the second one is.
    ticks : sequence of Tick
        What was compared; prints as a table of ticks and one sentence.
    """

    before: Summary
    after: Summary
    folder: Path
    ticks: Sequence[Tick]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not any(tick.difference for tick in self.ticks)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.same:
            return (
                f"bitwise the same: {self.before.steps} steps, {_ranks(self.before.ranks)} then, {self.after.ranks} now"
            )
        return f"not the same: {next(tick.difference for tick in self.ticks if tick.difference)}"

    def __str__(self) -> str:
        lines = [f"✗ {one.line}: {one.difference}" if one.difference else f"✓ {one.line}" for one in self.ticks]
        return "\n".join([*lines, self.sentence, f"the run folder of the replay: {self.folder}"])


def replay(folder: Path, out: Path | None = None) -> Comparison | None:
    """Do a finished run again on the ranks there are, and compare.

    Versions take over, trials begin and end, and switches move at the steps at which they did; what went unanswered
    goes without an answer again. Nothing is trained, and nothing hangs on a clock.

    Parameters
    ----------
    folder : Path
        The run; nothing in it is changed.
    out : Path, optional
        The folder of the new run; the first free ``runs/KERNEL-NNN`` if left out.

    Returns
    -------
    Comparison or None
        On rank 0; None elsewhere.

    Raises
    ------
    CouplerError
        If the folder is none of a finished run, a file of it is missing or damaged, or its case names no kernel.

    Collective: yes, over all ranks.
    """
    script = Script.read(folder)
    if script.case.kernel.name is None:
        raise ConfigError(
            f"The run in {folder} had a loop of its own, which only its script has: type "
            f'Coupling(..., replay="{folder}", out="DIR2") there, run it, and compare with '
            f'coupler.replay.compare("{folder}", "DIR2").'
        )
    simulation = Simulation(script.case, out=out, replay=folder)
    simulation.run()
    first, path = simulation.grid.rank == 0, simulation.coupling.folder.path
    simulation.close()
    return compare(folder, path) if first else None


def compare(before: Path | str, after: Path | str) -> Comparison:
    """Compare two finished runs bit by bit, on whatever numbers of ranks.

    Parameters
    ----------
    before, after : Path or str
        Their folders.

    Returns
    -------
    Comparison

    Raises
    ------
    CouplerError
        If one of them is none of a finished run, or a file of it is missing or damaged.

    Collective: no.
    """
    scripts = Script.read(before), Script.read(after)
    summaries = scripts[0].summary, scripts[1].summary
    for script in scripts:
        scripts[0].check_operators(script.operators)
    ledgers = [Ledger(script.path) for script in scripts]
    by_rank = summaries[0].ranks == summaries[1].ranks and all(
        _same_ranks(ledger.records, summary.ranks) for ledger, summary in zip(ledgers, summaries, strict=True)
    )
    records = [_added_up(ledger.records, by_rank=by_rank) for ledger in ledgers]
    names = scripts[0].operators
    ticks = [
        Tick(f"{len(ledgers[0].records)} records: reasons and sums of every call", _records(records, names)),
        Tick(f"{len(ledgers[0].steps)} steps: what held, scores and bounds", _steps(ledgers, names)),
        *(Tick(f"the certificate follows from the ledger {when}", _follows(script, ledger))
          for when, script, ledger in zip(("then", "now"), scripts, ledgers, strict=True)),
        *(Tick(line, _unequal(*(getattr(summary, name) for summary in summaries))) for line, name in _SUMMARY),
    ]  # fmt: skip
    return Comparison(*summaries, scripts[1].path, ticks)


_SUMMARY = (
    ("decisions", "decisions"),
    ("the certificate", "certificate"),
    ("models", "models"),
    ("conserved sums", "mass"),
    ("the fields at the end", "state_sha256"),
)


@dataclass(frozen=True)
class _Groups:
    """Records added up over what they have in common.

    Parameters
    ----------
    keys : ndarray (n, k)
        Step, call, operator, and the rank where ranks are kept apart.
    columns : dict of str to ndarray (n,)
        What is compared, by what it is called.
    """

    keys: NDArray[np.int64]
    columns: dict[str, NDArray[np.generic]]


def _added_up(rows: Table, *, by_rank: bool) -> _Groups:
    names = ("step", "call", "operator", "rank")[: 4 if by_rank else 3]
    keys = np.stack([rows[name].astype(np.int64) for name in names], axis=1)
    starts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    starts = np.append(0, starts) if len(rows) else starts
    counted = {reason.name.lower(): rows["reasons"][:, reason] for reason in Reason}
    counted |= {name: rows[name] for name in _SUMS}
    columns = {name: _over(np.add, values, starts) for name, values in counted.items()}
    # The least and the largest: whatever differs on one rank only shows as well.
    columns |= {name: _over(np.minimum, rows[name], starts) for name in _HELD}
    columns |= {f"largest {name}": _over(np.maximum, rows[name], starts) for name in _HELD}
    return _Groups(keys[starts], columns)


def _same_ranks(rows: Table, ranks: int) -> bool:
    """Whether so many ranks made every step: a run may have been resumed on another number."""
    pairs = np.unique(np.stack([rows["step"], rows["rank"].astype(np.int64)]), axis=1)
    return bool(pairs.shape[1] == ranks * len(np.unique(pairs[0])))


def _over(kind: np.ufunc, values: NDArray[np.generic], starts: NDArray[np.intp]) -> NDArray[np.generic]:
    reduced: NDArray[np.generic] = kind.reduceat(values, starts) if len(values) else values
    return reduced


def _records(both: Sequence[_Groups], operators: Sequence[str]) -> str:
    """Say where records differ first."""
    before, after = both
    if before.keys.shape != after.keys.shape or not np.array_equal(before.keys, after.keys):
        return _missing(before.keys, after.keys, operators)
    differs = {name: _bits(before.columns[name]) != _bits(after.columns[name]) for name in before.columns}
    anywhere = np.any(list(differs.values()), axis=0)
    if not anywhere.any():
        return ""
    row = int(np.argmax(anywhere))
    name = next(name for name, where in differs.items() if where[row])
    was, is_now = before.columns[name][row], after.columns[name][row]
    return f"{_place(before.keys[row], operators)}: {name} was {was} and is {is_now}"


def _steps(ledgers: Sequence[Ledger], operators: Sequence[str]) -> str:
    """Say where steps differ first."""
    before, after = (ledger.steps for ledger in ledgers)
    keys = [np.stack([rows["step"], rows["operator"]], axis=1) for rows in (before, after)]
    if len(before) != len(after) or not np.array_equal(keys[0], keys[1]):
        return f"there were {len(before)} rows of steps and there are {len(after)}"
    for row in range(len(before)):
        if before[row] != after[row]:
            for name in _STEP:
                if not np.array_equal(_bits(before[name][row]), _bits(after[name][row])):
                    step, operator = before["step"][row], operators[before["operator"][row]]
                    said = "" if name == "scores" else f" was {before[name][row]} and is {after[name][row]}"
                    return f"step {step}, operator {operator}: {name}{said or ' differ'}"
    return ""


def _missing(before: NDArray[np.int64], after: NDArray[np.int64], operators: Sequence[str]) -> str:
    known, now = ({tuple(key) for key in keys.tolist()} for keys in (before, after))
    first = min(known ^ now)
    when = "in the run" if first in known else "in the replay"
    return f"{_place(np.array(first), operators)}: there is such a call only {when}"


def _place(key: NDArray[np.int64], operators: Sequence[str]) -> str:
    step, call, operator, *rank = key.tolist()
    return f"step {step}, call {call}, " + (f"rank {rank[0]}, " if rank else "") + f"operator {operators[operator]}"


def _bits(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Give numbers as they lie in memory: a NaN is the same as itself, and 0 is not -0."""
    array = np.asarray(values)
    return array.view(np.int64) if array.dtype == np.float64 else array


def _follows(script: Script, ledger: Ledger) -> str:
    """Add up a ledger in integers, as the run did, and say how its certificate differs from what that gives."""
    controller, rates = script.case.controller, ledger.records["audit_rate"]
    # Of a run; where nobody was asked nothing was accepted, and it does not matter.
    least = float(rates[rates > 0].min(initial=1.0))
    certificate = Certificate(delta=controller.delta, cap=controller.cap, audit_rate_min=least)
    bound = certificate.bound(_tally(certificate, ledger.records))
    said = script.summary.certificate
    for name in CertificateSummary.model_fields:
        if name in vars(bound) and getattr(bound, name) != getattr(said, name):
            return f"{name} is {getattr(said, name)} in summary.json and {getattr(bound, name)} by the ledger"
    return ""


def _tally(certificate: Certificate, records: Table) -> Tally:
    tally = certificate.start()
    rows = records[np.lexsort((records["operator"], records["step"]))]
    for _, group in groupby(range(len(rows)), key=lambda row: (rows["step"][row], rows["operator"][row])):
        part = rows[list(group)]
        if not 0 <= int(part["acceptable"].sum()) <= int(part["reasons"].sum()):
            raise CouplerError(f"step {part['step'][0]}: the ledger counts more accepted elements than there are.")
        sums = [int(part["reasons"].sum()), *(int(part[name].sum()) for name in ("audits", "acceptable", *_SUMS[2:]))]
        tally = certificate.add(tally, AuditedSums(float(part["audit_rate"].max()), *sums))
    return tally


def _unequal(before: object, after: object) -> str:
    return "" if before == after else f"it was {_short(before)} and is {_short(after)}"


def _short(value: object) -> str:
    return f"{value[:_TEXT]}…" if isinstance(value, str) else str(value)


def _ranks(count: int) -> str:
    return f"{count} rank{'' if count == 1 else 's'}"
