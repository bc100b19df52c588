"""Gate policies on recorded truth: what each accepts, what that costs in true loss, and whether the target is kept.

A case is a stream (``benchmarks/harness/streams.py``), drawn anew for every seed, or a tape of a real operator with a
model that was trained on its first steps (``benchmarks/harness/tapes.py``), where a seed tosses other coins. Every
system is a policy of ``coupler.controller.policies``, played open loop by :func:`coupler.playback.play`: first as it
comes, then with its one parameter turned, with hindsight and seed by seed, until its true loss at the end is that of
``budget``. Only hindsight can do so: it is what a rival could reach at best, at equal true loss.

Drawn streams have one input, the score, so there is no more for ``isat`` to see in them; tapes have those of the
operator.
"""

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import sqrt

import numpy as np

from benchmarks.harness import streams
from benchmarks.harness.timing import Row
from coupler.controller import Controller
from coupler.playback import Playback, play
from coupler.redraw import ErrorStream, Spread

TARGET, AUDIT_RATE, CAP = 0.02, 0.02, 2.0
# Drawn streams have no operator whose cost could be measured.
DRAWN_COST_RATIO = 1 / 50
# Shares of a stream before there is a model, 1 % of a drawn one; what is learned from it is at most 2000 elements.
_SHADOW_SHARE = 0.01
# True losses within this share of each other are equal, and good enough where a rule is too jumpy to be led closer;
# halvings after which the search ends.
_EQUAL, _GOOD_ENOUGH, _MOST_HALVINGS = 0.01, 0.05, 14
_LONGEST_SECONDS = 3600.0


@dataclass(frozen=True)
class Knob:
    """The one parameter that decides how much a policy accepts.

    Parameters
    ----------
    name : str
        A parameter of the policy, or "target", which the conformal ones are told by their rules.
    least, most : float
        Where it is looked for; the more, the more is accepted.
    """

    name: str
    least: float
    most: float

    def turned(self, system: str, value: float, seed: int) -> Controller:
        """Give the controller with this value."""
        if self.name == "target":
            return _controller(system, seed, target=value)
        return _controller(system, seed, params={self.name: value})


KNOBS: Mapping[str, Knob | None] = {
    "budget": None,
    "conformal_pid": Knob("target", 1e-3, 0.9),
    "proxima": Knob("error", 1e-4, 1e2),
    "static": Knob("threshold", 1e-4, 1e3),
    "conformal_static": Knob("target", 1e-4, 0.9),
    "isat": Knob("error", 1e-2, 1e2),
    "random": Knob("share", 1e-4, 1.0),
    "always": None,
    "never": None,
}
"""The systems; those without a knob are as they are."""


@dataclass(frozen=True)
class Effort:
    """How much to do.

    Parameters
    ----------
    seeds : int
        Of every case.
    steps, decisions : int
        Steps of a drawn stream, and elements in each.
    tapes : bool
        Whether real operators are recorded, too.
    """

    seeds: int = 5
    steps: int = 1000
    decisions: int = 1000
    tapes: bool = True


@dataclass(frozen=True, eq=False)
class Match:
    """One system on one stream with one seed.

    Parameters
    ----------
    played : Playback
        As it comes.
    tuned : Playback or None
        At the true loss of ``budget``; None where no setting leads there.
    """

    played: Playback
    tuned: Playback | None


@dataclass(frozen=True)
class _Task:
    """One case with one seed, for a process of its own.

    Parameters
    ----------
    case : str
        Of the rows.
    source : Scenario or ErrorStream
        What draws the stream, or the stream of a tape.
    cost_ratio : float
        Cost of an answer over that of the truth.
    seed, steps, decisions : int
        Of the coins and of what is drawn; as in :class:`Effort`.
    """

    case: str
    source: streams.Scenario | ErrorStream
    cost_ratio: float
    seed: int
    steps: int
    decisions: int

    def matches(self) -> dict[str, Match]:
        """Play all systems."""
        stream = self.source
        if not isinstance(stream, ErrorStream):
            stream = streams.record(stream, steps=self.steps, decisions=self.decisions, seed=self.seed)
        shadow = max(1, round(_SHADOW_SHARE * stream.steps))
        found: dict[str, Match] = {}
        for system, knob in KNOBS.items():
            played = play(stream, _controller(system, self.seed), shadow=shadow)
            wanted = found["budget"].played.true_loss if found else played.true_loss
            tuned = played if system == "budget" else None
            if knob is not None:
                tuned = tuned_to(wanted, stream, system, knob, seed=self.seed, shadow=shadow)
            found[system] = Match(played, tuned)
        return found


def run(effort: Effort | None = None) -> list[Row]:
    """Play all policies on all streams.

    Returns
    -------
    list of mapping
        ``case``, ``system``, ``n`` (decisions), ``seeds``, ``target``, ``cost_ratio``; medians over the seeds with
        their 10 and 90 % quantiles of ``true_loss`` per decision and ``accepted_share``; ``predicted_speedup``;
        ``target_kept``, the share of the seeds in which the running true loss was never above the target;
        ``highest_bound``, the largest certified loss after any step of any seed. The same with ``equal_loss_`` in
        front where the policy was tuned with hindsight to the true loss of ``budget``.
    """
    asked = Effort() if effort is None else effort
    tasks = list(_tasks(asked))
    # A controller is Python: processes, not threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        found = list(pool.map(_Task.matches, tasks, timeout=_LONGEST_SECONDS))
    rows: list[Row] = []
    for first in range(0, len(tasks), asked.seeds):
        matches = found[first : first + asked.seeds]
        rows += [_row(tasks[first], system, [each[system] for each in matches]) for system in KNOBS]
    return rows


def tuned_to(wanted: float, stream: ErrorStream, system: str, knob: Knob, *, seed: int, shadow: int) -> Playback | None:
    """Turn a knob until the true loss at the end is the wanted one, within 1 % where that can be had, 5 % at most.

    Parameters
    ----------
    wanted : float
        True loss per decision.
    stream : ErrorStream
        What is played.
    system, knob : str, Knob
        The policy and its parameter.
    seed, shadow : int
        As for :func:`coupler.playback.play`.

    Returns
    -------
    Playback or None
        None where the loss jumps over the wanted one, or nothing reaches it.
    """
    least, most, nearest = knob.least, knob.most, None
    for _ in range(_MOST_HALVINGS):
        value = sqrt(least * most)
        played = play(stream, knob.turned(system, value, seed), shadow=shadow)
        distance = abs(played.true_loss - wanted)
        if nearest is None or distance < abs(nearest.true_loss - wanted):
            nearest = played
        if distance <= _EQUAL * wanted:
            break
        least, most = (least, value) if played.true_loss > wanted else (value, most)
    return nearest if nearest is not None and abs(nearest.true_loss - wanted) <= _GOOD_ENOUGH * wanted else None


def _tasks(effort: Effort) -> Iterator[_Task]:
    seeds, size = range(1, effort.seeds + 1), (effort.steps, effort.decisions)
    for scenario in streams.SCENARIOS:
        case = scenario.__name__.replace("_", "-")
        yield from (_Task(case, scenario, DRAWN_COST_RATIO, seed, *size) for seed in seeds)
    if effort.tapes:
        # Imported here, as that starts MPI: the processes that play need neither it nor torch.
        from benchmarks.harness import tapes

        for tape in tapes.TAPES:
            made = tapes.recording(tape)
            ratio = made.answer_seconds / made.truth_seconds
            yield from (_Task(tape.name, made.stream, ratio, seed, *size) for seed in seeds)


def _controller(
    system: str, seed: int, *, target: float = TARGET, params: Mapping[str, object] | None = None
) -> Controller:
    return Controller(
        target=target, cap=CAP, audit_rate=AUDIT_RATE, policy=system, params=dict(params or {}), seed=seed
    )


def _row(task: _Task, system: str, matches: Sequence[Match]) -> Row:
    played = [match.played for match in matches]
    tuned = [match.tuned for match in matches if match.tuned is not None]
    row: Row = {
        "case": task.case,
        "system": system,
        "n": int(played[0].decisions.sum()),
        "seeds": len(matches),
        "target": TARGET,
        "cost_ratio": task.cost_ratio,
        **_facts(played, task.cost_ratio),
    }
    if len(tuned) < len(matches):
        return row
    return {**row, **{f"equal_loss_{key}": value for key, value in _facts(tuned, task.cost_ratio).items()}}


def _facts(played: Sequence[Playback], cost_ratio: float) -> dict[str, float]:
    return {
        **_spread("true_loss", (each.true_loss for each in played)),
        **_spread("accepted_share", (each.accepted_share for each in played)),
        "predicted_speedup": float(np.median([each.speedup(cost_ratio) for each in played])),
        "target_kept": float(np.mean([each.kept(TARGET) for each in played])),
        "highest_bound": max(each.highest_bound for each in played),
    }


def _spread(name: str, values: Iterable[float]) -> dict[str, float]:
    spread = Spread.of(np.fromiter(values, np.float64))
    return {name: spread.median, f"{name}_p10": spread.low, f"{name}_p90": spread.high}


def main() -> None:
    """Run, and print a line per system."""
    for row in run():
        print(
            f"{row['case']:20} {row['system']:18} loss {row['true_loss']:.4f} accepted {row['accepted_share']:.3f} "
            f"kept {row['target_kept']:.1f} at equal loss {row.get('equal_loss_accepted_share', np.nan):.3f}"
        )


if __name__ == "__main__":
    main()
