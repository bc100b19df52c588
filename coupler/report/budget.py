"""``budget.png``: what became of the decisions of a run, and what was certified of them, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupler.ledger import read_ledger
from coupler.progress import Progress, progress_of
from coupler.records import Decision, Reason
from coupler.report.canvas import DECISIONS, FAINT, INK, SERIES, TARGET, WIDTH, paint, quiet
from coupler.report.recording import reading
from coupler.summary import ModelSummary, read_summary

COLUMNS = 400
"""More than so many columns a page does not resolve: neighbouring steps are drawn together."""

# Share of the width that a letter of a model's name needs.
_LETTER = 0.012


@dataclass(frozen=True)
class Shares:
    """Decisions over time, all ranks and operators together.

    Parameters
    ----------
    edges : ndarray (columns + 1,)
        First step of every column, and one past the last step.
    counts : mapping of Decision to ndarray (columns,) of int64
        Decisions in every column.
    """

    edges: NDArray[np.int64]
    counts: Mapping[Decision, NDArray[np.int64]]

    @property
    def total(self) -> NDArray[np.int64]:
        """All decisions in every column, (columns,)."""
        total: NDArray[np.int64] = np.sum(list(self.counts.values()), axis=0)
        return total

    def share(self, decision: Decision) -> float:
        """Share of a category over the whole run."""
        return float(self.counts[decision].sum() / max(self.total.sum(), 1))


@dataclass(frozen=True)
class Course:
    """The course of a run's budget.

    Parameters
    ----------
    decisions : Shares
        What became of the elements.
    metrics : sequence of Progress
        One per step, at least one.
    models : sequence of ModelSummary
        Versions that took over.
    target : float
        The bound that was asked for.
    """

    decisions: Shares
    metrics: Sequence[Progress]
    models: Sequence[ModelSummary]
    target: float


def shares(rows: NDArray[np.void], columns: int) -> Shares:
    """Add up a ledger in at most so many columns of equally many steps.

    Parameters
    ----------
    rows : ndarray of ledger records, at least one
        As :func:`coupler.ledger.read_ledger` gives them.
    columns : int
        Most columns.

    Collective: no.
    """
    first, last = int(rows["step"].min()), int(rows["step"].max())
    width = -(-(last - first + 1) // columns)
    edges = np.append(np.arange(first, last + 1, width), last + 1)
    place = (rows["step"] - first) // width
    counts = {decision: np.zeros(len(edges) - 1, np.int64) for decision in DECISIONS}
    for reason in Reason:
        np.add.at(counts[reason.decision], place, rows["reasons"][:, reason])
    return Shares(edges, counts)


def shares_over(steps: Sequence[Progress], columns: int) -> Shares:
    """Add up the metrics of a run in at most so many columns of equally many steps; they are newer than a ledger.

    Parameters
    ----------
    steps : sequence of Progress
        At least one.
    columns : int
        Most columns.

    Collective: no.
    """
    numbers = np.array([progress.step for progress in steps])
    first, last = int(numbers.min()), int(numbers.max())
    width = -(-(last - first + 1) // columns)
    edges = np.append(np.arange(first, last + 1, width), last + 1)
    counts = {decision: np.zeros(len(edges) - 1, np.int64) for decision in DECISIONS}
    for decision, column in counts.items():
        taken = [progress.decisions.get(decision.name.lower(), 0) for progress in steps]
        np.add.at(column, (numbers - first) // width, taken)
    return Shares(edges, counts)


def draw_budget(folder: Path) -> Path | None:
    """Draw shares of decisions, certified loss and threshold over the steps of a run.

    Returns
    -------
    Path or None
        The picture; None where nothing was ever asked and there is nothing to draw.

    Raises
    ------
    CouplerError
        If ``summary.json``, ``ledger.h5`` or ``metrics.jsonl`` is missing or cut short.

    Collective: no.
    """
    with reading(folder / "summary.json"):
        summary = read_summary(folder / "summary.json")
    if summary.mode == "physics":
        return None
    with reading(folder / "ledger.h5"):
        rows = read_ledger(folder / "ledger.h5")
    metrics = _read_metrics(folder / "metrics.jsonl")
    if not (len(rows) and metrics):
        return None
    course = Course(shares(rows, COLUMNS), metrics, summary.models, summary.certificate.target)
    return paint(folder / "budget.png", WIDTH, 5.4, lambda figure: fill_budget(figure, course))


def _read_metrics(path: Path) -> list[Progress]:
    with reading(path):
        return [progress_of(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fill_budget(figure: Figure, course: Course) -> None:
    """Fill a figure with three panels over the steps: shares of decisions, certified loss, threshold."""
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(2.2, 2.0, 1.1))
    decisions, models = course.decisions, course.models
    _draw_shares(top, decisions)
    _draw_loss(middle, course.metrics, course.target)
    _draw_threshold(bottom, course.metrics)
    bottom.set_xlim(decisions.edges[0] - 0.5, decisions.edges[-1] - 0.5)
    bottom.set_xlabel("step")
    for axes in (middle, bottom):
        quiet(axes)
    for axes in (top, middle, bottom):
        for model in models:
            axes.axvline(model.step - 0.5, color=INK, linewidth=0.7, linestyle=(0, (4, 3)), alpha=0.7)
    _name_models(top, models)
    figure.align_ylabels([top, middle, bottom])


def _draw_shares(axes: Axes, decisions: Shares) -> None:
    drawn = [decision for decision in DECISIONS if decisions.counts[decision].any()]
    whole = np.maximum(decisions.total, 1)
    heights = [np.append(part, part[-1]) for part in (decisions.counts[decision] / whole for decision in drawn)]
    axes.stackplot(
        decisions.edges - 0.5,
        *heights,
        step="post",
        linewidth=0,
        colors=[DECISIONS[decision] for decision in drawn],
        labels=[f"{decision.name.lower()}  {decisions.share(decision):.1%}" for decision in drawn],
    )
    axes.set_ylim(0.0, 1.0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("share of decisions")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.015, 1.0))


def _draw_loss(axes: Axes, metrics: Sequence[Progress], target: float) -> None:
    steps = [progress.step for progress in metrics]
    bound = _positive([progress.loss_bound for progress in metrics])
    estimate = _positive([progress.loss_estimate for progress in metrics])
    axes.plot(steps, bound, color=INK, label="certified bound")
    axes.plot(steps, estimate, color=SERIES[0], linewidth=1.1, label="estimate")
    axes.axhline(target, color=TARGET, linewidth=1.1, linestyle=(0, (1, 1)), label=f"target {target:g}")
    seen = np.concatenate([bound[np.isfinite(bound)], estimate[np.isfinite(estimate)], [target]])
    axes.set_yscale("log")
    # The first audits of a run may estimate next to nothing: three decades below the target nobody looks.
    axes.set_ylim(max(seen.min(), target * 1e-3) / 1.5, seen.max() * 1.5)
    axes.set_ylabel("loss per decision")
    axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))


def _draw_threshold(axes: Axes, metrics: Sequence[Progress]) -> None:
    """Draw the threshold where a model answered; before, it means nothing."""
    values = [progress.threshold if progress.version else np.nan for progress in metrics]
    finite = np.where(np.isfinite(values), values, np.nan)
    axes.plot([progress.step for progress in metrics], finite, color=INK, label="threshold", drawstyle="steps-post")
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("score")
    axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))


def _name_models(axes: Axes, models: Sequence[ModelSummary]) -> None:
    """Write the versions above their lines; a name that would run into the one before joins it."""
    several = len({model.operator for model in models}) > 1
    left, right = axes.get_xlim()
    names: dict[float, str] = {}
    free_from = -np.inf
    for model in sorted(models, key=lambda model: model.step):
        name = f"{model.operator} v{model.version}" if several else f"v{model.version}"
        place = (model.step - 0.5 - left) / (right - left)
        if place < free_from:
            place = next(reversed(names))
            name = f"{names[place].partition('–')[0]}–{name}"
        names[place] = name
        free_from = place + _LETTER * (len(name) + 1)
    for place, name in names.items():
        axes.text(place, 1.02, name, transform=axes.transAxes, ha="left", va="bottom", color=FAINT)


def _positive(values: Sequence[float]) -> NDArray[np.float64]:
    """Leave out what a logarithmic axis cannot show: nothing seen yet, or nothing known."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)
