"""``twins.png``: how far a run moved away from physics where its steps were run twice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from coupler.report.canvas import SEQUENTIAL, SERIES, WIDTH, paint, quiet
from coupler.report.recording import reading
from coupler.summary import TwinWindow, read_summary

# The light end of the colours would not be seen on paper.
_LIGHTEST = 0.85
# More lines than this cannot be told apart.
_LINES = 40
# So many ranges away, a run is beyond any scale.
_FARTHEST = 1e6
# Nor does anybody look at less than this share of the farthest.
_NEAREST = 1e-6
# A log axis may label its powers of ten only where there is more than one.
_DECADE = 10.0


def draw_twins(folder: Path) -> Path | None:
    """Draw the growth of the distance within every window, and the distance at the end of each over the run.

    Returns
    -------
    Path or None
        The picture; None where nothing was run twice or nothing moved, and there is nothing to draw.

    Raises
    ------
    CouplerError
        If ``summary.json`` is missing or cut short.

    Collective: no.
    """
    with reading(folder / "summary.json"):
        windows = read_summary(folder / "summary.json").twins
    if not moved(windows):
        return None
    return paint(folder / "twins.png", WIDTH, 2.7, lambda figure: fill_twins(figure, windows))


def moved(windows: Sequence[TwinWindow]) -> bool:
    """Whether there is a distance that can be drawn."""
    return bool(np.isfinite(_every_distance(windows)).any())


def fill_twins(figure: Figure, windows: Sequence[TwinWindow]) -> None:
    """Fill a figure with the distances of windows that :func:`moved`."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.0, 1.25))
    _draw_growth(left, windows, _by_distance(windows)[0])
    _draw_ends(right, windows)
    seen = _every_distance(windows)
    high = np.nanmax(seen)
    low = max(np.nanmin(seen), _NEAREST * high)
    left.set_yscale("log")
    left.set_ylim(low / 1.5, high * 1.5)
    left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    if high / low > _DECADE:
        left.yaxis.set_minor_formatter(NullFormatter())
    else:
        left.yaxis.set_minor_formatter(lambda value, _: f"{100 * value:.3g} %")
    left.set_ylabel("rms difference / range of physics")
    for axes in (left, right):
        quiet(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_growth(axes: Axes, windows: Sequence[TwinWindow], name: str) -> None:
    """Draw a line per window, the later the lighter; of many windows some, evenly over the run."""
    chosen = np.unique(np.linspace(0, len(windows) - 1, _LINES).round().astype(int)).tolist()
    norm = Normalize(windows[0].step, max(windows[-1].step, windows[0].step + 1))
    colours = colormaps[SEQUENTIAL]
    for window in (windows[number] for number in chosen):
        colour = colours(_LIGHTEST * float(norm(window.step)))
        growth = _shown(window.fields[name].growth)
        axes.plot(np.arange(len(growth)) + 1, growth, color=colour, linewidth=1.1, marker=".", markersize=3)
    axes.set_title(f"within a window: {name}")
    axes.set_xlabel("steps since the copy" + (" (later windows lighter)" if len(windows) > 1 else ""))


def _draw_ends(axes: Axes, windows: Sequence[TwinWindow]) -> None:
    steps = [window.step + window.steps - 1 for window in windows]
    names = _by_distance(windows)[: len(SERIES)]
    for name, colour in zip(sorted(names, key=list(windows[0].fields).index), SERIES, strict=False):
        ends = _shown([window.fields[name].rms_over_range for window in windows])
        axes.plot(steps, ends, color=colour, marker="o", markersize=2.2, linewidth=0.9, label=name)
    axes.set_xlim(0.0, 1.03 * steps[-1])
    axes.set_title("at the end of each window")
    axes.set_xlabel("step")
    axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))


def _by_distance(windows: Sequence[TwinWindow]) -> list[str]:
    """Name the fields, the one that was farthest from physics first."""
    most = {name: np.nan_to_num(_growth(windows, name)).max() for name in windows[0].fields}
    return sorted(most, key=lambda name: most[name], reverse=True)


def _every_distance(windows: Sequence[TwinWindow]) -> NDArray[np.float64]:
    return np.concatenate([_growth(windows, name) for name in windows[0].fields]) if windows else np.empty(0)


def _growth(windows: Sequence[TwinWindow], name: str) -> NDArray[np.float64]:
    return np.concatenate([_shown(window.fields[name].growth) for window in windows])


def _shown(distances: Sequence[float]) -> NDArray[np.float64]:
    """Leave out what a logarithmic axis cannot show: no distance at all, or one that is beyond any scale."""
    array = np.asarray(distances, np.float64)
    return np.where((array > 0) & (array < _FARTHEST), array, np.nan)
