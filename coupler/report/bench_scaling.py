"""``scaling.png``: the model of a step beside what was measured, and what it makes of many nodes, part by part."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from coupler.report.canvas import FAINT, INK, LINE, SERIES, WIDTH, paint, quiet
from coupler.report.standings import Row, seconds_text

_PARTS = ("work", "answer", "halo", "sum", "noise", "ledger", "samples", "looks", "takeover")
_COLOURS = dict(
    zip(_PARTS, ("#8fa3b5", SERIES[5], LINE, FAINT, "#d9dee3", SERIES[1], SERIES[3], SERIES[4], SERIES[2]), strict=True)
)
# What is faint in a bar would not be seen as a line.
_LINES = {"noise": "#9aa4ad", "halo": "#b08968"}
_HEIGHT, _BAR = 3.0, 0.38


def draw_scaling(name: str, rows: Sequence[Row], path: Path) -> Path | None:
    """Draw a benchmark of a step on many nodes.

    On the left a bar for each number of hosts, made of the model's parts, and beside it what was measured; on the right
    the parts of the model's step over the number of nodes, a line each.

    Parameters
    ----------
    name : str
        Of the benchmark; the title.
    rows : sequence of mapping
        Cases ``WAY/hosts/N`` with systems ``measured`` and ``model``, and ``cluster/N``; parts are columns ``PART_s``.
    path : Path
        The PNG.

    Returns
    -------
    Path or None
        The PNG; None where there is nothing to draw.

    Collective: no.
    """
    runs = [row for row in rows if "/hosts/" in str(row["case"])]
    clusters = [row for row in rows if str(row["case"]).startswith("cluster/")]
    if not runs or not clusters:
        return None
    return paint(path, WIDTH, _HEIGHT, lambda figure: _draw(figure, name, runs, clusters))


def _draw(figure: Figure, name: str, runs: Sequence[Row], clusters: Sequence[Row]) -> None:
    figure.suptitle(f"{name}: seconds of a step", x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.5))
    _draw_runs(left, runs)
    _draw_clusters(right, clusters)
    handles, labels = right.get_legend_handles_labels()
    measured, words = left.get_legend_handles_labels()
    figure.legend([*measured, *handles], [*words, *labels], loc="outside lower center", ncols=5)


def _draw_runs(axes: Axes, runs: Sequence[Row]) -> None:
    cases = list(dict.fromkeys(str(row["case"]) for row in runs))
    for row in runs:
        place = cases.index(str(row["case"]))
        if row["system"] == "model":
            bottom = 0.0
            for part in _PARTS:
                axes.bar(place - _BAR / 2, float(row[f"{part}_s"]), _BAR, bottom=bottom, color=_COLOURS[part])
                bottom += float(row[f"{part}_s"])
        else:
            middle = float(row["median_s"])
            reach = [[middle - float(row["p10_s"])], [float(row["p90_s"]) - middle]]
            words = "measured, 10 to 90 %" if place == 0 else None
            axes.errorbar([place + _BAR / 2], [middle], reach, fmt="o", color=INK, markersize=4, label=words)
    axes.set_xticks(range(len(cases)), [_words(case) for case in cases])
    axes.yaxis.set_major_formatter(lambda value, _: seconds_text(value) if value else "0")
    axes.set_title("hosts of this machine")
    quiet(axes)


def _words(case: str) -> str:
    way, _, hosts = case.split("/")
    return hosts if way == "with-ranks" else f"{hosts},\none server"


def _draw_clusters(axes: Axes, clusters: Sequence[Row]) -> None:
    nodes = [int(str(row["case"]).partition("/")[2]) for row in clusters]
    for part in _PARTS:
        seconds = [float(row[f"{part}_s"]) or math.nan for row in clusters]  # none has no place on the axis
        axes.plot(nodes, seconds, color=_LINES.get(part, _COLOURS[part]), label=part)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(nodes[0], nodes[-1])
    axes.set_xticks([10**power for power in range(int(math.log10(nodes[-1])) + 1)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
    axes.yaxis.set_major_formatter(lambda value, _: seconds_text(value))
    axes.set_xlabel("nodes of 64 ranks (arithmetic)")
    limit = clusters[0].get("limit_nodes")
    if limit is not None:
        axes.axvline(float(limit), color=INK, linewidth=0.6, linestyle=":")
        axes.set_title(f"{clusters[0]['limit']} takes a tenth of a step from {int(limit)} nodes on")
    quiet(axes)
