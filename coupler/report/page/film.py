"""Fields over time as small images or lines within the page, one layer per moment."""

import base64
import io

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image

from coupler.report.canvas import FAINT, SEQUENTIAL
from coupler.report.fields import plane, slice_note
from coupler.report.page.blocks import Film, Strip
from coupler.report.recording import Recording
from coupler.report.scale import Scale, name_with_unit, scale_of

# What keeps a page small, whatever the run wrote: 48 moments of 4 fields at 320 cells a side are some 4 MB.
_MOMENTS, _FIELDS, _SIDE, _POINTS = 48, 4, 320, 400
# Images up to this side are exact; larger ones lose what nobody sees, and are a fifth as long.
_EXACT_SIDE, _QUALITY = 160, 88
_STOPS = 9
# Size of a drawing of lines, in its own units.
_WIDTH, _HEIGHT = 400.0, 200.0


def film_of(recording: Recording) -> Film:
    """Make the film of a run's first fields: images of two dimensions or a slice of three, lines of one.

    Of many moments some, evenly over the run, the first and the last among them.

    Raises
    ------
    CouplerError
        If the fields cannot be read.

    Collective: no.
    """
    moments = np.unique(np.linspace(0, len(recording.steps) - 1, _MOMENTS).round().astype(int)).tolist()
    fields = list(recording.units)[:_FIELDS]
    names = [f"step {recording.steps[moment]}, {recording.moment(recording.steps[moment])}" for moment in moments]
    return Film(names, [_strip(recording, field, moments) for field in fields], _note(recording, len(moments), fields))


def _note(recording: Recording, moments: int, fields: list[str]) -> str:
    left_out = ", ".join(list(recording.units)[len(fields) :])
    notes = (
        slice_note(recording),
        f"{moments} of {len(recording.steps)} moments" if moments < len(recording.steps) else "",
        f"not shown: {left_out}" if left_out else "",
    )
    return "; ".join(filter(None, notes))


def _strip(recording: Recording, field: str, moments: list[int]) -> Strip:
    lines = len(recording.centres) == 1
    frames = [recording.frame(field, moment) for moment in moments]
    shown = frames if lines else [plane(recording, frame) for frame in frames]
    scale = scale_of(shown)
    layers = [_line(frame, scale) if lines else _image(frame, scale) for frame in shown]
    return Strip(
        field=name_with_unit(field, recording.units[field]) + (" (log scale)" if scale.logarithmic else ""),
        layers=layers,
        low=f"{scale.low:.3g}",
        high=f"{scale.high:.3g}",
        colours="" if lines else _gradient(colormaps[SEQUENTIAL]),
    )


def _image(frame: NDArray[np.float64], scale: Scale) -> Markup:
    """Give a frame as an image, first axis up; what is not finite is grey."""
    rows, columns = (np.unique(np.linspace(0, cells - 1, _SIDE).round().astype(int)) for cells in frame.shape)
    small = frame[np.ix_(rows, columns)][::-1]
    colours = colormaps[SEQUENTIAL].with_extremes(bad=FAINT)
    with np.errstate(invalid="ignore"):
        pixels = colours(scale.norm(np.ma.masked_invalid(small)), bytes=True)[..., :3]
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        data, "WEBP", quality=_QUALITY, method=2, lossless=max(small.shape) <= _EXACT_SIDE
    )
    text = base64.b64encode(data.getvalue()).decode()
    height, width = small.shape
    return Markup('<img alt="" width="{}" height="{}" src="data:image/webp;base64,{}">').format(width, height, text)


def _line(frame: NDArray[np.float64], scale: Scale) -> Markup:
    """Give a frame as a line from left to right; where it is not finite, the line is broken."""
    chosen = np.unique(np.linspace(0, len(frame) - 1, _POINTS).round().astype(int))
    with np.errstate(invalid="ignore"):
        heights = np.ma.filled(scale.norm(np.ma.masked_invalid(frame[chosen])).astype(float), np.nan)
    places = (chosen + 0.5) / len(frame) * _WIDTH
    path, begun = [], False
    for place, height in zip(places.tolist(), heights.tolist(), strict=True):
        if np.isfinite(height):
            path.append(f"{'L' if begun else 'M'}{place:.1f} {_HEIGHT * (0.96 - 0.92 * height):.1f}")
        begun = bool(np.isfinite(height))
    return Markup('<svg viewBox="0 0 {:g} {:g}" class="line" role="img"><path d="{}"/></svg>').format(
        _WIDTH, _HEIGHT, "".join(path)
    )


def _gradient(colours: Colormap) -> str:
    stops = (colours(number / (_STOPS - 1), bytes=True)[:3] for number in range(_STOPS))
    return f"linear-gradient(90deg,{','.join('rgb({},{},{})'.format(*stop) for stop in stops)})"
