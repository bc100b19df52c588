"""The top of a bench in shared memory, and the chunks of work that ranks take from it."""

import logging
import time
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.exchange.atomics import compare_exchange, load_acquire, store_release
from coupler.exchange.doorbell import count_up
from coupler.exchange.segment import LINE, whole_lines
from coupler.exchange.truthcost import MOST_CHUNKS, ChunkSize
from coupler.operator import Operator

_log = logging.getLogger("coupler.sharing")
Floats = NDArray[np.float64]

_WORDS = LINE // 4
# Inputs and outputs on a bench at once [bytes]; more are laid out in rounds.
_BENCH_BYTES = 4 * 2**20

# Lines of a bench, then words of its table of chunks: bounds, takers and seconds.
_LEFT, _DONE, _WORK, _BENCH_LINES = 0, 1, 2, 3
_BOUNDS = _BENCH_LINES * _WORDS
_TAKERS = _BOUNDS + whole_lines(4 * (MOST_CHUNKS + 1)) // 4
_SECONDS = _TAKERS + whole_lines(4 * MOST_CHUNKS) // 4
TABLE_WORDS = _SECONDS + whole_lines(8 * MOST_CHUNKS) // 4
"""Words of a bench without its rows."""


@dataclass(frozen=True)
class BenchShape:
    """What one bench can hold.

    Parameters
    ----------
    capacity : int
        Rows that fit; more are laid out in rounds.
    n_in, n_out : int
        Columns of inputs and outputs.
    """

    capacity: int
    n_in: int
    n_out: int

    @classmethod
    def of(cls, operator: Operator, elements: int) -> "BenchShape":
        """Give the bench for an operator on a rank that has so many elements at once."""
        n_in, n_out = len(operator.signature.inputs), len(operator.signature.outputs)
        fitting = _BENCH_BYTES // (8 * (n_in + n_out))
        return cls(max(min(elements, fitting), 1), n_in, n_out)

    @property
    def bytes(self) -> int:
        """Size of its inputs and outputs, whole cache lines."""
        return whole_lines(8 * self.capacity * self.n_in) + whole_lines(8 * self.capacity * self.n_out)


class Table:
    """The top of one bench in shared memory: what is to be done, who did it, inputs and outputs.

    Attributes
    ----------
    left : ndarray (1,) of uint32
        Chunks nobody has taken; taking one is subtracting 1. 0 closes the bench.
    done : ndarray (2,) of uint32
        A bell that counts the chunks neighbours have finished.
    bounds : ndarray of uint32
        First row of every chunk, and the end.
    takers : ndarray of uint32
        Who computed a chunk: its rank + 1, :attr:`failed`, or 0 while nobody has.
    seconds : ndarray
        Processor time of each chunk a neighbour computed [s].
    inputs, outputs : ndarray (capacity, n_in) and (capacity, n_out)
        The rows.
    """

    failed = 2**32 - 1

    def __init__(self, shape: BenchShape, control: memoryview, rows: memoryview) -> None:
        words: NDArray[np.uint32] = np.frombuffer(control, np.uint32)
        self.left = words[_LEFT * _WORDS : _LEFT * _WORDS + 1]
        self.done = words[_DONE * _WORDS : _DONE * _WORDS + 2]
        self._chunks = words[_WORK * _WORDS : _WORK * _WORDS + 1]
        self._dt: Floats = words[_WORK * _WORDS + 2 : _WORK * _WORDS + 4].view(np.float64)
        self.bounds = words[_BOUNDS : _BOUNDS + MOST_CHUNKS + 1]
        self.takers = words[_TAKERS : _TAKERS + MOST_CHUNKS]
        self.seconds: Floats = words[_SECONDS : _SECONDS + 2 * MOST_CHUNKS].view(np.float64)
        self.capacity = shape.capacity
        split, size_in = whole_lines(8 * shape.capacity * shape.n_in), 8 * shape.capacity * shape.n_in
        size_out = 8 * shape.capacity * shape.n_out
        self.inputs: Floats = np.frombuffer(rows[:size_in], np.float64).reshape(shape.capacity, shape.n_in)
        self.outputs: Floats = np.frombuffer(rows[split : split + size_out], np.float64).reshape(
            shape.capacity, shape.n_out
        )

    @classmethod
    def apart(cls) -> "Table":
        """Make a table of one row that nobody shares."""
        shape = BenchShape(1, 1, 1)
        return cls(shape, memoryview(bytearray(4 * TABLE_WORDS)), memoryview(bytearray(shape.bytes)))

    @property
    def chunks(self) -> int:
        """Chunks of the present work."""
        return int(self._chunks[0])

    @property
    def dt(self) -> float:
        """Time step of the present work."""
        return float(self._dt[0])

    def rows(self, chunk: int) -> slice:
        """Rows of a chunk."""
        return slice(int(self.bounds[chunk]), int(self.bounds[chunk + 1]))

    def open(self, inputs: Floats, dt: float, size: ChunkSize, workers: int) -> None:
        """Lay work out; nobody may be at the bench any more."""
        np.copyto(self.inputs[: len(inputs)], inputs)
        chunks = _cut(self.bounds, len(inputs), size.least, size.most, workers)
        self._chunks[0], self._dt[0] = chunks, dt
        self.takers[:chunks] = 0
        store_release(self.done, 0, 0)
        store_release(self.left, 0, chunks)

    def take(self) -> int:
        """Take a chunk: give how many were left before, 0 if none was."""
        return int(_take(self.left, 0))

    def close(self) -> int:
        """Let nobody take a chunk any more; give how many were left."""
        return int(_close(self.left, 0))

    def read_takers(self, nobody: int) -> NDArray[np.intp]:
        """Say who computed each chunk: its rank + 1, 0 if nobody has yet, ``nobody`` for somebody who failed."""
        found: NDArray[np.intp] = _read_takers(self.takers, self.chunks, nobody)
        return found


@dataclass(frozen=True)
class Chunk:
    """Some rows on a neighbour's bench, taken by this rank: nobody else will compute them unless this one is late."""

    table: Table
    number: int
    operator: Operator

    def compute(self, rank: int) -> "Lent":
        """Compute the chunk for its owner; whatever the truth raises is left to the owner to meet."""
        table, rows = self.table, self.table.rows(self.number)
        started, taker = time.thread_time_ns(), Table.failed
        try:
            table.outputs[rows] = self.operator.evaluate_truth(table.inputs[rows], table.dt)
            taker = rank + 1
        except Exception:  # noqa: BLE001, a user's truth may raise anything, and it is the owner's to tell
            _log.debug("a neighbour's chunk failed here", exc_info=True)
        finally:
            spent = time.thread_time_ns() - started
            table.seconds[self.number] = spent * 1e-9
            store_release(table.takers, self.number, taker)
            count_up(table.done)
        return Lent(rows.stop - rows.start if taker != Table.failed else 0, spent)


@dataclass(frozen=True)
class Lent:
    """What a rank did for another: elements, and the processor time of their truth [ns]."""

    elements: int
    nanoseconds: int


@njit(nogil=True, cache=True)
def _take(left, index):  # type: ignore[no-untyped-def]
    """Take a chunk: give how many were left before, 0 if none was."""
    while True:
        before = load_acquire(left, index)
        if before == 0 or compare_exchange(left, index, before, before - np.uint32(1)):
            return before


@njit(nogil=True, cache=True)
def _close(left, index):  # type: ignore[no-untyped-def]
    """Let nobody take a chunk any more; give how many were left."""
    while True:
        before = load_acquire(left, index)
        if compare_exchange(left, index, before, np.uint32(0)):
            return before


@njit(nogil=True, cache=True)
def take_from_others(words, first, benches, mine, end):  # type: ignore[no-untyped-def]
    """Take a chunk from whoever has most left; give bench and chunks left in one number, -1 if nobody has any."""
    while True:
        most, best = np.uint32(0), -1
        for bench in range(benches):
            if bench < mine or bench >= end:
                left = load_acquire(words, first + bench * TABLE_WORDS)
                if left > most:
                    most, best = left, bench
        if best < 0:
            return np.int64(-1)
        left = _take(words, first + best * TABLE_WORDS)
        if left:
            return np.int64(best) * (MOST_CHUNKS + 1) + np.int64(left)


@njit(nogil=True, cache=True)
def _read_takers(takers, chunks, nobody):  # type: ignore[no-untyped-def]
    """Give who computed each chunk, as an index: 0 is nobody yet, ``nobody`` somebody who failed."""
    read = np.empty(chunks, np.intp)
    for chunk in range(chunks):
        read[chunk] = min(np.intp(load_acquire(takers, chunk)), np.intp(nobody))
    return read


@njit(nogil=True, cache=True)
def _cut(bounds, rows, least, most, workers):  # type: ignore[no-untyped-def]
    """Cut rows into chunks, large ones first and smaller ones as less is left; give how many there are."""
    row = chunk = 0
    bounds[0] = 0
    while row < rows:
        size = min(max(least, min(most, (rows - row) // (2 * workers))), rows - row)
        if chunk == MOST_CHUNKS - 1:
            size = rows - row
        row += size
        chunk += 1
        bounds[chunk] = row
    return chunk
