"""Comparisons: a run beside a physics run of the same case, how far apart they went and how fast each was."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.report.recording import Recording, read_recording, reading
from coupler.summary import Summary, read_summary

# Start fields are bitwise the same on any number of ranks; another machine's libm may differ in the last bits.
_SAME_START = 1e-9


@dataclass(frozen=True)
class Comparison:
    """How a run did against physics.

    Parameters
    ----------
    steps : tuple of int
        Steps at which both runs wrote their fields.
    times : tuple of float
        Time at those steps, in the kernel's unit.
    differences : mapping of str to tuple of float, one per step
        Per field: root mean square of run - reference, relative to the range (max - min) of the reference
        at that step [1]. Infinite where the run is not finite.
    worst_field : str
        The field that is furthest off at the last of these steps.
    worst_difference : float
        Its difference there [1].
    loop_speedup : float
        Seconds of the reference's loop over those of the run's, set-up left out of both [1].
    total_speedup : float
        The same with set-up [1].
    """

    steps: tuple[int, ...]
    times: tuple[float, ...]
    differences: Mapping[str, tuple[float, ...]]
    worst_field: str
    worst_difference: float
    loop_speedup: float
    total_speedup: float


@dataclass(frozen=True)
class Pair:
    """Two runs of the same case that may be compared, opened.

    Parameters
    ----------
    run, reference : Recording
        Their fields.
    run_summary, reference_summary : Summary
        What they did.
    steps : tuple of int
        Steps at which both wrote their fields.
    """

    run: Recording
    reference: Recording
    run_summary: Summary
    reference_summary: Summary
    steps: tuple[int, ...]

    def frames(self, field: str, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Read a field of the run and of the reference at a step."""
        moments = (self.run.steps.index(step), self.reference.steps.index(step))
        return self.run.frame(field, moments[0]), self.reference.frame(field, moments[1])


def compare(folder: Path, reference: Path) -> Comparison:
    """Compare a run with a physics run of the same case.

    Parameters
    ----------
    folder : Path
        Run folder of the run.
    reference : Path
        Run folder of the physics run.

    Raises
    ------
    CouplerError
        If a file is missing or cut short, the reference is no physics run, or the two differ in grid, fields,
        number of steps, time step or start.

    Collective: no.
    """
    pair = open_pair(folder, reference)
    differences = {
        field: tuple(_difference(*pair.frames(field, step)) for step in pair.steps) for field in pair.reference.units
    }
    worst = max(differences, key=lambda field: differences[field][-1])
    ours, theirs = pair.run_summary.seconds, pair.reference_summary.seconds
    return Comparison(
        steps=pair.steps,
        times=tuple(pair.reference.times[pair.reference.steps.index(step)] for step in pair.steps),
        differences=differences,
        worst_field=worst,
        worst_difference=differences[worst][-1],
        loop_speedup=_ratio(theirs.total - theirs.setup, ours.total - ours.setup),
        total_speedup=_ratio(theirs.total, ours.total),
    )


def open_pair(folder: Path, reference: Path) -> Pair:
    """Open two run folders and make sure that comparing them means something.

    Raises
    ------
    CouplerError
        As :func:`compare`.

    Collective: no.
    """
    ours, theirs = _read_summary(folder), _read_summary(reference)
    run, physics = read_recording(folder / "fields.h5"), read_recording(reference / "fields.h5")
    shared = tuple(step for step in physics.steps if step in set(run.steps))
    pair = Pair(run, physics, ours, theirs, shared)
    wrong = _why_not(pair)
    if wrong:
        raise CouplerError(
            f"{folder} and {reference} cannot be compared, because {wrong}: run the same case twice, once with "
            "--set controller.mode=physics."
        )
    return pair


def _why_not(pair: Pair) -> str:
    """Say what keeps two runs from being compared; empty if nothing does."""
    run, physics = pair.run, pair.reference
    shapes = tuple(tuple(map(len, recording.centres)) for recording in (run, physics))
    mode, steps = pair.reference_summary.mode, (pair.run_summary.steps, pair.reference_summary.steps)
    if mode != "physics":
        return f"the second ran in mode {mode} and is no reference"
    if shapes[0] != shapes[1]:
        return f"their grids are {_times(shapes[0])} and {_times(shapes[1])} cells"
    if not np.allclose(run.lengths, physics.lengths, rtol=1e-9, atol=0.0):
        return f"their grids are {_times(run.lengths)} and {_times(physics.lengths)} long"
    if dict(run.units) != dict(physics.units):
        return f"their fields are {', '.join(run.units)} and {', '.join(physics.units)}, or in other units"
    if steps[0] != steps[1]:
        return f"they made {steps[0]} and {steps[1]} steps"
    if not pair.steps:
        return "there is no step at which both wrote their fields"
    return _why_not_in_time(pair)


def _why_not_in_time(pair: Pair) -> str:
    for step in pair.steps:
        run, physics = (recording.times[recording.steps.index(step)] for recording in (pair.run, pair.reference))
        if not np.isclose(run, physics, rtol=1e-9, atol=0.0):
            return f"at step {step} one was at t = {run:g} and the other at t = {physics:g}"
    if pair.steps[0] == 0:
        for field in pair.reference.units:
            if _difference(*pair.frames(field, 0)) > _SAME_START:
                return f'their field "{field}" is not the same at the start'
    return ""


def _difference(run: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    # A run that ended up in NaN or beyond all numbers is infinitely far off, and no reason for a warning.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        distance = np.sqrt(np.mean((run - reference) ** 2))
        relative = distance / np.ptp(reference)
    if distance == 0.0:
        return 0.0
    return float(relative) if np.isfinite(relative) else np.inf


def _read_summary(folder: Path) -> Summary:
    with reading(folder / "summary.json"):
        return read_summary(folder / "summary.json")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan


def _times(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
