"""Compare the climates of two Lorenz-96 runs within their sampling error, and draw them. Reads folders only."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupler.config import read_case
from coupler.errors import CouplerError
from coupler.kernels.lorenz96 import Lorenz96
from coupler.report import compare_climates, mean_and_deviation
from coupler.report.canvas import DIVERGING, INK, SERIES, paint, quiet
from coupler.report.recording import read_recording

NAMES = ("mean of X", "deviation of X", "mean of Y_1", "deviation of Y_1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("physics", type=Path, help="run folder of the physics run")
    parser.add_argument("certified", type=Path, help="run folder of the certified run; the picture goes there")
    parser.add_argument("--skip", type=float, default=0.25, help="share of either run that is left out at its start")
    options = parser.parse_args()
    try:
        slow = [_field(folder, "x", options.skip) for folder in (options.physics, options.certified)]
        fast = [_field(folder, "y_1", options.skip) for folder in (options.physics, options.certified)]
        physics, certified = (
            np.column_stack([mean_and_deviation(x), mean_and_deviation(y)]) for x, y in zip(slow, fast, strict=True)
        )
        agreement = compare_climates(NAMES, physics, certified)
    except CouplerError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(agreement.table("physics", "certified"))
    line = _going_on(options.certified)
    picture = paint(options.certified / "climate.png", 7.2, 2.6, lambda figure: _draw(figure, line, slow))
    print(f"picture  {picture}")
    return 0 if agreement.agree else 1


def _field(folder: Path, name: str, skip: float) -> NDArray[np.float64]:
    """Read a field, (times, members, sectors), of the later part of a run."""
    recording = read_recording(folder / "fields.h5")
    moments = range(int(skip * len(recording.steps)), len(recording.steps))
    return np.array([recording.frame(name, moment) for moment in moments])


def _going_on(folder: Path) -> NDArray[np.float64]:
    """Follow X of the first member for ten units of time from where a run ended, (sectors, times), by the truth."""
    kernel = Lorenz96(**read_case(folder / "case.toml").kernel.params)
    recording = read_recording(folder / "fields.h5")
    rings = [np.stack([recording.frame(name, -1)[:1] for name in recording.units], axis=-1)]
    for _ in range(200):
        rings.append(kernel.advance_rings(rings[-1], 0.05))
    return np.array([ring[0, :, 0] for ring in rings]).T


def _draw(figure: Figure, line: NDArray[np.float64], slow: list[NDArray[np.float64]]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1.0))
    extent = (0.0, 10.0, 0.0, len(line))
    image = left.imshow(line, aspect="auto", origin="lower", extent=extent, cmap=DIVERGING, vmin=-12, vmax=12)
    left.set(title="X of one member, as the truth goes on from the certified run", xlabel="time", ylabel="sector")
    figure.colorbar(image, ax=left, pad=0.01)
    edges = np.linspace(-14.0, 20.0, 69)
    for values, label, style in (
        (slow[0], "physics", {"color": INK, "linewidth": 2.2}),
        (slow[1], "certified", {"color": SERIES[4], "linestyle": "--"}),
    ):
        density, _ = np.histogram(values, edges, density=True)
        right.stairs(density, edges, label=label, **style)
    right.set(title="probability density of X", xlabel="X")
    right.legend()
    quiet(right)


if __name__ == "__main__":
    sys.exit(main())
