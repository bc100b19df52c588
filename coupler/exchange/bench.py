"""A bench: one operator's truth on one rank, which neighbours on the node help with.

An owner lays the inputs on its bench, cuts them into chunks and takes one after another, like everybody else who comes
by; what it reads at the end is the same, bit by bit, whoever computed it, because rows are independent.

Nobody depends on anybody: a chunk that a neighbour took and does not bring back in time is computed by the owner once
more, into memory of its own. Until that neighbour has let go of it, which it may never do, nothing new is laid on the
bench, so that what it writes late can meet nothing.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coupler.exchange.atomics import load_acquire
from coupler.exchange.doorbell import Patience, count_up, wait_for_change
from coupler.exchange.table import Chunk, Table
from coupler.exchange.truthcost import TruthCost
from coupler.exchange.workshop import Workshop
from coupler.operator import Operator

_log = logging.getLogger("coupler.sharing")
Floats = NDArray[np.float64]

# Work that is expected to take less than this [s] is not worth laying out.
_WORTH_SECONDS = 150e-6
# An owner waits for a neighbour's chunk so many times as long as a chunk takes, and this much [s], then does it itself.
_CHUNKS_OF_PATIENCE, _SLACK_SECONDS = 3.0, 2e-3
# A rank without work waits for its neighbours' as long as it was busy in its own call, within these limits [s].
_LEAST_IDLE_SECONDS, _MOST_IDLE_SECONDS = 100e-6, 5e-3


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

    Parameters
    ----------
    workshop : Workshop
        Where the neighbours are.
    table : Table
        The operator's, of this rank.
    operator : Operator
        Whose truth.
    """

    def __init__(self, workshop: Workshop, table: Table, operator: Operator) -> None:
        self.on = True
        self.tally = Tally()
        self.borrowed_seconds = self.lending_seconds = 0.0
        self._workshop, self._operator = workshop, operator
        self._table = table
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
            given = table.chunks - table.close()
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
        while left := table.take():
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
        takers = table.read_takers(nobody)
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


def benches_in(workshop: Workshop) -> list[Bench]:
    """Make this rank's benches in a workshop, one per operator. Collective: no."""
    return list(map(partial(Bench, workshop), workshop.own_tables, workshop.operators))
