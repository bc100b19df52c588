"""Compare the spectra of two Kuramoto-Sivashinsky runs within their sampling error, and draw them."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupler.config import read_case
from coupler.errors import CouplerError
from coupler.kernels.kuramoto_sivashinsky import KuramotoSivashinsky
from coupler.report import Agreement, compare_climates
from coupler.report.canvas import DIVERGING, INK, SERIES, paint, quiet
from coupler.report.recording import read_recording

# The modes that hold all but 1e-5 of the energy; those above follow them.
MODES = range(1, 9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("physics", type=Path, help="run folder of the physics run")
    parser.add_argument("certified", type=Path, help="run folder of the certified run; the picture goes there")
    parser.add_argument("--skip", type=float, default=0.3, help="share of either run that is left out at its start")
    options = parser.parse_args()
    try:
        kernel = KuramotoSivashinsky(**read_case(options.physics / "case.toml").kernel.params)
        runs = [_members(folder, options.skip) for folder in (options.physics, options.certified)]
        physics, certified = (kernel.spectrum(run).mean(axis=0)[:, MODES] for run in runs)
        agreement = compare_climates([f"E({mode})" for mode in MODES], physics, certified)
    except CouplerError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(agreement.table("physics", "certified"))
    line = kernel.advance(np.array(runs[1][-1, :1]), 100.0)
    picture = paint(options.certified / "spectrum.png", 7.2, 2.6, lambda figure: _draw(figure, kernel, line, agreement))
    print(f"picture  {picture}")
    return 0 if agreement.agree else 1


def _members(folder: Path, skip: float) -> NDArray[np.float64]:
    """Read u, (times, members, points), of the later part of a run."""
    recording = read_recording(folder / "fields.h5")
    moments = range(int(skip * len(recording.steps)), len(recording.steps))
    return np.array([recording.frame("u", moment) for moment in moments])


def _draw(figure: Figure, kernel: KuramotoSivashinsky, member: NDArray[np.float64], agreement: Agreement) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1.0))
    lines = [member]
    for _ in range(200):
        lines.append(kernel.advance(lines[-1], 1.0))
    values = np.concatenate(lines).T
    image = left.imshow(
        values, aspect="auto", origin="lower", extent=(0, 200, 0, kernel.L), cmap=DIVERGING, vmin=-3, vmax=3
    )
    left.set(title="u of one member, as the truth goes on from the certified run", xlabel="time", ylabel="x")
    figure.colorbar(image, ax=left, pad=0.01)
    for means, errors, label, style in (
        (agreement.first, agreement.first_error, "physics", {"color": INK, "marker": "o", "mfc": "none"}),
        (agreement.second, agreement.second_error, "certified", {"color": SERIES[0], "marker": "x"}),
    ):
        spread = 3 * np.array(errors)  # smaller than the marks in a sound run
        right.errorbar(list(MODES), means, spread, label=label, linestyle="none", markersize=5, **style)
    right.set(title="energy per mode", xlabel="mode", yscale="log")
    right.legend()
    quiet(right)


if __name__ == "__main__":
    sys.exit(main())
