"""``policies.png``: what each policy accepts over what it loses, stream by stream, and whether the target was kept."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from coupler.report.canvas import FAINT, INK, LINE, SERIES, TARGET, WIDTH, paint, quiet
from coupler.report.standings import Row

_COLOURS = {
    "budget": SERIES[0],
    "conformal_pid": SERIES[1],
    "proxima": SERIES[2],
    "static": SERIES[3],
    "conformal_static": SERIES[4],
    "isat": SERIES[5],
    "random": FAINT,
    "always": INK,
    "never": LINE,
}
_ACROSS, _PANEL_HEIGHT, _MARGIN = 4, 1.75, 0.85
# Losses below it are drawn at the left edge: "never" loses nothing.
_LEAST_LOSS = 1e-3
_KEPT, _BROKEN = "o", "X"


def draw_policies(name: str, rows: Sequence[Row], path: Path) -> Path | None:
    """Draw a benchmark of gate policies.

    A panel for each case has the accepted share over the true loss. Large symbols are policies as they come, small
    ones policies tuned with hindsight to the loss of ``budget``; a cross says that the running true loss was above the
    target in more than half of the seeds.

    Parameters
    ----------
    name : str
        Of the benchmark; the title.
    rows : sequence of mapping
        With ``true_loss``, ``accepted_share``, ``target_kept`` and ``target``.
    path : Path
        The PNG.

    Returns
    -------
    Path or None
        The PNG; None where there is nothing to draw.

    Collective: no.
    """
    cases: dict[str, list[Row]] = {}
    for row in rows:
        if "accepted_share" in row:
            cases.setdefault(str(row["case"]), []).append(row)
    if not cases:
        return None
    strips = math.ceil(len(cases) / _ACROSS)
    return paint(path, WIDTH, _PANEL_HEIGHT * strips + _MARGIN, lambda figure: _draw(figure, name, cases, strips))


def _draw(figure: Figure, name: str, cases: Mapping[str, Sequence[Row]], strips: int) -> None:
    figure.suptitle(f"{name}: accepted share over true loss", x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    grid = figure.subplots(strips, _ACROSS, sharex=True, squeeze=False)
    for axes in grid.flat[len(cases) :]:
        axes.set_visible(False)
    for axes, (case, rows) in zip(grid.flat, cases.items(), strict=False):
        axes.set_title(case)
        _draw_panel(axes, rows)
    for axes in grid[-1]:
        axes.set_xlabel("true loss per decision")
    for axes in grid[:, 0]:
        axes.set_ylabel("accepted share")
    systems = dict.fromkeys(str(row["system"]) for rows in cases.values() for row in rows)
    handles = [Line2D([], [], marker="o", linestyle="", color=_colour(system), label=system) for system in systems]
    handles += [
        Line2D([], [], marker=_BROKEN, linestyle="", color=FAINT, label="target broken on the way"),
        Line2D([], [], marker=_KEPT, markersize=3.0, linestyle="", color=FAINT, label="small: at budget's loss"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.2, handletextpad=0.2)


def _draw_panel(axes: Axes, rows: Sequence[Row]) -> None:
    quiet(axes)
    target = float(rows[0].get("target", math.nan))
    axes.set_xscale("log")
    axes.set_xlim(_LEAST_LOSS * 0.8, 1.2)
    axes.xaxis.set_major_locator(FixedLocator([1e-3, 1e-2, 1e-1, 1.0]))
    axes.xaxis.set_major_formatter(lambda value, _: "≤ 0.001" if value <= _LEAST_LOSS else f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvspan(target, 2.0, color=TARGET, alpha=0.08, linewidth=0)
    axes.axvline(target, color=TARGET, linewidth=1.0)
    # Ours on top of the others, and the small ones, which lie around it, on top of it.
    for row in sorted(rows, key=lambda row: row["system"] == "budget"):
        _mark(axes, row, "", 6.5)
    for row in rows:
        if row["system"] != "budget" and "equal_loss_true_loss" in row:
            _mark(axes, row, "equal_loss_", 3.5)
    axes.set_ylim(bottom=-0.03)


def _mark(axes: Axes, row: Row, kind: str, size: float) -> None:
    loss, share = max(float(row[f"{kind}true_loss"]), _LEAST_LOSS), float(row[f"{kind}accepted_share"])
    kept = float(row[f"{kind}target_kept"]) >= 0.5
    look: dict[str, Any] = {"color": _colour(str(row["system"])), "markeredgecolor": "white", "markeredgewidth": 0.5}
    low, high = (float(row.get(f"{kind}accepted_share_{end}", share)) for end in ("p10", "p90"))
    axes.plot([loss, loss], [low, high], color=look["color"], linewidth=1.0, alpha=0.6)
    axes.plot([loss], [share], marker=_KEPT if kept else _BROKEN, markersize=size, linestyle="", clip_on=False, **look)


def _colour(system: str) -> str:
    return _COLOURS.get(system, FAINT)
