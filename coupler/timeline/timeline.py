"""The timeline of one rank: spans from when to when, kept as numbers and written to its piece while the run goes on."""

import time
from array import array
from pathlib import Path

from coupler.timeline.piece import NUMBERS, SPAN_NAMES, Head, PieceFile

# What is held before it is written, and how old it may become [spans, s]: 128 KiB and a second.
_BUFFER, _WRITE_SECONDS = 4096, 1.0
_CODES = {name: code for code, name in enumerate(SPAN_NAMES)}


class Timeline:
    """Takes spans of this rank; a few tenths of a microsecond each.

    Parameters
    ----------
    path : Path
        The rank's piece; must not exist.
    head : Head
        Whose it is.
    most : int
        Spans after which no more are taken, so that neither memory nor disk grow with the run.

    Raises
    ------
    OSError
        If the piece cannot be written.
    """

    def __init__(self, path: Path, head: Head, most: int) -> None:
        self._file = PieceFile(path, head)
        self._buffer = array("d")
        self._left = most
        self._written = time.monotonic()

    def span(self, name: str, started: float, stopped: float, step: int = 0) -> None:
        """Take a span.

        Parameters
        ----------
        name : str
            One of :data:`coupler.timeline.piece.SPAN_NAMES`.
        started, stopped : float
            By ``time.perf_counter`` of this rank [s].
        step : int
            The step it belongs to, where that is known.

        Collective: no.
        """
        if self._left > 0:
            self._left -= 1
            self._buffer.extend((_CODES[name], started, stopped, step))

    def end_step(self, step: int, started: float, stopped: float) -> None:
        """Take a step, and write what there is if it is much or old. Collective: no."""
        self.span("step", started, stopped, step)
        if len(self._buffer) >= NUMBERS * _BUFFER or time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what there is; whoever reads the piece then sees it. Collective: no."""
        self._file.append(self._buffer)
        self._buffer = array("d")
        self._written = time.monotonic()

    def close(self) -> None:
        """Write the rest. Collective: no."""
        self.write()
        self._file.close()
