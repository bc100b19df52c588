"""Where the seconds went: activities of the slowest rank, truth and waiting of every rank, and what it means."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupler.records import Decision, EventKind
from coupler.report.canvas import LINE, SERIES, WIDTH
from coupler.report.page.blocks import Block, Drawn, Grid, Words
from coupler.report.page.dossier import Dossier
from coupler.report.page.picture import draw_picture
from coupler.report.standings import seconds_text

_ACTIVITIES = {
    "setup": "#a3adb7",
    "truth": SERIES[1],
    "wait": SERIES[4],
    "gather": "#8ecae6",
    "gate": SERIES[0],
    "scatter": "#5b8fb0",
    "halo": SERIES[2],
    "io": "#a58a5b",
    "sync": "#9b72aa",
    "learn": SERIES[3],
    "twin": SERIES[5],
}
_REST = "kernel and all else"
# More ranks than these are not drawn one by one.
_RANKS = 24
# What a letter of a name takes of a bar; parts that are narrower than their name have it beside the bar.
_LETTER = 0.009


def seconds_blocks(run: Dossier, page: Path) -> Sequence[Block]:
    """Show what the slowest rank spent by activity, and what every rank spent on truth and waiting."""
    parts = {} if run.summary is None else activities(run)
    rows = None if run.ledger is None or not len(run.ledger.records) else run.ledger.records
    if not parts and rows is None:
        return [Words("Nothing has been timed yet.", quiet=True)]
    ranks = 0 if rows is None else int(rows["rank"].max()) + 1
    shown = min(ranks, _RANKS)
    caption = ("Wall-clock seconds. " + ("Above: the slowest rank of each activity. " if parts else "")) + (
        f"{'Below: ' if parts else ''}truth and waiting of {_which(ranks)}, from the ledger." if shown else ""
    )

    def fill(figure: Figure) -> None:
        panels = figure.subplots(
            bool(parts) + bool(shown),
            1,
            squeeze=False,
            height_ratios=[1.0] * bool(parts) + [0.4 + 0.35 * shown] * bool(shown),
        )[:, 0]
        if parts:
            _draw_activities(panels[0], parts)
        if rows is not None:
            _draw_ranks(panels[-1], rows)

    picture = draw_picture(
        page,
        f"{run.name}-seconds",
        caption,
        fill,
        width=WIDTH,
        height=1.4 * bool(parts) + (0.75 + 0.24 * shown) * bool(shown),
    )
    return [Drawn(picture), *([_table(parts)] if parts else [])]


def activities(run: Dossier) -> Mapping[str, float]:
    """Give the seconds of the slowest rank by activity, what no activity claims last; those that took any."""
    assert run.summary is not None
    seconds = run.summary.seconds.model_dump()
    parts = {name: seconds[name] for name in _ACTIVITIES}
    # Each is the slowest rank's own, so together they may come to more than the total.
    parts[_REST] = max(0.0, seconds["total"] - sum(parts.values()))
    return {name: spent for name, spent in parts.items() if spent > 0}


def economy_blocks(run: Dossier) -> Sequence[Block]:
    """Say in words what the surrogate saved and what it cost."""
    if not run.asks:
        return [Words("Physics only: nothing was saved and nothing was spent on a model.", quiet=True)]
    summary = run.summary
    if summary is None:
        return [Words("What it saved is worked out when the run ends.", quiet=True)]
    truth, answer = summary.truth_seconds_per_element, summary.surrogate_seconds_per_element
    said = [f"By its own truth calls, the loop ran {summary.speedup_estimate:.2f} times as fast as physics alone."]
    if truth > 0 and answer > 0:
        said.append(
            f"The truth of an element took {seconds_text(truth)} of processor time, asking the surrogate "
            f"{seconds_text(answer)}: {_cheaper(truth / answer)}."
        )
    said.append(
        f"{run.share(Decision.ACCEPTED):.1%} of the decisions were accepted, {run.share(Decision.AUDITED):.1%} "
        f"audited, and {1 - run.share(Decision.ACCEPTED):.1%} computed by the truth in all."
    )
    if summary.shared.elements:
        said.append(f"{summary.shared.elements:,} elements were computed by a neighbour that had nothing left to do.")
    if summary.wait_hidden_share:
        said.append(f"Of the time between questions and answers, {summary.wait_hidden_share:.0%} was not waited for.")
    switches = [event for event in run.events if event.kind in (EventKind.SWITCHED_OFF, EventKind.SWITCHED_ON)]
    said += [f"From step {event.step} on: {event.sentence}." for event in switches[-4:]]
    return [Words(" ".join(said))]


def _cheaper(ratio: float) -> str:
    return f"{ratio:.3g} times cheaper" if ratio >= 1 else f"{1 / ratio:.3g} times dearer, so it could save nothing"


def _which(ranks: int) -> str:
    return "every rank" if ranks <= _RANKS else f"the {_RANKS} ranks of {ranks} that spent most"


def _draw_activities(axes: Axes, parts: Mapping[str, float]) -> None:
    total, left = sum(parts.values()), 0.0
    for name, spent in parts.items():
        colour, wide = _ACTIVITIES.get(name, LINE), spent > _LETTER * max(len(name), len(seconds_text(spent))) * total
        beside = None if wide else f"{name} {seconds_text(spent)}"
        axes.barh(0, spent, left=left, height=0.6, color=colour, linewidth=0, label=beside)
        if wide:
            axes.text(
                left + spent / 2,
                0,
                f"{name}\n{seconds_text(spent)}",
                ha="center",
                va="center",
                fontsize=7,
                color="#14181d",
            )
        left += spent
    axes.set_xlim(0, total)
    axes.set_yticks([])
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.15), fontsize=6.5, labelspacing=0.15, handlelength=1.0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("seconds")


def _draw_ranks(axes: Axes, rows: NDArray[np.void]) -> None:
    ranks = int(rows["rank"].max()) + 1
    truth, wait = np.zeros(ranks), np.zeros(ranks)
    np.add.at(truth, rows["rank"], rows["truth_seconds"])
    np.add.at(wait, rows["rank"], rows["wait_seconds"])
    shown = np.sort(np.argsort(-(truth + wait), kind="stable")[:_RANKS])
    places = np.arange(len(shown))
    axes.barh(places, truth[shown], height=0.7, color=_ACTIVITIES["truth"], label="truth", linewidth=0)
    axes.barh(places, wait[shown], left=truth[shown], height=0.7, color=_ACTIVITIES["wait"], label="wait", linewidth=0)
    axes.set_yticks(places, [f"rank {rank}" for rank in shown])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))


def _table(parts: Mapping[str, float]) -> Grid:
    total = sum(parts.values())
    return Grid(
        ("activity", "time", "share"),
        [
            (name, seconds_text(spent), f"{spent / total:.1%}")
            for name, spent in sorted(parts.items(), key=lambda one: -one[1])
        ],
    )
