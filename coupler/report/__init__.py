"""Reports: pictures of a run, and how far and how fast it went beside plain physics. Reads run folders only."""

from pathlib import Path

from coupler.report.budget import draw_budget
from coupler.report.climate import Agreement, compare_climates, mean_and_deviation
from coupler.report.comparison import Comparison, compare
from coupler.report.difference import draw_comparison
from coupler.report.fields import draw_fields
from coupler.report.twins import draw_twins

__all__ = [
    "Agreement",
    "Comparison",
    "compare",
    "compare_climates",
    "draw",
    "draw_comparison",
    "mean_and_deviation",
]


def draw(folder: Path) -> list[Path]:
    """Draw what a run folder holds: its fields, and what became of it where a surrogate was asked.

    ``fields.png`` always, ``budget.png`` where a surrogate was asked, ``twins.png`` where twin windows saw it move
    the state.

    Parameters
    ----------
    folder : Path
        A run that has ended.

    Returns
    -------
    list of Path
        The pictures, in the run folder; a second call draws them anew.

    Raises
    ------
    CouplerError
        If a file of the run is missing or cut short.

    Collective: no; one rank calls it, after the run.
    """
    pictures = (draw_fields(folder), draw_budget(folder), draw_twins(folder))
    return [picture for picture in pictures if picture is not None]
