"""Writing a tape: calls come together until they make a segment."""

from pathlib import Path

from coupler.tape.call import TapeCall
from coupler.tape.folder import TapeFolder
from coupler.tape.head import TapeHead
from coupler.tape.segment import write_segment

SEGMENT_BYTES = 128 * 2**20
"""A segment is written as soon as its calls hold so many bytes: large enough to be few, and held twice in memory."""


def most_segments(nbytes: int, segment_bytes: int = SEGMENT_BYTES) -> int:
    """Give the most files a tape has: ``nbytes // segment_bytes + 1``, as all but the last are full.

    Parameters
    ----------
    nbytes : int
        Bytes of all calls, 32 per call and ``8 (1 + n_in + n_out)`` per element.
    segment_bytes : int
        Bytes from which on a segment is written.
    """
    return nbytes // segment_bytes + 1


class TapeWriter:
    """Appends calls to an operator's tape.

    Parameters
    ----------
    folder : Path
        The folder ``tape`` of a run; must exist. Segments that are there are kept, and the next number follows.
    head : TapeHead
        Whose calls they are.
    segment_bytes : int
        Bytes of calls from which on a segment is written.
    """

    def __init__(self, folder: Path, head: TapeHead, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder, self._head, self._segment_bytes = TapeFolder(folder), head, segment_bytes
        self._number = self._folder.last(head.operator)
        self._calls: list[TapeCall] = []
        self._bytes = 0

    def add(self, call: TapeCall) -> None:
        """Take the next call, in order of step and call.

        Where segments end follows from the calls alone, so the files do not depend on when they come.

        Raises
        ------
        CouplerError
            If a segment is full and cannot be written.

        Collective: no; one process of the run calls it.
        """
        self._calls.append(call)
        self._bytes += call.nbytes
        if self._bytes >= self._segment_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what has come together as a segment, if anything has. Collective: no."""
        if self._calls:
            self._write()

    def save(self) -> None:
        """Put what has come together on disk, without ending the segment: it will be written over, with more.

        So a run can go on from here, and has no more files for having been able to. Collective: no.
        """
        if self._calls:
            write_segment(self._folder.segment(self._head.operator, self._number + 1), self._head, self._calls)

    def close(self) -> None:
        """Write the rest; a tape of no calls says so, in a segment without any. Collective: no."""
        if self._calls or self._number == 0:
            self._write()

    def _write(self) -> None:
        path = self._folder.segment(self._head.operator, self._number + 1)
        write_segment(path, self._head, self._calls)
        self._number += 1
        self._calls, self._bytes = [], 0
