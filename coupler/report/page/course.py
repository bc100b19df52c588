"""Over the steps: the budget, and what share of its elements each rank accepted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupler.records import Reason
from coupler.report.budget import COLUMNS, Course, fill_budget, shares_over
from coupler.report.canvas import SERIES, WIDTH, quiet
from coupler.report.page.blocks import Block, Drawn, Words
from coupler.report.page.dossier import Dossier
from coupler.report.page.picture import draw_picture

# More ranks than this are rows of a picture, not lines; more than so many steps are drawn together.
_LINES, _STEPS_APART = 6, 120


def budget_blocks(run: Dossier, page: Path) -> Sequence[Block]:
    """Show shares of decisions, certified loss and threshold over the steps."""
    if not run.asks:
        return [Words("Physics only: there is no budget to spend.", quiet=True)]
    if not any(progress.elements for progress in run.metrics):
        return [Words("No decision has been written down yet, so there is nothing to draw.", quiet=True)]
    course = Course(shares_over(run.metrics, COLUMNS), run.metrics, run.models, run.target)
    caption = (
        "What became of the elements, the certified bound on the mean loss per decision with its estimate and the "
        "target, and the threshold on the score. Dashed lines: another version answers."
    )
    return [
        Drawn(
            draw_picture(
                page, f"{run.name}-budget", caption, lambda figure: fill_budget(figure, course), width=WIDTH, height=5.2
            )
        )
    ]


def rank_blocks(run: Dossier, page: Path) -> Sequence[Block]:
    """Show the share of its elements that each rank accepted, over the steps."""
    if not run.asks:
        return [Words("Physics only: every rank computed the truth everywhere.", quiet=True)]
    if run.ledger is None or not len(run.ledger.records):
        return [Words("The ledger has no calls yet: ranks gather them every hundredth step.", quiet=True)]
    edges, accepted = accepted_by_rank(run.ledger.records, _STEPS_APART)
    caption = "Share of its elements whose surrogate's answer a rank took. Gaps: the rank had no element."
    height = 2.2 if len(accepted) <= _LINES else 2.8

    def fill(figure: Figure) -> None:
        (_lines if len(accepted) <= _LINES else _rows)(figure, edges, accepted)

    return [Drawn(draw_picture(page, f"{run.name}-ranks", caption, fill, width=WIDTH, height=height))]


def accepted_by_rank(rows: NDArray[np.void], columns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Add up the accepted share of every rank in at most so many columns of equally many steps.

    Parameters
    ----------
    rows : ndarray of ledger records, at least one
        As :func:`coupler.ledger.read_ledger` gives them.
    columns : int
        Most columns.

    Returns
    -------
    edges : ndarray (columns + 1,)
        First step of every column, and one past the last step.
    share : ndarray (ranks, columns)
        NaN where a rank had no element.

    Collective: no.
    """
    first, last = int(rows["step"].min()), int(rows["step"].max())
    width = -(-(last - first + 1) // columns)
    edges = np.append(np.arange(first, last + 1, width), last + 1)
    place, ranks = (rows["step"] - first) // width, int(rows["rank"].max()) + 1
    taken, all_of_them = np.zeros((ranks, len(edges) - 1)), np.zeros((ranks, len(edges) - 1))
    np.add.at(taken, (rows["rank"], place), rows["reasons"][:, Reason.ACCEPTED])
    np.add.at(all_of_them, (rows["rank"], place), rows["reasons"].sum(axis=1))
    return edges, np.divide(taken, all_of_them, out=np.full_like(taken, np.nan), where=all_of_them > 0)


def _lines(figure: Figure, edges: NDArray[np.int64], accepted: NDArray[np.float64]) -> None:
    axes = figure.subplots()
    for rank, (share, colour) in enumerate(zip(accepted, SERIES, strict=False)):
        axes.stairs(share, edges - 0.5, baseline=None, color=colour, linewidth=1.3, label=f"rank {rank}")
    axes.set_ylim(0.0, 1.0)
    axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("step")
    axes.set_ylabel("accepted")
    axes.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))
    quiet(axes)


def _rows(figure: Figure, edges: NDArray[np.int64], accepted: NDArray[np.float64]) -> None:
    axes = figure.subplots()
    image = axes.pcolormesh(
        edges - 0.5, np.arange(len(accepted) + 1) - 0.5, accepted, vmin=0.0, vmax=1.0, cmap="viridis", rasterized=True
    )
    axes.set_xlabel("step")
    axes.set_ylabel("rank")
    axes.invert_yaxis()
    figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}", label="accepted")
