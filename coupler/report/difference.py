"""``comparison.png``: a run and its reference side by side, and how they came apart."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from coupler.errors import CouplerError, did_you_mean
from coupler.report.canvas import DIVERGING, INK, SERIES, WIDTH, paint, quiet
from coupler.report.comparison import Comparison, Pair, compare, open_pair
from coupler.report.fields import bar, plane, show_plane, slice_note
from coupler.report.scale import Scale, name_with_unit, scale_of

# Where there are more fields than colours.
_DASHES = ("-", "--", ":")


def draw_comparison(folder: Path, reference: Path, *, field: str | None = None) -> Path:
    """Draw a field of the reference, of the run, and their difference at the last common step; below, all over time.

    Parameters
    ----------
    folder : Path
        Run folder of the run; the picture goes there.
    reference : Path
        Run folder of the physics run.
    field : str, optional
        Which field; the first if left out.

    Returns
    -------
    Path
        ``comparison.png``.

    Raises
    ------
    CouplerError
        As :func:`compare`, or if there is no such field.

    Collective: no.
    """
    pair, comparison = open_pair(folder, reference), compare(folder, reference)
    shown = next(iter(pair.reference.units)) if field is None else field
    if shown not in pair.reference.units:
        raise CouplerError(f'{folder} has no field "{shown}".{did_you_mean(shown, pair.reference.units)}')
    lines = len(pair.reference.centres) == 1
    upper = 2.4 if lines else 1.05 + 2.05 * float(np.clip(pair.reference.elongation, 0.4, 1.6))

    def fill(figure: Figure) -> None:
        (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(upper, 1.9))
        (_profiles if lines else _planes)(above, pair, shown)
        _draw_over_time(below.subplots(), comparison)

    return paint(folder / "comparison.png", WIDTH, upper + 1.9, fill)


def _planes(figure: SubFigure, pair: Pair, field: str) -> None:
    step, recording = pair.steps[-1], pair.reference
    run, physics = (plane(recording, frame) for frame in pair.frames(field, step))
    left, middle, right = figure.subplots(1, 3, sharex=True, sharey=True)
    scale = scale_of([physics, run])
    ours = pair.run_summary.mode
    for axes, frame, title in ((left, physics, "physics"), (middle, run, ours)):
        image = show_plane(axes, recording, frame, scale=scale)
        axes.set_title(title)
    moment = ", ".join(filter(None, [recording.moment(step), slice_note(recording)]))
    bar(figure, image, (left, middle), f"{scale.label(field, recording.units[field])} at {moment}", beside=2)
    change = run - physics
    most = float(np.max(np.abs(change), initial=0.0, where=np.isfinite(change))) or 1.0
    image = show_plane(right, recording, change, scale=Scale(-most, most, logarithmic=False), colours=DIVERGING)
    right.set_title(f"{ours} − physics")
    bar(figure, image, (right,), f"difference in {name_with_unit(field, recording.units[field])}")


def _profiles(figure: SubFigure, pair: Pair, field: str) -> None:
    step, recording = pair.steps[-1], pair.reference
    run, physics = pair.frames(field, step)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
    upper.plot(recording.centres[0], physics, color=INK, label="physics")
    upper.plot(recording.centres[0], run, color=SERIES[1], linestyle=(0, (3, 2)), label=pair.run_summary.mode)
    scale = scale_of([physics, run])
    scale.apply(upper)
    upper.set_ylabel(scale.label(field, recording.units[field]))
    upper.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0), title=recording.moment(step), alignment="left")
    lower.plot(recording.centres[0], run - physics, color=SERIES[1])
    lower.axhline(0.0, color=INK, linewidth=0.6)
    lower.set_ylabel("difference")
    lower.set_xlim(0.0, recording.lengths[0])
    lower.set_xlabel("axis 0")
    for axes in (upper, lower):
        quiet(axes)
    figure.align_ylabels([upper, lower])


def _draw_over_time(axes: Axes, comparison: Comparison) -> None:
    """Draw the differences of all fields; a logarithmic axis has no room for the start, where there is none."""
    for index, (field, values) in enumerate(comparison.differences.items()):
        dashes = _DASHES[index // len(SERIES) % len(_DASHES)]
        axes.plot(
            comparison.times, values, dashes, marker="o", markersize=3, color=SERIES[index % len(SERIES)], label=field
        )
    if any(0 < value < np.inf for values in comparison.differences.values() for value in values):
        axes.set_yscale("log", nonpositive="mask")
    axes.set_xlim(comparison.times[0], comparison.times[-1] * 1.02 or 1.0)
    axes.set_xlabel("time")
    axes.set_ylabel("relative L2 difference")
    axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))
    quiet(axes)
