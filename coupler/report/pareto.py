"""``pareto.png``: what each configuration of an experiment gains over how wrong it was."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coupler.report.canvas import FAINT, INK, LINE, SERIES, TARGET, WIDTH, paint, quiet

_HEIGHT = 4.2
# Losses below it are drawn at the left edge: some lose nothing.
_LEAST_LOSS = 1e-5
_MOST_COLOURS = len(SERIES)


class Shown(Protocol):
    """What is drawn of a configuration: an :class:`coupler.experiment.Outcome`."""

    @property
    def name(self) -> str:
        """Of the configuration."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it changes in the base case."""

    @property
    def status(self) -> str:
        """``finished`` or ``failed``."""

    @property
    def speedup(self) -> float:
        """Against physics alone."""

    @property
    def true_loss(self) -> float:
        """Mean capped error per decision."""

    @property
    def target(self) -> float:
        """What the certified loss must not pass."""

    @property
    def kept(self) -> bool:
        """Whether it did not."""


def draw_pareto(outcomes: Sequence[Shown], best: Shown | None, path: Path) -> Path | None:
    """Draw speed-up over true loss, with the front of those that nothing beats in both.

    Filled symbols kept their certified loss at or below the target. Colours are the values of the setting that has
    most to do with the speed-up, of those with few values.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of an experiment; those that failed are left out.
    best : Outcome or None
        Gets a ring.
    path : Path
        The PNG.

    Returns
    -------
    Path or None
        The PNG; None where there is nothing to draw.

    Collective: no.
    """
    shown = [one for one in outcomes if one.status == "finished"]
    if not shown:
        return None

    def compose(figure: Figure) -> None:
        axes = figure.subplots()
        _scatter(axes, shown)
        _front(axes, shown)
        _lines(axes, shown, best)

    return paint(path, WIDTH, _HEIGHT, compose)


def front(outcomes: Sequence[Shown]) -> list[Shown]:
    """Give those that no other beats in both, by growing loss. Collective: no."""
    kept: list[Shown] = []
    for one in sorted(outcomes, key=lambda one: (one.true_loss, -one.speedup)):
        if not kept or one.speedup > kept[-1].speedup:
            kept.append(one)
    return kept


def telling_setting(outcomes: Sequence[Shown]) -> str | None:
    """Name the setting whose values set the speed-ups apart most, of those with few values; None if none varies.

    Collective: no.
    """
    keys = sorted({key for one in outcomes for key in one.settings})
    candidates = {key: _spread(outcomes, key) for key in keys if 1 < len(_values(outcomes, key)) <= _MOST_COLOURS}
    return max(candidates, key=lambda key: candidates[key], default=None)


def _values(outcomes: Sequence[Shown], key: str) -> list[str]:
    return list(dict.fromkeys(str(one.settings.get(key)) for one in outcomes))


def _spread(outcomes: Sequence[Shown], key: str) -> float:
    groups = [
        [one.speedup for one in outcomes if str(one.settings.get(key)) == value] for value in _values(outcomes, key)
    ]
    means = [sum(group) / len(group) for group in groups]
    return max(means) - min(means)


def _scatter(axes: Axes, shown: Sequence[Shown]) -> None:
    key = telling_setting(shown)
    values = [""] if key is None else _values(shown, key)
    for value, colour in zip(values, SERIES, strict=False):
        group = [one for one in shown if key is None or str(one.settings.get(key)) == value]
        for kept in (True, False):
            some = [one for one in group if one.kept is kept]
            face = colour if kept else "none"
            axes.scatter(
                [_loss(one) for one in some], [one.speedup for one in some], s=26, facecolors=face, edgecolors=colour,
                linewidths=1.1, zorder=3,
            )  # fmt: skip
        axes.scatter([], [], s=26, color=colour, label=f"{key} = {value}" if key else "configurations")


def _front(axes: Axes, shown: Sequence[Shown]) -> None:
    line = front(shown)
    axes.plot(
        [_loss(one) for one in line], [one.speedup for one in line], color=FAINT, lw=1.0, drawstyle="steps-post",
        zorder=1, label="nothing is faster and less wrong",
    )  # fmt: skip


def _lines(axes: Axes, shown: Sequence[Shown], best: Shown | None) -> None:
    axes.set_xscale("log")
    axes.axhline(1.0, color=LINE, lw=0.8, zorder=0)
    targets = sorted({one.target for one in shown})
    for target in targets:
        axes.axvline(target, color=TARGET, lw=0.9, ls=(0, (4, 3)), zorder=0)
    axes.plot([], [], color=TARGET, lw=0.9, ls=(0, (4, 3)), label="target")
    if best is not None:
        axes.scatter([_loss(best)], [best.speedup], s=130, facecolors="none", edgecolors=INK, linewidths=1.3, zorder=4)
        axes.annotate(f"  {best.name}", (_loss(best), best.speedup), fontsize=8, color=INK, va="bottom")
    axes.set_xlabel("true loss per decision")
    axes.set_ylabel("times as fast as physics alone")
    axes.set_title(f"{len(shown)} configurations; hollow ones did not keep their target")
    axes.legend(loc="best")
    quiet(axes)


def _loss(one: Shown) -> float:
    return max(one.true_loss, _LEAST_LOSS)
