"""Pictures of a page: each is drawn once and written twice, as a PNG beside the page and as lines within it.

Within the page text stays text and colours follow the reader's light or dark, which no inlined PNG can.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.figure import Figure

from coupler.atomic import replacing
from coupler.records import Decision
from coupler.report.canvas import DECISIONS, FAINT, INK, LINE, STYLE

# What the page's style sheet knows these colours as.
_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    LINE: "var(--line)",
    DECISIONS[Decision.DISABLED]: "var(--disabled)",
    DECISIONS[Decision.FALLBACK]: "var(--fallback)",
}
# How large an inch is within the page.
_REM_PER_INCH = 7.5
_WITHIN = {"svg.fonttype": "none", "svg.hashsalt": "coupler"}


@dataclass(frozen=True)
class Picture:
    """One picture of a page.

    Parameters
    ----------
    drawing : Markup
        An ``svg`` element to put into the page.
    file : str
        Where the PNG is, relative to the page.
    caption : str
        What it shows, in words.
    """

    drawing: Markup
    file: str
    caption: str


def draw_picture(
    page: Path, name: str, caption: str, draw: Callable[[Figure], None], *, width: float, height: float
) -> Picture:
    """Draw a figure in the house style for a page.

    Parameters
    ----------
    page : Path
        The HTML file; the PNG goes into the folder beside it that has its name without the suffix.
    name : str
        Of the PNG below that folder, without suffix; unique within the page.
    caption : str
        What it shows, in words.
    draw : callable
        Fills the figure.
    width, height : float
        Its size [inch].

    Collective: no.
    """
    png = page.with_suffix("") / f"{name}.png"
    png.parent.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO()
    with style.context(["default", STYLE, _WITHIN]):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        with replacing(png) as temporary:
            figure.savefig(temporary, format="png")
        figure.patch.set_alpha(0.0)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        figure.savefig(lines, format="svg", dpi=144, metadata={"Date": None})
    return Picture(Markup(_within(lines.getvalue(), _word(name), caption, width)), _relative(png, page), caption)


def _within(svg: str, prefix: str, caption: str, width: float) -> str:
    """Make a file of its own a part of a page: names of its own, colours and letters of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(caption)}" style="max-width:{_REM_PER_INCH * width:.1f}rem">{rest}'


def _word(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]", "-", name)


def _relative(png: Path, page: Path) -> str:
    return png.relative_to(page.parent).as_posix()
