"""Recorded truth: tapes hold every call of an operator, to compare policies, models and triggers without solving."""

from coupler.tape.call import TapeCall
from coupler.tape.folder import operators_on_tape
from coupler.tape.head import TapeHead
from coupler.tape.tape import Tape
from coupler.tape.writer import SEGMENT_BYTES, TapeWriter, most_segments

__all__ = ["SEGMENT_BYTES", "Tape", "TapeCall", "TapeHead", "TapeWriter", "most_segments", "operators_on_tape"]
