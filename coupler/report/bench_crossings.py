"""``certificate.png``: bounds of many redraws over the true loss, stream by stream, and how often each was crossed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from coupler.report.canvas import FAINT, INK, LINE, SERIES, TARGET, WIDTH, paint, quiet
from coupler.report.standings import Row

_COLOURS = {
    "certificate": SERIES[0],
    "peeking-interval": SERIES[1],
    "biased-coin": SERIES[3],
    "biased-coin-by-loss": SERIES[4],
}
# Hollow or not: what is crossed in all redraws lies on top of each other.
_MARKERS: dict[str, dict[str, Any]] = {"biased-coin": {"marker": "o", "markersize": 7.5, "fillstyle": "none"}}
_FANS = ("certificate", "peeking-interval")
_ACROSS = 4
_PANEL_HEIGHT, _LINE_HEIGHT, _MARGIN = 1.25, 0.16, 1.0
# A share of none is drawn at the left end of the logarithmic axis.
_LEAST_SHARE = 1e-4
_LOWEST, _HIGHEST = 0.8, 8.0


def draw_crossings(name: str, rows: Sequence[Row], path: Path) -> Path | None:
    """Draw a benchmark that redraws coins.

    A panel for each stream has the fan of the certified bound and of the interval that is peeked at, both over the true
    loss, so that what is below 1 is a broken promise, with one redraw of each. Below, a line for each stream has the
    shares of the redraws in which either was ever crossed.

    Parameters
    ----------
    name : str
        Of the benchmark; the title.
    rows : sequence of mapping
        With ``delta`` and ``crossed_share``; the smallest delta is drawn. Those with ``decisions_curve`` get a fan.
    path : Path
        The PNG.

    Returns
    -------
    Path or None
        The PNG; None where there is nothing to draw.

    Collective: no.
    """
    delta = min((float(row["delta"]) for row in rows if "crossed_share" in row), default=math.nan)
    found = [row for row in rows if row.get("delta") == delta and row["system"] in _COLOURS]
    if not found:
        return None
    fans = _by_case(row for row in found if row["system"] in _FANS and row.get("decisions_curve"))
    cases = _by_case(found)
    strips = math.ceil(len(fans) / _ACROSS)
    heights = [_PANEL_HEIGHT * strips, _LINE_HEIGHT * len(cases) + _MARGIN]

    def draw(figure: Figure) -> None:
        figure.suptitle(
            f"{name}: bound over true loss, δ = {delta:g}", x=0.01, ha="left", fontsize=9.5, fontweight="bold"
        )
        parts: Any = figure.subfigures(2, 1, height_ratios=[max(heights[0], 0.01), heights[1]])
        above, below = parts
        if strips:
            _draw_fans(above, fans, strips)
        _draw_shares(below.subplots(), cases, delta)

    return paint(path, WIDTH, sum(heights) + 0.3, draw)


def _by_case(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(str(row["case"]), {})[str(row["system"])] = row
    return cases


def _draw_fans(figure: SubFigure, fans: Mapping[str, Mapping[str, Row]], strips: int) -> None:
    grid = figure.subplots(strips, _ACROSS, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(fans) :]:
        axes.set_visible(False)
    for axes, (case, systems) in zip(grid.flat, fans.items(), strict=False):
        loss = 100 * float(next(iter(systems.values())).get("true_loss", math.nan))
        axes.set_title(case)
        _draw_panel(axes, systems)
        axes.text(0.97, 0.9, f"loss {loss:.2g} %", transform=axes.transAxes, ha="right", fontsize=6.5, color=FAINT)
    for axes in grid[-1]:
        axes.set_xlabel("decisions")


def _draw_panel(axes: Axes, systems: Mapping[str, Row]) -> None:
    quiet(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST, _HIGHEST)
    axes.yaxis.set_major_locator(FixedLocator([1.0, 2.0, 4.0, 8.0]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axhspan(_LOWEST, 1.0, color=TARGET, alpha=0.10, linewidth=0)
    axes.axhline(1.0, color=INK, linewidth=1.0)
    for system, row in systems.items():
        colour, at = _COLOURS[system], _curve(row, "decisions")
        axes.fill_between(at, _curve(row, "low"), _curve(row, "high"), color=colour, alpha=0.25, linewidth=0)
        axes.plot(at, _curve(row, "middle"), color=colour, linewidth=1.3)
        axes.plot(at, _curve(row, "single"), color=colour, linewidth=0.6, alpha=0.9)


def _draw_shares(axes: Axes, cases: Mapping[str, Mapping[str, Row]], delta: float) -> None:
    places = {case: -place for place, case in enumerate(cases)}
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.hlines(list(places.values()), 0, 1, transform=axes.get_yaxis_transform(), color=LINE, linewidth=0.4, alpha=0.6)
    axes.axvline(delta, color=INK, linewidth=1.0)
    axes.axvspan(delta, 1.5, color=TARGET, alpha=0.10, linewidth=0)
    for system, colour in _COLOURS.items():
        some = [(float(rows[system]["crossed_share"]), places[case]) for case, rows in cases.items() if system in rows]
        if some:
            shares, heights = np.array(some).T
            none = shares < _LEAST_SHARE
            look: dict[str, Any] = {"marker": "o", "markersize": 4.5, **_MARKERS.get(system, {})}
            axes.plot(shares[~none], heights[~none], linestyle="", color=colour, label=system, **look)
            axes.plot(np.full(none.sum(), _LEAST_SHARE), heights[none], "<", markersize=4.5, color=colour)
    axes.set_xscale("log")
    axes.set_xlim(_LEAST_SHARE * 0.8, 1.5)
    axes.set_xticks([1e-4, 1e-3, 1e-2, delta, 1.0], ["none", "0.1 %", "1 %", f"δ = {100 * delta:g} %", "100 %"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(list(places.values()), list(places))
    axes.set_title("share of the redraws in which the true loss was ever above the bound")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16 - 0.4 / max(len(cases), 1)), ncols=4, columnspacing=1.5)
    axes.tick_params(axis="x", labelcolor=FAINT)


def _curve(row: Row, name: str) -> NDArray[np.float64]:
    return np.array(str(row[f"{name}_curve"]).split(), dtype=np.float64)
