"""Timelines: what every rank, its server, the trainer and the files did when, on one clock, for Perfetto."""

from coupler.timeline.join import write_trace
from coupler.timeline.piece import PIECES, Head, Piece, make_room, read_piece
from coupler.timeline.timeline import Timeline

__all__ = ["PIECES", "Head", "Piece", "Timeline", "make_room", "read_piece", "write_trace"]
