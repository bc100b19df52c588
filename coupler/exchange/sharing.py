"""Sharing truth among the ranks of a node: who has none of its own left computes some of a neighbour's.

Every rank has a bench for each operator in one segment of the node, the workshop. An owner lays the inputs on its
bench, cuts them into chunks and takes one after another, like everybody else who comes by; what it reads at the end is
the same, bit by bit, whoever computed it, because rows are independent.

Nobody depends on anybody: a chunk that a neighbour took and does not bring back in time is computed by the owner once
more, into memory of its own. Until that neighbour has let go of it, which it may never do, nothing new is laid on the
bench, so that what it writes late can meet nothing.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.exchange.atomics import compare_exchange, load_acquire, store_release
from coupler.exchange.doorbell import Patience, count_up, wait_for_change
from coupler.exchange.segment import LINE, Segment, SegmentAddress, whole_lines
from coupler.operator import Operator

_log = logging.getLogger("coupler.sharing")
Floats = NDArray[np.float64]

_WORDS = LINE // 4
# A chunk takes about so long [s]: taking one costs a hundredth of it.
_CHUNK_SECONDS = 400e-6
# Towards the end chunks get smaller, down to this [s], so that nobody has much to wait for.
_LEAST_SECONDS = 60e-6
# A call of the truth has costs that do not hang on its rows; a chunk lasts so many times as long as they, at least.
_CALLS_IN_A_CHUNK, _CALLS_IN_THE_LEAST = 20.0, 4.0
# Before anything has been measured: chunks per worker.
_FIRST_CHUNKS = 8
# Work that is expected to take less than this [s] is not worth laying out.
_WORTH_SECONDS = 150e-6
# Inputs and outputs on a bench at once [bytes]; more are laid out in rounds.
_BENCH_BYTES = 4 * 2**20
_MOST_CHUNKS = 1024
# An owner waits for a neighbour's chunk so many times as long as a chunk takes, and this much [s], then does it itself.
_CHUNKS_OF_PATIENCE, _SLACK_SECONDS = 3.0, 2e-3
# A rank without work waits for its neighbours' as long as it was busy in its own call, within these limits [s].
_LEAST_IDLE_SECONDS, _MOST_IDLE_SECONDS = 100e-6, 5e-3
# How much of the measured cost of the truth is kept from call to call.
_KEPT = 0.98

# Lines of the segment: the bell, one per rank, then the benches.
_BELL, _FIRST_RANK = 0, 1
# Lines of a bench, then words of its table of chunks: bounds, takers and seconds.
_LEFT, _DONE, _WORK, _BENCH_LINES = 0, 1, 2, 3
_BOUNDS = _BENCH_LINES * _WORDS
_TAKERS = _BOUNDS + whole_lines(4 * (_MOST_CHUNKS + 1)) // 4
_SECONDS = _TAKERS + whole_lines(4 * _MOST_CHUNKS) // 4
_BENCH_WORDS = _SECONDS + whole_lines(8 * _MOST_CHUNKS) // 4


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


@dataclass(frozen=True)
class WorkshopLayout:
    """Where everything is in the segment: plain data, the same on every rank of the node.

    Parameters
    ----------
    benches : tuple of tuple of BenchShape
        By rank, then by operator; all ranks have the same operators in the same order.
    """

    benches: tuple[tuple[BenchShape, ...], ...]

    @property
    def ranks(self) -> int:
        """Ranks of the node."""
        return len(self.benches)

    @property
    def operators(self) -> int:
        """Operators of each."""
        return len(self.benches[0])

    @property
    def shapes(self) -> tuple[BenchShape, ...]:
        """All benches in their order."""
        return tuple(shape for rank in self.benches for shape in rank)

    @property
    def first_bench(self) -> int:
        """First word of the first bench's control lines."""
        return (_FIRST_RANK + self.ranks) * _WORDS

    @property
    def control_bytes(self) -> int:
        """Size of everything before the first inputs."""
        return 4 * (self.first_bench + _BENCH_WORDS * len(self.shapes))

    @property
    def bytes(self) -> int:
        """Size of the segment."""
        return self.control_bytes + sum(shape.bytes for shape in self.shapes)


@dataclass
class Tally:
    """What sharing brought and cost on this rank since it was last asked; integers, so that sums are exact.

    Parameters
    ----------
    elements : int
        Elements of neighbours computed here.
    nanoseconds : int
        Processor time of their truth [ns].
    overhead : int
        Time that sharing took here besides truth: laying out, waiting, computing twice [ns].
    """

    elements: int = 0
    nanoseconds: int = 0
    overhead: int = 0


class Workshop:
    """The mapped segment as one rank sees it: a bench per operator, and the neighbours' benches.

    Attributes
    ----------
    benches : list of Bench
        This rank's, one per operator.

    Parameters
    ----------
    segment : Segment
        Of ``layout.bytes`` bytes, all zeros when its first rank maps it.
    layout : WorkshopLayout
        Where everything is.
    rank : int
        This rank's number on the node.
    operators : sequence of Operator
        Whose truth can be shared, in the order of the layout.
    """

    def __init__(self, segment: Segment, layout: WorkshopLayout, rank: int, operators: Sequence[Operator]) -> None:
        assert len(operators) == layout.operators, (len(operators), layout.operators)
        self._segment, self._layout, self._rank, self._operators = segment, layout, rank, tuple(operators)
        self.words: NDArray[np.uint32] = np.frombuffer(segment.memory[: layout.control_bytes], np.uint32)
        self.bell = self.words[_BELL * _WORDS : _BELL * _WORDS + 2]
        self.patience = Patience()
        self.tables = self._map_tables()
        mine = rank * layout.operators
        self.benches = [Bench(self, mine + index, operator) for index, operator in enumerate(operators)]
        self._mine = (_FIRST_RANK + rank) * _WORDS
        self._warm()

    @classmethod
    def create(cls, layout: WorkshopLayout, operators: Sequence[Operator]) -> "Workshop":
        """Make the node's workshop on its first rank.

        Raises
        ------
        CouplerError
            If the node has no room for it.

        Collective: no.
        """
        return cls(Segment.create(layout.bytes), layout, 0, operators)

    @classmethod
    def attach(
        cls, address: SegmentAddress, layout: WorkshopLayout, rank: int, operators: Sequence[Operator]
    ) -> "Workshop":
        """Map the workshop another rank of the node made.

        Raises
        ------
        CouplerError
            If its owner is gone, has closed it or belongs to another user.

        Collective: no.
        """
        return cls(Segment.attach(address), layout, rank, operators)

    @property
    def address(self) -> SegmentAddress:
        """Where to :meth:`attach`, until the first rank closes it."""
        return self._segment.address

    @property
    def rank(self) -> int:
        """This rank's number on the node."""
        return self._rank

    @property
    def ranks(self) -> int:
        """Ranks of the node."""
        return self._layout.ranks

    def close(self) -> None:
        """Let nobody attach any more; what is mapped stays. Collective: no."""
        self._segment.close()

    def enter(self, phase: int) -> None:
        """Say that this rank may have work in a phase, so that neighbours who have none wait a moment for it."""
        store_release(self.words, self._mine, phase)

    def leave(self, phase: int) -> None:
        """Say that this rank will have no more work in its phase."""
        store_release(self.words, self._mine, phase + 1)
        count_up(self.bell)

    def expects(self, phase: int) -> bool:
        """Whether a neighbour is in a phase, or has not come to it yet, and may have work."""
        return bool(_expects(self.words, self._layout.ranks, phase))

    def take(self) -> "Chunk | None":
        """Take a chunk of the neighbour who has most of them left, of whatever operator."""
        layout = self._layout
        mine = self._rank * layout.operators
        found = _take_from_others(self.words, layout.first_bench, len(layout.shapes), mine, mine + layout.operators)
        if found < 0:
            return None
        bench, left = divmod(int(found), _MOST_CHUNKS + 1)
        table = self.tables[bench]
        return Chunk(table, table.chunks - left, self._operators[bench % layout.operators])

    def _map_tables(self) -> "list[Table]":
        memory, place, tables = self._segment.memory, self._layout.control_bytes, []
        for index, shape in enumerate(self._layout.shapes):
            start = 4 * (self._layout.first_bench + index * _BENCH_WORDS)
            tables.append(Table(shape, memory[start : start + 4 * _BENCH_WORDS], memory[place : place + shape.bytes]))
            place += shape.bytes
        return tables

    def _warm(self) -> None:
        """Have everything compiled, or read from the cache, before it is needed in a hurry."""
        words = np.zeros(_MOST_CHUNKS + 1, np.uint32)
        _cut(words, 1, 1, 1, 1)
        _read_takers(words, 1, 1)
        _take(words[:1], 0)
        _close(words[:1], 0)
        _take_from_others(self.words, self._layout.first_bench, 0, 0, 0)
        self.expects(1)
        self.leave(0)
        wait_for_change(self.bell, int(load_acquire(self.bell, 0)), 0.0, Patience())


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
        self.bounds = words[_BOUNDS : _BOUNDS + _MOST_CHUNKS + 1]
        self.takers = words[_TAKERS : _TAKERS + _MOST_CHUNKS]
        self.seconds: Floats = words[_SECONDS : _SECONDS + 2 * _MOST_CHUNKS].view(np.float64)
        self.capacity = shape.capacity
        split, size_in = whole_lines(8 * shape.capacity * shape.n_in), 8 * shape.capacity * shape.n_in
        size_out = 8 * shape.capacity * shape.n_out
        self.inputs: Floats = np.frombuffer(rows[:size_in], np.float64).reshape(shape.capacity, shape.n_in)
        self.outputs: Floats = np.frombuffer(rows[split : split + size_out], np.float64).reshape(
            shape.capacity, shape.n_out
        )

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

    def open(self, inputs: Floats, dt: float, size: "ChunkSize", workers: int) -> None:
        """Lay work out; nobody may be at the bench any more."""
        np.copyto(self.inputs[: len(inputs)], inputs)
        chunks = _cut(self.bounds, len(inputs), size.least, size.most, workers)
        self._chunks[0], self._dt[0] = chunks, dt
        self.takers[:chunks] = 0
        store_release(self.done, 0, 0)
        store_release(self.left, 0, chunks)


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
            most=max(int(most / self.row), 4 * rows // _MOST_CHUNKS, 1),
            least=max(int(least / self.row), rows // _MOST_CHUNKS, 1),
        )


@dataclass
class _Own:
    """What the owner itself did of its work: chunks, the seconds of their truth, and of the longest [s]."""

    chunks: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class Bench:
    """One operator's truth on this rank, shared with the neighbours while :attr:`on`; what a route evaluates.

    Attributes
    ----------
    on : bool
        Whether work is laid out and neighbours' is taken; every rank of the run should change it at the same step.
    tally : Tally
        What sharing brought and cost here since :meth:`take_tally`.
    borrowed_seconds : float
        Processor time neighbours have spent on this rank's elements so far [s].
    lending_seconds : float
        Time this rank has spent in :meth:`help` so far [s].
    """

    def __init__(self, workshop: Workshop, index: int, operator: Operator) -> None:
        self.on = True
        self.tally = Tally()
        self.borrowed_seconds = self.lending_seconds = 0.0
        self._workshop, self._operator = workshop, operator
        self._table = workshop.tables[index]
        self._cost, self._patience = TruthCost(), Patience()
        self._owed = 0  # chunks that neighbours took
        # By taker: whose rows were found to be the same as ours. Nobody's, the neighbours', those of no rank at all.
        self._trusted = np.zeros(workshop.ranks + 2, np.bool_)
        self._trusted[workshop.rank + 1] = True
        self._refused = False
        self._phase, self._entered = 0, 0.0

    def enter(self, step: int, call: int) -> None:
        """Begin a call of this operator: neighbours in the same call may expect work. Collective: no."""
        if self.on:
            self._phase = (step << 17 | call << 1) % 2**32 + 1
            self._entered = time.perf_counter()
            self._workshop.enter(self._phase)

    def evaluate(self, inputs: Floats, dt: float) -> Floats:
        """Compute the truth of rows, with the neighbours' help if they have time.

        Parameters
        ----------
        inputs : ndarray (n, n_in)
            Operator inputs.
        dt : float
            Time step.

        Returns
        -------
        ndarray (n, n_out)
            The same bits as :meth:`Operator.evaluate_truth` gives; it may lie on the bench and is good until the next
            call.

        Raises
        ------
        FieldMismatch
            If the truth returns another shape than the operator declares; and whatever the truth raises, on the rank
            whose elements they are.

        Collective: no.
        """
        if not self._shares(len(inputs)):
            return self._alone(inputs, dt)
        if len(inputs) <= self._table.capacity:
            return self._together(inputs, dt)
        outputs = np.empty((len(inputs), self._table.outputs.shape[1]))
        for start in range(0, len(inputs), self._table.capacity):
            rows = slice(start, start + self._table.capacity)
            part = inputs[rows]
            outputs[rows] = self._together(part, dt) if self._shares(len(part)) else self._alone(part, dt)
        return outputs

    def help(self) -> None:
        """End this rank's call: compute chunks of the neighbours until they have none left.

        A neighbour that is not through with the same call may have work yet: it is waited for, as long as this rank was
        busy in it, and never long.

        Collective: no.
        """
        if not self.on:
            return
        workshop, started = self._workshop, time.perf_counter()
        idle = working = 0.0
        workshop.leave(self._phase)
        while True:
            seen = int(load_acquire(workshop.bell, 0))
            before = time.perf_counter()
            chunk = workshop.take()
            if chunk is not None:
                self._lend(chunk)
                working += time.perf_counter() - before
                continue
            busy = before - self._entered - idle
            rest = min(max(busy, _LEAST_IDLE_SECONDS), _MOST_IDLE_SECONDS) - idle
            if rest <= 0.0 or not workshop.expects(self._phase):
                break
            wait_for_change(workshop.bell, seen, rest, workshop.patience)
            idle += time.perf_counter() - before
        spent = time.perf_counter() - started
        self.lending_seconds += spent
        self.tally.overhead += _nanoseconds(spent - working)

    def take_tally(self) -> Tally:
        """Give what sharing brought and cost, and begin anew."""
        tally, self.tally = self.tally, Tally()
        return tally

    def _shares(self, rows: int) -> bool:
        """Whether to lay so many rows out: it pays, they are alike everywhere, and nobody is still at the bench."""
        if not self.on or self._refused or rows < 2:
            return False
        if self._cost.known and self._cost.of(rows) < _WORTH_SECONDS:
            return False
        return int(load_acquire(self._table.done, 0)) == self._owed

    def _lend(self, chunk: Chunk) -> None:
        lent = chunk.compute(self._workshop.rank)
        self.tally.elements += lent.elements
        self.tally.nanoseconds += lent.nanoseconds

    def _alone(self, inputs: Floats, dt: float) -> Floats:
        if len(inputs) == 0 or not self.on:
            return self._operator.evaluate_truth(inputs, dt)
        started = time.thread_time_ns()
        outputs = self._operator.evaluate_truth(inputs, dt)
        self._cost.note(len(inputs), (time.thread_time_ns() - started) * 1e-9)
        return outputs

    def _together(self, inputs: Floats, dt: float) -> Floats:
        started = time.perf_counter()
        table, workers = self._table, self._workshop.ranks
        table.open(inputs, dt, self._cost.chunk_size(len(inputs), workers), workers)
        count_up(self._workshop.bell)
        own = _Own()
        try:
            self._work(own)
        finally:
            given = table.chunks - int(_close(table.left, 0))
            self._owed = given - own.chunks
        self._wait(own)
        outputs = self._collect(inputs, dt)
        spent = time.perf_counter() - started
        # What a chunk costs beside its rows would not have been spent without chunks.
        self.tally.overhead += _nanoseconds(spent - own.seconds + own.chunks * self._cost.call)
        return outputs

    def _work(self, own: _Own) -> None:
        """Take chunks of the own work until there are none."""
        table, dt, mine = self._table, self._table.dt, self._workshop.rank + 1
        while left := int(_take(table.left, 0)):
            chunk = table.chunks - left
            own.chunks += 1
            rows = table.rows(chunk)
            started, worked = time.perf_counter(), time.thread_time_ns()
            table.outputs[rows] = self._operator.evaluate_truth(table.inputs[rows], dt)
            worked, seconds = time.thread_time_ns() - worked, time.perf_counter() - started
            table.takers[chunk] = mine
            own.seconds += seconds
            own.longest = max(own.longest, seconds)
            self._cost.note(rows.stop - rows.start, worked * 1e-9)

    def _wait(self, own: _Own) -> None:
        """Wait for the chunks neighbours took, as long as they may reasonably need."""
        table = self._table
        largest = int(np.max(np.diff(table.bounds[: table.chunks + 1])))
        chunk = max(own.longest, self._cost.of(largest) if self._cost.known else 0.0)
        ends = time.perf_counter() + _SLACK_SECONDS + _CHUNKS_OF_PATIENCE * chunk
        while (seen := int(load_acquire(table.done, 0))) != self._owed:
            rest = ends - time.perf_counter()
            if rest <= 0:
                break
            wait_for_change(table.done, seen, rest, self._patience)

    def _collect(self, inputs: Floats, dt: float) -> Floats:
        """Read what came of the work; do what neighbours did not bring back, failed at or may not be trusted with."""
        table, nobody = self._table, self._workshop.ranks + 1
        takers = _read_takers(table.takers, table.chunks, nobody)
        if self._owed:
            others = (takers > 0) & (takers != self._workshop.rank + 1)
            self.borrowed_seconds += float(table.seconds[: table.chunks][others].sum())
        doubtful = np.flatnonzero(~self._trusted[takers])
        if len(doubtful) == 0:
            return table.outputs[: len(inputs)]
        outputs = table.outputs[: len(inputs)].copy()
        for chunk in doubtful.tolist():
            rows, taker = table.rows(chunk), int(takers[chunk])
            if taker in (0, nobody):
                outputs[rows] = self._operator.evaluate_truth(inputs[rows], dt)
            elif not self._trusted[taker]:
                if not self._agrees(outputs[rows], inputs[rows], dt):
                    self._refuse()
                    return self._alone(inputs, dt)
                self._trusted[taker] = True
        return outputs

    def _agrees(self, theirs: Floats, inputs: Floats, dt: float) -> bool:
        """Whether a neighbour's rows are what they are here, bit by bit, in batches of another size."""
        half = len(inputs) // 2
        parts = [part for part in (inputs[:half], inputs[half:]) if len(part)]
        ours = np.concatenate([self._operator.evaluate_truth(part, dt) for part in parts])
        return ours.tobytes() == theirs.tobytes()

    def _refuse(self) -> None:
        self._refused = True
        _log.warning(
            "The truth of %s gave other bits on another rank or in another batch, so its work is not shared: each row "
            "must depend on its own inputs and dt only. `coupler check` examines that; exchange.sharing = "
            '"off" says that you know.',
            self._operator,
        )


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


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
def _take_from_others(words, first, benches, mine, end):  # type: ignore[no-untyped-def]
    """Take a chunk from whoever has most left; give bench and chunks left in one number, -1 if nobody has any."""
    while True:
        most, best = np.uint32(0), -1
        for bench in range(benches):
            if bench < mine or bench >= end:
                left = load_acquire(words, first + bench * _BENCH_WORDS)
                if left > most:
                    most, best = left, bench
        if best < 0:
            return np.int64(-1)
        left = _take(words, first + best * _BENCH_WORDS)
        if left:
            return np.int64(best) * (_MOST_CHUNKS + 1) + np.int64(left)


@njit(nogil=True, cache=True)
def _read_takers(takers, chunks, nobody):  # type: ignore[no-untyped-def]
    """Give who computed each chunk, as an index: 0 is nobody yet, ``nobody`` somebody who failed."""
    read = np.empty(chunks, np.intp)
    for chunk in range(chunks):
        read[chunk] = min(np.intp(load_acquire(takers, chunk)), np.intp(nobody))
    return read


@njit(nogil=True, cache=True)
def _expects(words, ranks, phase):  # type: ignore[no-untyped-def]
    for rank in range(ranks):
        # Phases go up and begin again at 0; an even one was left.
        ahead = np.int32(load_acquire(words, (_FIRST_RANK + rank) * _WORDS) - np.uint32(phase))
        if ahead <= 0:
            return True
    return False


@njit(nogil=True, cache=True)
def _cut(bounds, rows, least, most, workers):  # type: ignore[no-untyped-def]
    """Cut rows into chunks, large ones first and smaller ones as less is left; give how many there are."""
    row = chunk = 0
    bounds[0] = 0
    while row < rows:
        size = min(max(least, min(most, (rows - row) // (2 * workers))), rows - row)
        if chunk == _MOST_CHUNKS - 1:
            size = rows - row
        row += size
        chunk += 1
        bounds[chunk] = row
    return chunk
