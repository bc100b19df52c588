"""Where the truth ran: a map over the grid, as fine as the ledger is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupler.decomposition import block, choose_dims
from coupler.errors import ConfigError
from coupler.records import Decision, Reason
from coupler.report.canvas import FAINT, WIDTH
from coupler.report.page.blocks import Block, Drawn, Grid, Words
from coupler.report.page.dossier import Dossier
from coupler.report.page.picture import Picture, draw_picture

_COLOURS = "viridis_r"
# A square of the map has about so many audits, or its share says nothing; the map has at most so many squares a side.
_AUDITS_PER_SQUARE, _SIDE = 25, 96
_NUMBERS: list[Any] = []
_OF_AUDITS = (
    "Share of the audited answers that the gate refused, square by square. Audits fall by coins that know nothing of "
    "the place, so this is where the truth had to run while a model answered."
)
_OF_RANKS = (
    "Share of its elements whose truth a rank's subdomain needed, over the whole run: the ledger counts by rank. With "
    'output.ledger = "audits" it says so element by element, and this map becomes a fine one.'
)
# What sends an element to the truth by what the gate makes of its answer.
_REFUSED = (Decision.FALLBACK, Decision.VETOED)


def place_blocks(run: Dossier, page: Path) -> Sequence[Block]:
    """Map the share of elements that went to the truth, or say why there is no map."""
    shape = tuple(run.key("grid", "shape", _NUMBERS))
    if not run.asks or run.ledger is None or not len(run.ledger.records):
        return [Words("No call is known yet." if run.asks else "The truth ran everywhere.", quiet=True)]
    if not shape:
        return [Words("A loop of its own: only it knows where its elements lie.", quiet=True), *_by_reason(run)]
    found = _from_audits(run.ledger.audits, shape) if _are_cells(run, shape) else _from_ranks(run, shape)
    if found is None:
        return [Words("The case does not tell the subdomains of this run: no map.", quiet=True), *_by_reason(run)]
    return [Drawn(_draw(run, page, found, shape)), *_by_reason(run)]


@dataclass(frozen=True)
class _Map:
    """Shares of truth, an array with as many dimensions as the grid, NaN where nothing is known; and what they are."""

    shares: NDArray[np.float64]
    caption: str


def _are_cells(run: Dossier, shape: tuple[int, ...]) -> bool:
    """Whether audits are written down one by one, and their ids are those of the grid's cells."""
    assert run.ledger is not None
    rows, audits, cells = run.ledger.records, run.ledger.audits, math.prod(shape)
    first = rows[(rows["step"] == rows["step"][0]) & (rows["call"] == rows["call"][0])]
    return bool(len(audits)) and int(first["reasons"].sum()) == cells and int(audits["id"].max()) < cells


def _from_audits(audits: NDArray[np.void], shape: tuple[int, ...]) -> _Map:
    """Map the refused share of the audits by square."""
    refused = np.isin(audits["verdict"], [reason for reason in Reason if reason.decision in _REFUSED])
    squares = max(1, int((len(audits) / _AUDITS_PER_SQUARE) ** (1 / len(shape))))
    sides = tuple(min(cells, squares, _SIDE) for cells in shape)
    places = np.unravel_index(audits["id"], shape)
    square = tuple(place * side // cells for place, side, cells in zip(places, sides, shape, strict=True))
    bad, everybody = np.zeros(sides), np.zeros(sides)
    np.add.at(bad, square, refused)
    np.add.at(everybody, square, 1)
    return _Map(np.divide(bad, everybody, out=np.full(sides, np.nan), where=everybody > 0), _OF_AUDITS)


def _from_ranks(run: Dossier, shape: tuple[int, ...]) -> _Map | None:
    """Map the share of truth in every rank's subdomain; None where they cannot be told from the case."""
    assert run.ledger is not None
    rows = run.ledger.records
    ranks = int(rows["rank"].max()) + 1
    try:
        dims = choose_dims(ranks, shape, halo=1)
    except ConfigError:
        return None
    everybody, taken = np.zeros(ranks), np.zeros(ranks)
    np.add.at(everybody, rows["rank"], rows["reasons"].sum(axis=1))
    np.add.at(taken, rows["rank"], rows["reasons"][:, Reason.ACCEPTED])
    shown, cells_of = np.full(shape, np.nan), np.zeros(ranks)
    for rank in range(ranks):
        where = np.unravel_index(rank, dims)
        cut = tuple(block(int(index), parts, cells) for index, parts, cells in zip(where, dims, shape, strict=True))
        shown[cut] = 1 - taken[rank] / everybody[rank] if everybody[rank] else np.nan
        cells_of[rank] = shown[cut].size
    # Halos and tiles, which the case does not tell, may have led to other subdomains: then the elements do not fit.
    per_cell = everybody / cells_of
    return _Map(shown, _OF_RANKS) if np.allclose(per_cell, per_cell[0], rtol=1e-9, atol=0.0) else None


def _draw(run: Dossier, page: Path, found: _Map, shape: tuple[int, ...]) -> Picture:
    shares = found.shares
    plane = (
        shares
        if shares.ndim == 2
        else shares[None, :]
        if shares.ndim == 1
        else np.ma.masked_invalid(shares).mean(axis=0).filled(np.nan)
    )
    length = run.key("grid", "length", _NUMBERS) or [1.0] * len(shape)
    up, right = (length[-2], length[-1]) if len(shape) > 1 else (0.1 * length[0], length[0])
    tall = float(np.clip(up / right, 0.08, 1.4))

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(
            plane,
            origin="lower",
            extent=(0.0, right, 0.0, up),
            cmap=colormaps[_COLOURS].with_extremes(bad=FAINT),
            vmin=0.0,
            vmax=1.0,
            interpolation="nearest",
            aspect="auto" if len(shape) == 1 else "equal",
        )
        axes.locator_params(nbins=5)
        if len(shape) == 1:
            axes.set_yticks([])
        figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}", label="to the truth", shrink=0.9)

    return draw_picture(
        page, f"{run.name}-places", found.caption, fill, width=0.72 * WIDTH, height=0.9 + 0.55 * WIDTH * tall
    )


def _by_reason(run: Dossier) -> Sequence[Block]:
    """Count the elements by reason, in words."""
    assert run.ledger is not None
    totals = run.ledger.records["reasons"].sum(axis=0)
    everybody = max(int(totals.sum()), 1)
    rows = [
        (f"{100 * int(totals[reason]) / everybody:.2f} %", f"{int(totals[reason]):,}", reason.sentence)
        for reason in sorted(Reason, key=lambda reason: -int(totals[reason]))
        if totals[reason]
    ]
    return [Grid(("share", "elements", "why"), rows)]
