"""What a call of the truth costs, and into what pieces work is cut so that taking one costs next to nothing."""

from dataclasses import dataclass

import numpy as np

MOST_CHUNKS = 1024
"""Chunks that work is cut into at most."""

# A chunk takes about so long [s]: taking one costs a hundredth of it.
_CHUNK_SECONDS = 400e-6
# Towards the end chunks get smaller, down to this [s], so that nobody has much to wait for.
_LEAST_SECONDS = 60e-6
# A call of the truth has costs that do not hang on its rows; a chunk lasts so many times as long as they, at least.
_CALLS_IN_A_CHUNK, _CALLS_IN_THE_LEAST = 20.0, 4.0
# Before anything has been measured: chunks per worker.
_FIRST_CHUNKS = 8
# How much of the measured cost of the truth is kept from call to call.
_KEPT = 0.98


@dataclass(frozen=True)
class ChunkSize:
    """Rows of the largest and the smallest chunks."""

    most: int
    least: int


class TruthCost:
    """What the truth costs, measured as it goes: seconds of a call and of a row, by a straight line through all calls.

    In processor time, as a full node would add what others do meanwhile. Calls are weighted as if their spread grew
    with the root of their rows, and remembered for some fifty more.
    """

    def __init__(self) -> None:
        # Sums over the calls of 1/rows, 1, rows, seconds/rows and seconds.
        self._inverse = self._calls = self._rows = self._rates = self._seconds = 0.0
        self._quickest = np.inf
        self._cold = True
        self.call = self.row = 0.0

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self._calls > 0

    def note(self, rows: int, seconds: float) -> None:
        """Take in a call of so many rows, at least one; the first is passed over, as it may have compiled something."""
        if self._cold:
            self._cold = False
            return
        self._inverse = _KEPT * self._inverse + 1.0 / rows
        self._calls = _KEPT * self._calls + 1.0
        self._rows = _KEPT * self._rows + rows
        self._rates = _KEPT * self._rates + seconds / rows
        self._seconds = _KEPT * self._seconds + seconds
        spread = self._inverse * self._rows - self._calls**2
        call = 0.0
        if spread > 1e-3 * self._calls**2:
            call = (self._rates * self._rows - self._calls * self._seconds) / spread
        # Neither may cost less than nothing, what costs a call no call can undercut, and the mean stays as measured.
        self._quickest = min(self._quickest / _KEPT, seconds)
        self.call = min(max(call, 0.0), self._quickest, 0.9 * self._seconds / self._calls)
        self.row = (self._seconds - self.call * self._calls) / self._rows

    def of(self, rows: int) -> float:
        """Say how long a call of so many rows may take [s]."""
        return self.call + self.row * rows

    def chunk_size(self, rows: int, workers: int) -> ChunkSize:
        """Say how to cut so many rows for so many workers."""
        if not self.known or self.row <= 0.0:
            even = -(-rows // (_FIRST_CHUNKS * workers))
            return ChunkSize(even, even)
        least = max(_LEAST_SECONDS, _CALLS_IN_THE_LEAST * self.call) - self.call
        most = max(_CHUNK_SECONDS, _CALLS_IN_A_CHUNK * self.call) - self.call
        # A quarter of the table for large chunks: what is left of it suffices for the small ones.
        return ChunkSize(
            most=max(int(most / self.row), 4 * rows // MOST_CHUNKS, 1),
            least=max(int(least / self.row), rows // MOST_CHUNKS, 1),
        )
