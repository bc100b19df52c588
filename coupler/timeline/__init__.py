"""Timelines: what every rank, its server, the trainer and the files did when, on one clock, for Perfetto."""

from coupler.timeline.join import write_trace
from coupler.timeline.piece import PIECES, Head, Piece, read_piece
from coupler.timeline.timeline import Timeline

__all__ = ["PIECES", "Head", "Piece", "Timeline", "read_piece", "write_trace"]
