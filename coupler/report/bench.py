"""``NAME.png``: a benchmark at a glance, from its rows: every system in every case, beside ours."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from coupler.report.bench_crossings import draw_crossings
from coupler.report.bench_policies import draw_policies
from coupler.report.bench_scaling import draw_scaling
from coupler.report.canvas import FAINT, FAMILIES, INK, LINE, WIDTH, paint, quiet
from coupler.report.standings import (
    Row,
    Standing,
    by_case,
    from_fast_to_slow,
    ratio_text,
    seconds_text,
    standings,
    timed_columns,
)

# Panels side by side: all cases that belong together if they fit, else three.
_MOST_ACROSS, _PANELS_ACROSS = 4, 3
# Height of a system's line, of what a panel needs beside its lines, and of the title [inch].
_LINE_HEIGHT, _PANEL_HEIGHT, _TITLE_HEIGHT = 0.17, 0.52, 0.3
# What a ratio needs to the right of its dot, as a share of the panel's width, where that is a third of the page.
_LABEL_SHARE = 0.3
# From so large a ratio on within any panel, equal ratios are equal distances.
_LOG_FROM = 4.0
# Most numbers along the axis of a panel, and steps between them, the coarsest first.
_TICKS = 4
_TICKS_OF_A_DECADE = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(range(1, 10)))
_LEGEND = "median, and from the 10 to the 90 % quantile; times over ours"
_SMALL = 6.5
# Lines that end closer to each other than this share of the axis push their names apart.
_NAME_ROOM = 0.052


def draw_bench(name: str, rows: Sequence[Row], path: Path) -> Path | None:
    """Draw the rows of one benchmark.

    Where it is about the time added by an exchange, and cases are numbers of ranks, that time goes over the ranks, a
    line for each system, and other cases are left to the table. Everything else gets a panel for each case and a line
    of it for each system, with the ratio to ours. Redraws of coins, gate policies and a step on many nodes have
    pictures of their own.

    Parameters
    ----------
    name : str
        Of the benchmark; the title.
    rows : sequence of mapping
        As its ``run`` gives them.
    path : Path
        The PNG.

    Returns
    -------
    Path or None
        The PNG; None where no row has a time and there is nothing to draw.

    Collective: no.
    """
    if any("crossed_share" in row for row in rows):
        return draw_crossings(name, rows, path)
    if any("accepted_share" in row for row in rows):
        return draw_policies(name, rows, path)
    if any("takeover_s" in row for row in rows):
        return draw_scaling(name, rows, path)
    found = [standing for standing in standings(rows) if math.isfinite(standing.seconds)]
    if not found:
        return None
    growing = [standing for standing in found if _ranks(standing.case)]
    if timed_columns(rows)[0] == "added_s" and len(by_case(growing)) > 1:
        return paint(path, WIDTH, 3.4, lambda figure: _draw_growth(figure, name, growing))
    page = _Page.of(found)
    return paint(path, WIDTH, page.height, lambda figure: _draw_cases(figure, name, page))


@dataclass(frozen=True)
class _Strip:
    """Panels side by side, with the same systems.

    Parameters
    ----------
    cases : mapping of case to list of Standing
        A panel each.
    systems : mapping of system to Standing
        The lines of every panel, from top to bottom, with any standing of theirs.
    """

    cases: Mapping[str, Sequence[Standing]]
    systems: Mapping[str, Standing]


@dataclass(frozen=True)
class _Page:
    """The panels of a picture.

    Parameters
    ----------
    strips : sequence of _Strip
        From top to bottom; cases that differ in their last part only stay together.
    across : int
        Panels in a full strip.
    logarithmic : bool
        Whether equal ratios are equal distances.
    """

    strips: Sequence[_Strip]
    across: int
    logarithmic: bool

    @classmethod
    def of(cls, found: Sequence[Standing]) -> "_Page":
        families: dict[str, list[Standing]] = {}
        for standing in found:
            families.setdefault(standing.case.rpartition("/")[0], []).append(standing)
        largest = max(len(by_case(family)) for family in families.values())
        across = largest if largest <= _MOST_ACROSS else _PANELS_ACROSS
        strips: list[_Strip] = []
        for family in families.values():
            cases, order = by_case(family), from_fast_to_slow(family)
            names = list(cases)
            cuts = (names[first : first + across] for first in range(0, len(names), across))
            strips += [_Strip({name: cases[name] for name in cut}, order) for cut in cuts]
        spans = [_positive(standing.seconds for standing in case) for case in by_case(found).values()]
        wide = any(len(span) > 0 and span.max() > _LOG_FROM * span.min() for span in spans)
        return cls(strips, across, wide)

    @property
    def heights(self) -> list[float]:
        return [_PANEL_HEIGHT + _LINE_HEIGHT * len(strip.systems) for strip in self.strips]

    @property
    def height(self) -> float:
        return _TITLE_HEIGHT + sum(self.heights)


def _draw_cases(figure: Figure, name: str, page: _Page) -> None:
    figure.suptitle(name, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    figure.text(0.99, 1.0 - 0.06 / page.height, _LEGEND, ha="right", va="top", fontsize=_SMALL, color=FAINT)
    grid = figure.subplots(len(page.strips), page.across, sharey="row", squeeze=False, height_ratios=page.heights)
    for panels, strip in zip(grid, page.strips, strict=True):
        places = {system: -place for place, system in enumerate(strip.systems)}
        for axes in panels[len(strip.cases) :]:
            axes.set_visible(False)
        for axes, (case, group) in zip(panels, strip.cases.items(), strict=False):
            axes.set_title(case)
            _set_scale(axes, group, page)
            _draw_panel(axes, group, places)
        panels[0].set_ylim(0.6 - len(places), 0.6)
        panels[0].set_yticks(list(places.values()), list(places))
        for label, standing in zip(panels[0].get_yticklabels(), strip.systems.values(), strict=True):
            label.set_color(INK if standing.ours else FAINT)
            label.set_fontweight("bold" if standing.reference else "normal")


def _draw_panel(axes: Axes, group: Sequence[Standing], places: Mapping[str, int]) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.hlines(list(places.values()), 0, 1, transform=axes.get_yaxis_transform(), color=LINE, linewidth=0.4, alpha=0.6)
    for standing in group:
        place, colour = places[standing.system], _colour(standing)
        if standing.reference:
            axes.axvline(standing.seconds, color=colour, linewidth=0.8, alpha=0.45, zorder=1)
        axes.plot([standing.low, standing.high], [place, place], color=colour, linewidth=1.6, alpha=0.45)
        marker, size = ("|", 9.0) if standing.limit else ("o", 6.5 if standing.reference else 4.5)
        axes.plot([standing.seconds], [place], marker=marker, markersize=size, markeredgewidth=1.4, color=colour)
        axes.annotate(
            seconds_text(standing.seconds) if standing.reference else ratio_text(standing.ratio),
            (max(standing.high, standing.seconds), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=_SMALL,
            fontweight="bold" if standing.reference else "normal",
            color=INK if standing.ours else FAINT,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )


def _set_scale(axes: Axes, group: Sequence[Standing], page: _Page) -> None:
    """Leave room for the ratios on the right, and write times with their units."""
    share = _LABEL_SHARE * page.across / _PANELS_ACROSS
    values = [value for standing in group for value in (standing.low, standing.seconds, standing.high)]
    if page.logarithmic:
        positive = _positive(values)
        low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1.0)
        decades = max(math.log10(high / low), 0.5)
        axes.set_xscale("log")
        axes.set_xlim(low / 10 ** (0.1 * decades), high * 10 ** (decades * share / (1.0 - share)))
        axes.xaxis.set_major_locator(FixedLocator(_round_numbers(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        low, high = min(0.0, *values), max(values)
        axes.set_xlim(low, high + (high - low) * share / (1.0 - share))
        axes.xaxis.set_major_locator(MaxNLocator(_TICKS - 1))
    axes.xaxis.set_major_formatter(lambda value, _: _tick_text(value))
    axes.tick_params(axis="x", labelsize=_SMALL)


def _round_numbers(low: float, high: float) -> list[float]:
    """Choose numbers for a logarithmic axis: at least two if any steps give them, and no more than fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _TICKS_OF_A_DECADE:
        numbers = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        inside = [number for number in numbers if low <= number <= high]
        if len(inside) > 1:
            break
    return inside[:: -(-len(inside) // _TICKS)] if inside else []


def _draw_growth(figure: Figure, name: str, found: Sequence[Standing]) -> None:
    axes = figure.subplots()
    lines: dict[str, list[Standing]] = {}
    for standing in sorted(found, key=lambda standing: _ranks(standing.case)):
        if standing.seconds > 0:  # noise may make an exchange cheaper than none, which this axis cannot show
            lines.setdefault(standing.system, []).append(standing)
    for line in lines.values():
        at = [_ranks(standing.case) for standing in line]
        times = [standing.seconds for standing in line]
        reach = [
            [max(standing.seconds - standing.low, 0.0) for standing in line],
            [max(standing.high - standing.seconds, 0.0) for standing in line],
        ]
        colour = _colour(line[-1])
        width, front = (2.2, 3) if line[-1].reference else (1.2, 2)
        axes.plot(at, times, color=colour, linewidth=width, marker="o", markersize=2 * width + 1, zorder=front)
        axes.errorbar(at, times, reach, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.6, zorder=front)
    counts = sorted({_ranks(standing.case) for standing in found})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(counts[0] / 1.1, counts[-1] * 1.1)
    axes.set_xticks(counts, [f"{count}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: _tick_text(value))
    axes.set_xlabel("ranks")
    axes.set_title(name, fontsize=9.5, fontweight="bold")
    axes.set_title(f"time added to a step, and over ours on {counts[-1]} ranks", loc="right", color=FAINT)
    quiet(axes)
    _name_lines(axes, [line[-1] for line in lines.values()])


def _name_lines(axes: Axes, ends: Sequence[Standing]) -> None:
    """Write the names right of the lines, moved apart where they would touch."""
    bottom, top = (math.log(limit) for limit in axes.get_ylim())
    order = sorted(ends, key=lambda standing: standing.seconds)
    wanted = [(math.log(standing.seconds) - bottom) / (top - bottom) for standing in order]
    for standing, height in zip(order, _apart(wanted, _NAME_ROOM), strict=True):
        time, ratio = seconds_text(standing.seconds), "" if standing.reference else ratio_text(standing.ratio)
        axes.text(
            1.02,
            height,
            "  ".join(filter(None, (standing.system, time, ratio))),
            transform=axes.transAxes,
            va="center_baseline",
            fontsize=7.5,
            fontweight="bold" if standing.reference else "normal",
            color=_colour(standing),
        )


def _apart(wanted: Sequence[float], room: float) -> list[float]:
    """Move ascending numbers as little as need be, so that neighbours are at least so far apart."""
    groups: list[list[float]] = []
    for wish in wanted:
        groups.append([wish])
        while len(groups) > 1 and _edge(groups[-2], room) > _edge(groups[-1], -room):
            touching = groups.pop()
            groups[-1].extend(touching)
    return [
        float(np.mean(group)) + room * (place - (len(group) - 1) / 2) for group in groups for place in range(len(group))
    ]


def _edge(group: Sequence[float], room: float) -> float:
    """Where a group of names ends: above for a positive room, below for a negative one."""
    return float(np.mean(group)) + room * len(group) / 2


def _positive(values: Iterable[float]) -> NDArray[np.float64]:
    array = np.fromiter(values, np.float64)
    return array[array > 0]


def _ranks(case: str) -> int:
    """Read the number of ranks from a case like ``ranks/8``; 0 if it is none."""
    found = re.fullmatch(r"ranks/(\d+)", case)
    return int(found[1]) if found else 0


def _colour(standing: Standing) -> str:
    if standing.limit:
        return INK
    return next((colour for family, colour in FAMILIES.items() if standing.system.startswith(family)), FAINT)


def _tick_text(value: float) -> str:
    """Write a round number of seconds: ``10 µs`` where :func:`seconds_text` has ``10.0 µs``."""
    number, _, unit = seconds_text(value).partition(" ")
    return f"{float(number):g} {unit}" if value else "0"
