"""``fields.png``: the fields of a run at a few moments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from coupler.report.canvas import FAINT, INK, SEQUENTIAL, WIDTH, paint, quiet, short_numbers
from coupler.report.recording import Recording, read_recording
from coupler.report.scale import Scale, scale_of

# More than so many of either are too small to see on a page.
_MOMENTS = 4
_FIELDS = 4
# A panel is at most so many times as wide as it is high, or the other way round; beyond that it is stretched.
_ELONGATION = 4.0
# Fields narrower than this share of their height have room for the ends of the scale below them only.
_NARROW = 0.4
# Room left of the panels, and between two columns; rows have titles and need twice that [inch].
_LABELS, _GAP = 0.5, 0.15


def draw_fields(folder: Path) -> Path:
    """Draw the first fields of a run at its first, its last and up to two moments between.

    One dimension: lines over the axis. Two: images, a row per moment. Three: images of the middle slice.

    Raises
    ------
    CouplerError
        If ``fields.h5`` is missing or cut short.

    Collective: no.
    """
    recording = read_recording(folder / "fields.h5")
    fields = list(recording.units)[:_FIELDS]
    moments = np.unique(np.linspace(0, len(recording.steps) - 1, _MOMENTS).round().astype(int)).tolist()
    frames = {field: [recording.frame(field, moment) for moment in moments] for field in fields}
    titles = [recording.moment(recording.steps[moment]) for moment in moments]
    path = folder / "fields.png"
    if len(recording.centres) == 1:
        return paint(path, WIDTH, 0.6 + 1.6 * len(fields), lambda figure: _lines(figure, recording, frames, titles))
    width = min(2.3, (WIDTH - _LABELS) / len(fields) - _GAP)
    height = width * float(np.clip(recording.elongation, 1 / _ELONGATION, _ELONGATION))
    total = (_LABELS + (width + _GAP) * len(fields), 0.8 + (height + 2 * _GAP) * len(moments))
    return paint(path, *total, lambda figure: _images(figure, recording, frames, titles))


def plane(recording: Recording, frame: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what a picture can show of a frame: all of two dimensions, the middle slice of three."""
    return frame if frame.ndim == 2 else frame[len(recording.centres[0]) // 2]


def slice_note(recording: Recording) -> str:
    """Say which slice :func:`plane` shows; empty where it shows all."""
    if len(recording.centres) < 3:
        return ""
    middle = recording.centres[0][len(recording.centres[0]) // 2]
    return f"slice at axis 0 = {middle:.3g}"


def show_plane(
    axes: Axes, recording: Recording, frame: NDArray[np.float64], *, scale: Scale, colours: str = SEQUENTIAL
) -> AxesImage:
    """Show a frame as an image, first axis up and second to the right as ParaView does."""
    *_, up, right = recording.lengths
    image = axes.imshow(
        plane(recording, frame),
        cmap=colormaps[colours].with_extremes(bad=FAINT),
        norm=scale.norm,
        origin="lower",
        extent=(0.0, right, 0.0, up),
        aspect="equal" if 1 / _ELONGATION <= recording.elongation <= _ELONGATION else "auto",
    )
    axes.locator_params(axis="y", nbins=4, steps=[1, 2, 5, 10])
    # Of a channel that stands upright the numbers below it would lie over each other.
    axes.locator_params(axis="x", nbins=1 if right < _NARROW * up else 4, steps=[1, 2, 5, 10])
    return image


def bar(figure: Figure | SubFigure, image: AxesImage, axes: Sequence[Axes], label: str, *, beside: int = 1) -> None:
    """Put one colour bar below images that stand above or ``beside`` each other, equally thin whatever its length."""
    bar = figure.colorbar(image, ax=list(axes), location="bottom", aspect=30 * beside, pad=0.03 * beside / len(axes))
    bar.set_label(label, fontsize=9, color=INK)
    bar.outline.set_visible(False)
    if not isinstance(image.norm, LogNorm):
        bar.ax.locator_params(nbins=5)
        bar.formatter = short_numbers()


def _images(
    figure: Figure, recording: Recording, frames: dict[str, list[NDArray[np.float64]]], titles: Sequence[str]
) -> None:
    panels = figure.subplots(len(titles), len(frames), sharex=True, sharey=True, squeeze=False)
    for column, (field, moments) in zip(panels.T, frames.items(), strict=True):
        scale = scale_of([plane(recording, frame) for frame in moments])
        images = [show_plane(axes, recording, frame, scale=scale) for axes, frame in zip(column, moments, strict=True)]
        bar(figure, images[0], column, scale.label(field, recording.units[field]))
    for row, title in zip(panels, titles, strict=True):
        row[0].set_title(title)
        row[0].set_ylabel(f"axis {len(recording.centres) - 2}", color=FAINT)
    for axes in panels[-1]:
        axes.set_xlabel(f"axis {len(recording.centres) - 1}", color=FAINT)
    panels[0, -1].set_title(slice_note(recording), loc="right", color=FAINT)


def _lines(
    figure: Figure, recording: Recording, frames: dict[str, list[NDArray[np.float64]]], titles: Sequence[str]
) -> None:
    panels = figure.subplots(len(frames), 1, sharex=True, squeeze=False)[:, 0]
    shades = colormaps["viridis_r"](np.linspace(0.1, 1.0, len(titles)))
    for axes, (field, moments) in zip(panels, frames.items(), strict=True):
        scale = scale_of(moments)
        for frame, title, shade in zip(moments, titles, shades, strict=True):
            axes.plot(recording.centres[0], frame, color=shade, label=title)
        scale.apply(axes)
        axes.set_ylabel(scale.label(field, recording.units[field]))
        quiet(axes)
    panels[-1].set_xlim(0.0, recording.lengths[0])
    panels[-1].set_xlabel("axis 0")
    panels[0].legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))
    figure.align_ylabels(panels)
