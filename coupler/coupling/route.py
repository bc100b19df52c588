"""The route of one operator on one rank: which elements the surrogate answers, which the truth, and why."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import Controller, ControllerState, Limits, Stream, audited_sums, losses, tosses
from coupler.coupling.counts import Counts
from coupler.errors import CouplerError
from coupler.exchange import Answer, Transport
from coupler.operator import Operator
from coupler.records import Reason

Floats = NDArray[np.float64]
Reasons = NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """Elements on their way through one call of ``evaluate``, as many as fit the transport.

    Parameters
    ----------
    inputs, outputs : ndarray (n, n_in) and (n, n_out)
        What goes in, and where the result goes.
    ids : ndarray (n,) of int64
        Global ids.
    dt : float
        Time step.
    step, call : int
        When: the step, and the number of the call within it.
    """

    inputs: Floats
    outputs: Floats
    ids: NDArray[np.int64]
    dt: float
    step: int
    call: int


@dataclass(frozen=True)
class CallRecord:
    """What one call did on this rank, for the ledger."""

    step: int
    call: int
    counts: Counts
    threshold: float
    audit_rate: float
    version: int
    truth_seconds: float
    wait_seconds: float
    model_seconds: float


class Route:
    """Evaluates one operator for this rank and counts what became of every element.

    Attributes
    ----------
    state : ControllerState
        Replaced between steps by whoever reduces over the ranks, never within one.
    limits : Limits or None
        The hard gates of the present version.
    transport : Transport or None
        The line to the model, while there is one.
    counts : Counts
        Of the present step.
    on_truth : callable or None
        Told of every piece and its reasons once its outputs are there.
    elements, asked_elements : int
        Elements evaluated so far, and those of them the surrogate answered, taken or not.
    typical_elements, typical_seconds : int, float
        Elements whose truth was computed without regard to their score, and the processor time of it [s].
    truth_seconds, asked_seconds : float
        Wall-clock time of all truth, and of asking: gathering, waiting, judging and taking [s].

    Parameters
    ----------
    operator : Operator
        The truth and its signature.
    controller : Controller
        The rules.
    seed : int
        Seed of the coins.
    deadline : float
        Longest wait for an answer [s].
    must_answer : bool
        Whether an answer that does not come ends the run, as it must where nothing may hang on a clock.
    stopwatch : Stopwatch
        Where the seconds are charged.
    """

    def __init__(
        self,
        operator: Operator,
        controller: Controller,
        *,
        seed: int,
        deadline: float,
        must_answer: bool,
        stopwatch: Stopwatch,
    ) -> None:
        self.operator = operator
        self.controller = controller
        self.state: ControllerState = controller.start()
        self.limits: Limits | None = None
        self.transport: Transport | None = None
        self.counts = Counts()
        self.on_truth: Callable[[Piece, Reasons], None] | None = None
        self.elements = self.typical_elements = self.asked_elements = 0
        self.typical_seconds = self.truth_seconds = self.asked_seconds = 0.0
        self._seed, self._deadline, self._must_answer, self._stopwatch = seed, deadline, must_answer, stopwatch
        self._atol, self._rtol = np.array(operator.signature.atol), np.array(operator.signature.rtol)
        self._model_seconds = 0.0

    def inputs(self, count: int) -> Floats:
        """Give an array (count, n_in) to gather into: the transport's own memory where that is possible."""
        if self.transport is None or self.transport.busy or count > self.transport.capacity:
            return np.empty((count, len(self.operator.signature.inputs)))
        return self.transport.inputs(count)

    def evaluate(
        self, inputs: Floats, outputs: Floats, ids: NDArray[np.int64], dt: float, step: int, call: int
    ) -> CallRecord:
        """Fill the outputs of every element, from the surrogate or from the truth. Collective: no."""
        counts = Counts()
        self.elements += len(inputs)
        before = dict(self._stopwatch.seconds)
        self._model_seconds = 0.0
        size = len(inputs) if self.transport is None else self.transport.capacity
        for start in range(0, len(inputs), max(size, 1)):
            rows = slice(start, start + size)
            piece = Piece(inputs[rows], outputs[rows], ids[rows], dt, step, call)
            reasons = self._decide(piece, counts)
            counts.reasons += np.bincount(reasons, minlength=len(Reason))
            if self.on_truth is not None:
                self.on_truth(piece, reasons)
        self.counts.add(counts)
        spent = {activity: seconds - before[activity] for activity, seconds in self._stopwatch.seconds.items()}
        self.truth_seconds += spent["truth"]
        self.asked_seconds += sum(spent[activity] for activity in ("gather", "wait", "gate", "scatter"))
        return CallRecord(
            step=step,
            call=call,
            counts=counts,
            threshold=self.state.threshold,
            audit_rate=self.audit_rate,
            version=self.state.version,
            truth_seconds=spent["truth"],
            wait_seconds=spent["wait"],
            model_seconds=self._model_seconds,
        )

    def take_counts(self) -> Counts:
        """Give the counts of the step and begin the next one's."""
        counts, self.counts = self.counts, Counts()
        return counts

    @property
    def audit_rate(self) -> float:
        """Share of the decisions that is audited in this step."""
        return self.controller.audit_rate_now(self.state)

    def _closed(self) -> Reason | None:
        """Why no question can be asked now, if so."""
        if not self.controller.asks:
            return Reason.PHYSICS
        if self.state.version == 0:
            return Reason.NO_MODEL
        assert self.transport is not None
        if self._must_answer:
            return None
        if self.transport.lost:
            return Reason.SERVER_LOST
        # One question may be late, its slot is taken: go on without asking until the server has come round to it.
        return Reason.TIMEOUT if self.transport.busy else None

    def _decide(self, piece: Piece, counts: Counts) -> Reasons:
        closed = self._closed()
        if closed is not None:
            return self._refuse(piece, closed, counts, np.zeros(len(piece.ids), np.bool_))
        piece = self._ask(piece)
        with self._stopwatch.timing("gate"):
            audited = tosses(self.audit_rate, self._seed, piece.step, piece.call, piece.ids, stream=Stream.AUDIT)
        self._typical_truth(piece, audited)  # while the server computes
        assert self.transport is not None
        with self._stopwatch.timing("wait"):
            answer = self.transport.answer(self._deadline)
        if not answer.arrived:
            if self._must_answer:
                raise CouplerError(
                    f"step {piece.step}: {answer.reason.sentence}, and in deterministic mode a run cannot go on "
                    "without it, because what is answered in time would depend on the clock. Run it again, with a "
                    'longer exchange.patience if the server was only slow, or with learning.mode = "asynchronous".'
                )
            return self._refuse(piece, answer.reason, counts, audited)
        return self._take(piece, answer, audited, counts)

    def _ask(self, piece: Piece) -> Piece:
        """Send the question; give the piece back, off the transport's memory if it lay across the question's place."""
        assert self.transport is not None
        with self._stopwatch.timing("gather"):
            place = self.transport.inputs(len(piece.inputs))
            if piece.inputs.ctypes.data != place.ctypes.data:
                if np.may_share_memory(place, piece.inputs):
                    piece = replace(piece, inputs=piece.inputs.copy())
                np.copyto(place, piece.inputs)
            self.transport.ask(len(piece.inputs), piece.dt, self.state.version)
        return piece

    def _refuse(self, piece: Piece, reason: Reason, counts: Counts, done: NDArray[np.bool_]) -> Reasons:
        """Send everything to the truth that is not done yet."""
        self._typical_truth(piece, ~done)
        counts.audited[0] += len(piece.ids)
        return np.full(len(piece.ids), reason, np.uint8)

    def _take(self, piece: Piece, answer: Answer, audited: NDArray[np.bool_], counts: Counts) -> Reasons:
        """Judge an answer, measure it where it was audited, take it where it may stand."""
        assert self.limits is not None
        self.asked_elements += len(piece.ids)
        self._model_seconds += answer.seconds
        with self._stopwatch.timing("gate"):
            reasons = self.controller.judge(self.state, piece.inputs, answer.mean, answer.score, self.limits)
            error, loss = losses(
                answer.mean[audited], piece.outputs[audited], self._atol, self._rtol, self.controller.cap
            )
            counts.audited += audited_sums(reasons, audited, error, loss, self.audit_rate).counts
            reasons[audited] = Reason.AUDIT
            accepted = reasons == Reason.ACCEPTED
        with self._stopwatch.timing("scatter"):
            np.copyto(piece.outputs, answer.mean, where=accepted[:, np.newaxis])
        self._truth(piece, ~(accepted | audited))
        return reasons

    def _typical_truth(self, piece: Piece, chosen: NDArray[np.bool_]) -> None:
        """Compute the truth of elements that were not chosen for being difficult, and note what that costs.

        In processor time: on a full node server and trainer share the cores, and a run of physics alone would not.
        """
        started = time.thread_time()
        self._truth(piece, chosen)
        self.typical_seconds += time.thread_time() - started
        self.typical_elements += int(chosen.sum())

    def _truth(self, piece: Piece, chosen: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(chosen)
        with self._stopwatch.timing("truth"):
            if len(rows) == len(chosen):
                piece.outputs[...] = self.operator.evaluate_truth(piece.inputs, piece.dt)
            elif len(rows):
                piece.outputs[rows] = self.operator.evaluate_truth(piece.inputs[rows], piece.dt)
