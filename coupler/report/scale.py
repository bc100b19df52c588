"""Scales: which numbers a colour or a height stands for, shared by all moments of a field."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray

from coupler.report.canvas import short_numbers

# Above so many powers of ten a linear scale shows the peaks only.
_LOG_DECADES = 2.5
_NEAR_ZERO = 0.1


@dataclass(frozen=True)
class Scale:
    """From where to where a field goes.

    Parameters
    ----------
    low, high : float
        Ends of the scale; low < high.
    logarithmic : bool
        Whether equal ratios are equal distances.
    """

    low: float
    high: float
    logarithmic: bool

    @property
    def norm(self) -> Normalize:
        """Give the same as a norm for colours."""
        return (LogNorm if self.logarithmic else Normalize)(self.low, self.high)

    def label(self, field: str, unit: str) -> str:
        """Name a field with its unit, and say so where the scale is not linear."""
        return name_with_unit(field, unit) + (" (log scale)" if self.logarithmic else "")

    def apply(self, axes: Axes) -> None:
        """Make it the scale of the y axis, with room above and below."""
        if self.logarithmic:
            axes.set_yscale("log")
            room = (self.high / self.low) ** 0.04
            axes.set_ylim(self.low / room, self.high * room)
        else:
            room = 0.04 * (self.high - self.low)
            axes.set_ylim(self.low - room, self.high + room)
            axes.yaxis.set_major_formatter(short_numbers())


def scale_of(frames: Iterable[NDArray[np.float64]]) -> Scale:
    """Choose one scale for a field at several moments; what is not finite has no say."""
    finite = np.concatenate([frame[np.isfinite(frame)] for frame in frames])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    # A field that is the same everywhere still needs two ends, or its colour means nothing.
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = 0.1 * abs(low) or 1.0
        return Scale(low - room, high + room, logarithmic=False)
    if low > 0 and high / low > 10**_LOG_DECADES:
        return Scale(low, high, logarithmic=True)
    # A positive field that nearly reaches zero is easier to read from zero.
    return Scale(0.0 if 0 < low < _NEAR_ZERO * high else low, high, logarithmic=False)


def name_with_unit(field: str, unit: str) -> str:
    """Name a field as an axis does: ``T [K]``; a bare number has no bracket."""
    return field if unit == "1" else f"{field} [{unit}]"
