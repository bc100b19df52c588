"""Twin windows: some steps are run twice, once by physics alone, and how far the run moved away is measured.

The certificate bounds one-call errors on the states the run visited. What they grow into is up to the physics; here it
is looked at. A copy of the state, the twin, is advanced right after every step of the run, so that one copy gives the
whole growth of the distance (decision 0014).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.case import Case, ControllerSection
from coupler.checkpoint import Plain, from_plain, to_plain
from coupler.clock import Stopwatch
from coupler.field import State
from coupler.grid import Grid
from coupler.kernel import Kernel, evaluate_truth
from coupler.summary import TwinDistance, TwinWindow

# Squares of differences are added up as whole numbers, the same on any number of ranks: a double has so many bits, and
# a sum of all cells must fit into so many.
_MOST_BITS, _SUM_BITS = 52, 62


class Distance(NamedTuple):
    """How far two states are from each other in one field.

    Attributes
    ----------
    rms_over_range : float
        Root mean square of the difference over all cells, over the range of the second state; 0 where there is no
        difference, infinite where there is one and the second state is the same everywhere, NaN where one of the two
        is not finite.
    largest : float
        Largest difference of a cell, in the field's unit.
    """

    rms_over_range: float
    largest: float


class TwinWindows:
    """The twin of a run: every so many steps a copy of its state goes on by physics alone for a few steps.

    A window begins after every ``controller.twin_every`` steps and ends after ``controller.twin_steps`` more, or with
    the run. That follows from the step's number alone, so all ranks are in the same window.

    Attributes
    ----------
    windows : list of TwinWindow
        Those that have ended, the same on every rank.

    Parameters
    ----------
    kernel : Kernel
        Whose ``step`` advances run and twin; it must depend on the state only.
    grid : Grid
        Where.
    case : Case
        When the windows are, and the time step.
    stopwatch : Stopwatch
        Where the seconds are charged, as ``twin``.
    """

    def __init__(self, kernel: Kernel, grid: Grid, case: Case, stopwatch: Stopwatch) -> None:
        self._kernel, self._grid, self._run, self._stopwatch = kernel, grid, case.run, stopwatch
        self._every, self._longest = case.controller.twin_every, case.controller.twin_steps
        self._twin: State | None = None  # made once: a state that is exchanged has a plan of its own
        self._first = 0  # of the window that is open
        self._growth: list[dict[str, Distance]] = []
        self.windows: list[TwinWindow] = []

    @property
    def fields(self) -> State | None:
        """The twin's own fields while a window is open; None otherwise."""
        return self._twin if self._first else None

    @property
    def memory(self) -> Plain:
        """What is needed to go on besides :attr:`fields`, as plain data."""
        windows = [window.model_dump() for window in self.windows]
        return to_plain({"first": self._first, "growth": self._growth, "windows": windows})

    def resume(self, memory: Plain) -> State | None:
        """Go on from what was known; the twin's fields, if a window is open, are to be filled in by the caller.

        Collective: no.
        """
        known = from_plain(memory, {"Distance": Distance})
        self._first, self._growth = known["first"], known["growth"]
        self.windows = [TwinWindow(**window) for window in known["windows"]]
        if self._first:
            self._twin = self._grid.state(self._kernel.fields)
        return self.fields

    def follow(self, step: int, state: State) -> TwinWindow | None:
        """Go on with the twin after a step of the run, where a window is open; begin one where it is due.

        Parameters
        ----------
        step : int
            The step the run has just made.
        state : State
            Where it came to; left as it is.

        Returns
        -------
        TwinWindow or None
            The window that ended with this step, if one did.

        Collective: yes, in the steps of a window.
        """
        if not self._every:
            return None
        halo = self._grid.exchange_seconds
        with self._stopwatch.timing("twin"):
            ended = self._advance(step, state) if self._first else None
            if step % self._every == 0 and step < self._run.steps:
                self._begin(step + 1, state)
        self._grid.exchange_seconds = halo  # the twin's halos are the twin's
        return ended

    def _begin(self, first: int, state: State) -> None:
        if self._twin is None:
            self._twin = self._grid.state(self._kernel.fields)
        self._twin.copy_from(state)
        self._first, self._growth = first, []

    def _advance(self, step: int, state: State) -> TwinWindow | None:
        assert self._twin is not None
        self._kernel.step(self._twin, self._grid, self._run.dt, evaluate_truth)
        self._twin.time = state.time
        self._growth.append(distances(state, self._twin, self._grid))
        if len(self._growth) < self._longest and step < self._run.steps:
            return None
        window = TwinWindow(step=self._first, steps=len(self._growth), fields=_fields(self._growth))
        self.windows.append(window)
        self._first = 0
        return window


def distances(state: State, physics: State, grid: Grid) -> dict[str, Distance]:
    """Measure how far a state is from that of physics, field by field.

    Parameters
    ----------
    state, physics : State
        This rank's part of the two.
    grid : Grid
        Where they are.

    Returns
    -------
    dict of str to Distance
        Bitwise the same on every rank, and on any number of ranks.

    Collective: yes.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite any more is said by the distance
        differences = [np.abs(local.interior - physics[name].interior) for name, local in state.items()]
        ends = np.array(
            [
                (difference.max(), physics[name].interior.max(), (-physics[name].interior).max())
                for name, difference in zip(state, differences, strict=True)
            ]
        )
        largest, highest, lowest = grid.collect(ends).max(axis=0).T
        cells = math.prod(grid.shape)
        unit = 2.0 ** min(_MOST_BITS, _SUM_BITS - cells.bit_length())
        squares = np.array([_squares(one, most, unit) for one, most in zip(differences, largest, strict=True)])
        means = grid.collect(squares).sum(axis=0) / (unit * cells)
        ranges = highest + lowest
    return {
        name: Distance(_over_range(most, mean, extent), most)
        for name, most, mean, extent in zip(state, largest.tolist(), means.tolist(), ranges.tolist(), strict=True)
    }


def sentence(windows: Sequence[TwinWindow], section: ControllerSection) -> str:
    """Say what the windows of a run showed, with its denominator.

    Parameters
    ----------
    windows : sequence of TwinWindow
        All of them.
    section : ControllerSection
        What was asked for; its ``twin_every`` is above 0.
    """
    if not windows:
        return f"No step was run twice: the run ended before the first window, after {section.twin_every} steps."
    name, at = _farthest(windows)
    distance = max(_moved(window, name) for window in windows)
    begin = f"Run twice over {_windows(windows)}, the state "
    if math.isnan(_moved(at, name)):
        return f"{begin}was not finite any more: {name} in the window from step {at.step} on, in the run or its twin."
    if distance == 0.0:
        return f"{begin}did not move away from physics in any cell."
    median = float(np.median([_moved(window, name) for window in windows]))
    moved = (
        f"{begin}moved away from physics by at most {_percent(distance)} of the range of {name} "
        f"(root mean square over the cells; median of the windows {_percent(median)})."
    )
    if section.mode in ("physics", "shadow"):
        moved += (
            f" In mode {section.mode} only the kernel can have moved it, by keeping state of its own: `coupler check` "
            "finds out."
        )
    return moved


def window_line(window: TwinWindow) -> str:
    """Say in one line what a window showed, field by field, at its end."""
    fields = ", ".join(f"{_percent(one.rms_over_range)} of {name}" for name, one in window.fields.items())
    return f"step {window.step + window.steps - 1:>5}  away from physics after {window.steps} steps run twice: {fields}"


def _fields(growth: Sequence[Mapping[str, Distance]]) -> dict[str, TwinDistance]:
    return {
        name: TwinDistance(
            rms_over_range=last.rms_over_range,
            largest=last.largest,
            growth=[moment[name].rms_over_range for moment in growth],
        )
        for name, last in growth[-1].items()
    }


def _squares(difference: NDArray[np.float64], largest: float, unit: float) -> int:
    """Add up squares in units of the largest one; whole numbers, so that no order of adding makes a difference."""
    if not 0.0 < largest < math.inf:
        return 0
    return int(np.rint((difference / largest) ** 2 * unit).astype(np.int64).sum())


def _over_range(largest: float, mean_square: float, extent: float) -> float:
    if largest == 0.0:
        return 0.0
    if not (math.isfinite(largest) and math.isfinite(extent)):
        return math.nan
    return largest * math.sqrt(mean_square) / extent if extent else math.inf


def _moved(window: TwinWindow, name: str) -> float:
    """Give how far a field was from physics at the most in a window; NaN if it was not finite once."""
    return float(np.max(window.fields[name].growth))


class _Place(NamedTuple):
    name: str
    window: TwinWindow


def _farthest(windows: Sequence[TwinWindow]) -> _Place:
    """Name the field that moved farthest and the window where it did; what is not finite is farther than all."""
    places = [_Place(name, window) for window in windows for name in window.fields]
    moved = np.array([_moved(place.window, place.name) for place in places])
    return places[int(np.argmax(np.where(np.isnan(moved), math.inf, moved)))]


def _windows(windows: Sequence[TwinWindow]) -> str:
    count, steps, last = len(windows), windows[0].steps, windows[-1].steps
    said = f"{count} window{'s' if count > 1 else ''} of {steps} step{'s' if steps > 1 else ''}"
    return said if last == steps else f"{said} (the last of {last})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
