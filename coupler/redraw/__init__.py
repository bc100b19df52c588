"""Redraws: tossing the audit coins of a settled run again and again, to see how often a bound would have failed."""

from coupler.redraw.audits import audited_rows
from coupler.redraw.crossings import Crossings, Spread
from coupler.redraw.engine import Moments, Redraws, Statement, redraw
from coupler.redraw.following import Elements, Following, View, follow
from coupler.redraw.streams import ErrorStream, LossStream, read_stream, stream_from_arrays, write_stream

__all__ = [
    "Crossings",
    "Elements",
    "ErrorStream",
    "Following",
    "LossStream",
    "Moments",
    "Redraws",
    "Spread",
    "Statement",
    "View",
    "audited_rows",
    "follow",
    "read_stream",
    "redraw",
    "stream_from_arrays",
    "write_stream",
]
