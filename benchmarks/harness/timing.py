"""Timing of several systems side by side: in turns, so that a disturbance of the machine meets all of them."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = dict[str, str | int | float]

Repeat = Callable[[int], NDArray[np.float64]]
"""``repeat(times)`` does the work so many times and gives the seconds of each."""

# Fewer say nothing about the machine's moods.
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Parameters
    ----------
    rounds : int
        Turns of every system.
    seconds : float
        What one turn of one system should last [s]; a single repetition may take longer.
    most, least : int
        Repetitions in a turn.
    limit : float
        Once three rounds are done and this long has passed, no further one is begun [s].
    """

    rounds: int = 5
    seconds: float = 0.2
    most: int = 1000
    least: int = 1
    limit: float = 60.0

    def repetitions(self, seconds_each: float) -> int:
        """Say how many fit into a turn."""
        return max(self.least, min(self.most, int(self.seconds / max(seconds_each, 1e-9))))


def each(work: Callable[[], object], before: Callable[[], object] | None = None) -> Repeat:
    """Turn a function into what :func:`in_turns` times.

    Parameters
    ----------
    work : callable
        What is timed, without arguments.
    before : callable, optional
        Done before each repetition, and not timed.
    """

    def repeat(times: int) -> NDArray[np.float64]:
        seconds = np.empty(times)
        collects = gc.isenabled()
        gc.disable()  # a collection in the middle of one repetition is nobody's merit
        try:
            for index in range(times):
                if before is not None:
                    before()
                started = time.perf_counter()
                work()
                seconds[index] = time.perf_counter() - started
        finally:
            if collects:
                gc.enable()
        return seconds

    return repeat


def in_turns(systems: Mapping[str, Repeat], effort: Effort) -> dict[str, NDArray[np.float64]]:
    """Time systems in turns; who begins changes from round to round.

    Parameters
    ----------
    systems : mapping of name to Repeat
        What to time. Each is warmed up first, which also tells how many repetitions fit into its turns.
    effort : Effort
        How long.

    Returns
    -------
    dict of name to ndarray (n,)
        Seconds of every repetition of all rounds.
    """
    times = {name: effort.repetitions(_seconds_each(repeat, effort)) for name, repeat in systems.items()}
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in systems}
    names = list(systems)
    ends = time.monotonic() + effort.limit
    for index in range(effort.rounds):
        if index >= _LEAST_ROUNDS and time.monotonic() > ends:
            break
        first = index % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(systems[name](times[name]))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def row(case: str, system: str, seconds: NDArray[np.float64], **facts: str | int | float) -> Row:
    """Make a row of a benchmark.

    Parameters
    ----------
    case, system : str
        What was measured.
    seconds : ndarray (n,)
        Its timings.
    facts
        Further columns.
    """
    return {
        "case": case,
        "system": system,
        "n": len(seconds),
        "median_s": float(np.median(seconds)),
        "p10_s": float(np.quantile(seconds, 0.1)),
        "p90_s": float(np.quantile(seconds, 0.9)),
        **facts,
    }


def _seconds_each(repeat: Repeat, effort: Effort) -> float:
    """Warm up, and say how long a repetition takes once that is done."""
    first = float(repeat(1)[0])
    if first > effort.seconds:  # nothing is cold for that long, except a compiler
        return float(repeat(1)[0])
    return float(np.median(repeat(min(20, effort.repetitions(first)))))
