"""The canvas: how all pictures look, and how they reach the disk. The only file that knows of fonts and colours."""

from collections.abc import Callable
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from coupler.atomic import replacing
from coupler.records import Decision

INK, FAINT, LINE = "#22272e", "#6b7580", "#c3c9d0"
# Okabe and Ito's colours, which stay apart for the colour-blind; black is left to what is measured against.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DECISIONS = {
    Decision.ACCEPTED: "#3a7ca5",
    Decision.AUDITED: "#f0b44c",
    Decision.FALLBACK: "#b4bec8",
    Decision.VETOED: "#c8553d",
    Decision.TIMEOUT: "#7b5b9e",
    Decision.DISABLED: "#e6e9ec",
}
"""Colours of decisions, bottom of the pile first: what the surrogate answered, then what the truth did and why."""

FAMILIES = {
    "coupler": SERIES[0],
    "ray": SERIES[1],
    "mpi": SERIES[2],
    "torch": SERIES[3],
    "inprocess": SERIES[3],
    "best-inprocess": SERIES[3],
    "unix": SERIES[4],
    "zeromq": SERIES[4],
    "smartredis": SERIES[5],
    "precice": SERIES[5],
}
"""Colours of the systems of benchmarks, by what their names begin with; others are faint."""

SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"
TARGET = "#c8553d"
WIDTH = 7.2
STYLE = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.titlesize": 8.5,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.08,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 8,
    "legend.borderaxespad": 0.0,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.4,
    "savefig.dpi": 220,
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": FAINT,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 3,
    "ytick.color": LINE,
    "ytick.labelcolor": FAINT,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 3,
}
"""How everything is drawn, whatever the user's own matplotlibrc says."""


def paint(path: Path, width: float, height: float, draw: Callable[[Figure], None]) -> Path:
    """Draw a figure in the house style and write it, replacing an older one only when it is whole.

    Parameters
    ----------
    path : Path
        The PNG.
    width, height : float
        Size of the figure [inch].
    draw : callable
        Fills the figure.

    Returns
    -------
    Path
        The PNG.

    Collective: no.
    """
    with style.context(["default", STYLE]):  # whatever the user's own matplotlibrc says
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
    return path


def quiet(axes: Axes) -> None:
    """Leave of the frame what carries the scales, and put faint lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)


def short_numbers() -> ScalarFormatter:
    """Make a formatter that takes powers of ten out of the tick labels."""
    formatter = ScalarFormatter(useMathText=True, useOffset=False)
    formatter.set_powerlimits((-3, 4))
    return formatter
