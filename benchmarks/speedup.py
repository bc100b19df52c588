"""Time to solution: whole runs with a surrogate that learns on the way, against the same runs by physics alone.

A case of ``launch/`` is run on two ranks, in turns in mode ``physics`` and in mode ``certified``; what counts is the
whole run, set-up and training included, on the same cores. Every certified run is compared with a run of physics:
what it certified, how far its fields are from physics at the last step, and for ignitions how late it ignited.

``.../taught...`` begin with a model that ``launch/teach.sh`` has taught on a relative of the case; what that takes is
not in the run, but beside it (``taught_s``). With ``COUPLER_TAUGHT``, a folder, what was taught once is taken again.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.ranks import ROOT, on_ranks, rank_environment
from benchmarks.harness.timing import Row, row
from coupler.config import read_case
from coupler.report import compare
from coupler.report.recording import read_recording
from coupler.simulation import Simulation

RANKS = 2
ROUNDS = 3
# Longest that one run may take [s].
_RUN_SECONDS = 3600.0


@dataclass(frozen=True)
class Lesson:
    """How a model is taught before the runs that it is for.

    Parameters
    ----------
    name : str
        Of the folder for what is made; problems with the same lesson share it.
    relative : tuple of str
        What makes the case the one that a model is taught on.
    first : tuple of str
        What trains the models that collect, as long as there is little to learn from.
    seconds : int
        Processor time of the last training [s]; ``COUPLER_SECONDS`` overrules it.
    """

    name: str
    relative: tuple[str, ...]
    first: tuple[str, ...] = ("surrogate.params.jolt=0.3",)
    seconds: int = 300


@dataclass(frozen=True)
class Problem:
    """A case of ``launch/`` and what is looked at.

    Parameters
    ----------
    name : str
        The row's case.
    case : str
        Its file, from the root of the checkout.
    overrides : tuple of str
        What is changed in it.
    ignites : str
        Field whose mean tells the moment of ignition by its fastest rise; empty where nothing ignites.
    lesson : Lesson, optional
        How the model it begins with is taught; none where a run learns from nothing.
    """

    name: str
    case: str
    overrides: tuple[str, ...] = ()
    ignites: str = ""
    lesson: Lesson | None = None


# A model small enough for every rank to have it.
_TAUGHT = ("learning.mode=off", "exchange.transport=inprocess")
_AIR = Lesson(
    "air",
    relative=("kernel.params.wind=1.0", "kernel.params.emissions={NO=2.2e-4,HCHO=1.1e-4,ALD=5.5e-5}"),
    first=("surrogate.params.jolt=0.3", "surrogate.params.width=64", "surrogate.params.depth=2"),
    seconds=600,
)
PROBLEMS = (
    Problem(
        "reactive_flow/h2-flame/taught",
        "launch/reactive_flow/flame_2d.toml",
        overrides=_TAUGHT,
        lesson=Lesson("flame", relative=("kernel.params.stratification=0.3",)),
    ),
    Problem(
        "reactive_flow/h2-ignition/taught",
        "launch/reactive_flow/ignition_2d.toml",
        overrides=_TAUGHT,
        ignites="temperature",
        lesson=Lesson(
            "ignition",
            relative=("kernel.params.seed=7", "kernel.params.spots=[[0.65,0.6]]", "surrogate.params.jolt=0"),
        ),
    ),
    Problem("reactive_flow/h2-ignition", "launch/reactive_flow/ignition_2d.toml", ignites="temperature"),
    Problem("air_chemistry/taught", "launch/air_chemistry/case.toml", overrides=_TAUGHT, lesson=_AIR),
    Problem(
        "air_chemistry/taught/target-0.1",
        "launch/air_chemistry/case.toml",
        overrides=(*_TAUGHT, "controller.target=0.1"),
        lesson=_AIR,
    ),
    Problem("air_chemistry", "launch/air_chemistry/case.toml"),
    Problem("bz/spirals", "launch/bz/case.toml"),
)


def run(
    problems: Sequence[Problem] = PROBLEMS, ranks: int = RANKS, rounds: int = ROUNDS, overrides: Sequence[str] = ()
) -> list[Row]:
    """Run every problem in both modes, in turns.

    Parameters
    ----------
    problems : sequence of Problem
        Which.
    ranks, rounds : int
        On how many ranks, and how often.
    overrides : sequence of str
        Further ``section.key=value`` for all of them.

    Returns
    -------
    list of mapping
        ``case``, ``system`` (``physics``, ``certified``), ``n``, ``median_s``, ``p10_s``, ``p90_s`` of the whole run;
        ``half_s``, the median of its second half of steps; ``truth_us``, the truth per element and rank. Of the
        certified ones ``speedup`` and ``half_speedup`` against physics, medians over rounds; ``accepted_share``, too;
        ``loss_bound``, ``field_error`` (root mean square of the worst field at the last step over its range) and,
        where something ignites, ``ignition_error``: the largest of the rounds. ``taught_s``: what teaching took.
    """
    with tempfile.TemporaryDirectory(prefix="coupler-bench-") as temporary:
        lessons = Path(os.environ.get("COUPLER_TAUGHT") or temporary).resolve()
        return [row for problem in problems for row in _compared(problem, ranks, rounds, overrides, lessons)]


@dataclass(frozen=True)
class _Outcome:
    """What one run took and showed; ``half`` is the second half of the steps [s]."""

    seconds: float
    half: float
    truth: float
    accuracy: Mapping[str, float] = field(default_factory=dict)


def _compared(problem: Problem, ranks: int, rounds: int, overrides: Sequence[str], lessons: Path) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="coupler-bench-"))
    physics, certified = [], []
    try:
        taught = _teach(problem, problem.lesson, ranks, overrides, lessons) if problem.lesson else None
        begins = [] if taught is None else [f"learning.start={taught.model}"]
        for number in range(rounds):
            reference, ours = folder / f"physics-{number}", folder / f"certified-{number}"
            physics.append(_run(problem, "physics", ranks, overrides, reference))
            outcome = _run(problem, "certified", ranks, [*overrides, *begins], ours)
            certified.append(replace(outcome, accuracy=_accuracy(problem, ours, reference)))
    finally:
        shutil.rmtree(folder)
    beside = {} if taught is None else {"taught_s": taught.seconds}
    return [_row(problem.name, "physics", physics), {**_row(problem.name, "certified", certified, physics), **beside}]


@dataclass(frozen=True)
class _Taught:
    """The folder of a model, and what teaching it took [s]."""

    model: Path
    seconds: float


def _teach(problem: Problem, lesson: Lesson, ranks: int, overrides: Sequence[str], lessons: Path) -> _Taught:
    """Teach a model on the relative of a case; what is there already is not done again."""
    place = lessons / lesson.name
    command = [str(ROOT / "launch" / "teach.sh"), str(ROOT / problem.case), str(place), str(ranks)]
    environment = {
        "COUPLER_SECONDS": str(lesson.seconds),
        **rank_environment(),
        "COUPLER_FIRST": " ".join(_set(lesson.first)),
    }
    subprocess.run([*command, *_set((*lesson.relative, *overrides))], check=True, env=environment)
    parts = (line.split() for line in (place / "seconds.txt").read_text().splitlines())
    return _Taught(place / "model", sum(float(seconds) for seconds, _ in parts))


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _row(case: str, system: str, runs: Sequence[_Outcome], physics: Sequence[_Outcome] = ()) -> Row:
    pairs = list(zip(physics, runs, strict=False))
    faster = {
        "speedup": [theirs.seconds / ours.seconds for theirs, ours in pairs],
        "half_speedup": [theirs.half / ours.half for theirs, ours in pairs],
        "accepted_share": [ours.accuracy["accepted_share"] for _, ours in pairs],
    }
    worst = set().union(*(one.accuracy for one in runs)) - faster.keys()
    return row(
        case,
        system,
        np.array([one.seconds for one in runs]),
        half_s=float(np.median([one.half for one in runs])),
        truth_us=1e6 * float(np.median([one.truth for one in runs])),
        **{key: float(np.median(values)) for key, values in faster.items() if values},
        **{key: max(one.accuracy[key] for one in runs) for key in sorted(worst)},
    )


def _run(problem: Problem, mode: str, ranks: int, overrides: Sequence[str], folder: Path) -> _Outcome:
    settings = [*problem.overrides, "output.pictures=false", *overrides, f"controller.mode={mode}"]
    case, function = str(ROOT / problem.case), f"{__file__}:simulate"
    on_ranks(function, ranks, within=_RUN_SECONDS, case=case, overrides=settings, out=str(folder))
    summary = json.loads((folder / "summary.json").read_text())
    ends = [json.loads(line)["seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    half = ends[-1] - ends[len(ends) // 2 - 1]
    return _Outcome(summary["seconds"]["total"], half, summary["truth_seconds_per_element"])


def _accuracy(problem: Problem, certified: Path, physics: Path) -> dict[str, float]:
    """Say what a certified run promised, and how far it is from the run of physics beside it."""
    summary = json.loads((certified / "summary.json").read_text())
    found = {
        "loss_bound": summary["certificate"]["loss_bound_per_decision"],
        "accepted_share": summary["decisions"]["accepted"] / summary["elements"],
        "field_error": compare(certified, physics).worst_difference,
    }
    if problem.ignites:
        ours, theirs = (_ignition(problem.ignites, folder) for folder in (certified, physics))
        found["ignition_error"] = abs(ours - theirs) / theirs
    return found


def simulate(comm: Any, case: str, overrides: list[str], out: str) -> None:
    """Run a case on these ranks, as ``coupler run`` does."""
    simulation = Simulation(read_case(case, overrides), comm=comm, out=Path(out))
    simulation.run()
    simulation.close()


def _ignition(name: str, folder: Path) -> float:
    """Find when the mean of a field rises fastest, by a parabola through the three steepest intervals."""
    recording = read_recording(folder / "fields.h5")
    times = np.array(recording.times)
    means = np.array([recording.frame(name, moment).mean() for moment in range(len(times))])
    middles, rates = 0.5 * (times[1:] + times[:-1]), np.diff(means) / np.diff(times)
    peak = int(np.clip(np.argmax(rates), 1, len(rates) - 2))
    curve = np.polyfit(middles[peak - 1 : peak + 2] - middles[peak], rates[peak - 1 : peak + 2], 2)
    return float(middles[peak] - curve[1] / (2.0 * curve[0]))
