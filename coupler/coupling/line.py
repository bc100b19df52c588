"""The line of one route to its model: where questions are gathered, asking, and waiting for what comes."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.coupling.call import Piece
from coupler.errors import CouplerError, FieldMismatch
from coupler.exchange import Answer, Transport
from coupler.records import Reason

Floats = NDArray[np.float64]


@dataclass(slots=True)
class LineSeconds:
    """Seconds of one call, by activity.

    Parameters
    ----------
    gather : float
        Putting questions where the model reads them.
    wait : float
        Waiting for answers.
    model : float
        The model's own work on them.
    hidden : float
        In which answers were under way while this rank did other work.
    """

    gather: float = 0.0
    wait: float = 0.0
    model: float = 0.0
    hidden: float = 0.0


class Line:
    """Asks one operator's model, wherever that is, and waits as long as the run allows.

    Attributes
    ----------
    transport : Transport or None
        What carries questions and answers, while there is a model.
    seconds : LineSeconds
        Of the present call; whoever begins one sets it anew.

    Parameters
    ----------
    n_in : int
        Inputs of the operator.
    deadline : float
        Longest wait for an answer [s].
    must_answer : bool
        Whether an answer that does not come ends the run, as it must where nothing may hang on a clock.
    stopwatch : Stopwatch
        Whose timeline the seconds are noted in; they are charged by whoever asks.
    """

    def __init__(self, n_in: int, *, deadline: float, must_answer: bool, stopwatch: Stopwatch) -> None:
        self.transport: Transport | None = None
        self.seconds = LineSeconds()
        self._deadline, self._must_answer, self._stopwatch = deadline, must_answer, stopwatch
        self._asked_at = 0.0
        self._own = self._offered = np.empty((0, n_in))
        self._offered_by: Transport | None = None

    @property
    def _carrier(self) -> Transport:
        """The transport, where somebody asks: there is one then."""
        assert self.transport is not None
        return self.transport

    @property
    def silence(self) -> Reason | None:
        """Why no question can be asked now, if so. Collective: no."""
        if self._must_answer:
            return None
        if self._carrier.lost:
            return Reason.SERVER_LOST
        # One question may be late, its slot is taken: go on without asking until the server has come round to it.
        return Reason.TIMEOUT if self._carrier.busy else None

    def room(self, count: int) -> int:
        """Give how many of so many elements can be asked about at once; a slot grows if it can. Collective: no."""
        return count if self.transport is None else self.transport.room(count)

    def inputs(self, count: int, *, apart: bool) -> Floats:
        """Give an array (count, n_in) to gather into, good until the next call.

        Parameters
        ----------
        count : int
            Elements.
        apart : bool
            Whether it must be memory of this rank's own; if not, it is where the model reads, if possible.

        Collective: no.
        """
        transport = self.transport
        if apart or transport is None or transport.busy or transport.room(count) < count:
            # The same pages again and again: fresh ones cost as much as the copy into them.
            if count > len(self._own):
                self._own = np.empty((count, self._own.shape[1]))
            return self._own[:count]
        self._offered, self._offered_by = transport.inputs(count), transport
        return self._offered

    def ask(self, piece: Piece, version: int) -> None:
        """Send a question to a version of the model; from here on the piece's inputs are those of the transport.

        Raises
        ------
        FieldMismatch
            If results would be written onto the inputs.

        Collective: no.
        """
        started, transport, count = time.perf_counter(), self._carrier, len(piece.ids)
        if piece.inputs is not self._offered or transport is not self._offered_by:
            self._offered_by = None  # it may move with what follows
            place = transport.inputs(count)
            if np.may_share_memory(place, piece.outputs):
                raise FieldMismatch(
                    "out lies where the inputs of the question go, which are read again after the first results are "
                    "written: pass an array of your own, and fill the one that coupling.inputs gives."
                )
            if piece.inputs.ctypes.data != place.ctypes.data:
                np.copyto(place, piece.inputs)
            piece.inputs = place
        self._asked_at = time.perf_counter()
        transport.ask(count, piece.dt, version)
        self.seconds.gather += self._stopwatch.since("gather", started, piece.step)

    def answer(self, step: int) -> Answer:
        """Wait for the answer, in deterministic mode for that of another server in the place of one that was lost.

        Raises
        ------
        CouplerError
            If an answer that must come does not.

        Collective: no.
        """
        started, seconds = time.perf_counter(), self.seconds
        answer = self._carrier.answer(self._deadline)
        if self._must_answer and not answer.arrived:
            answer = self._persist(answer, started)
        waited = self._stopwatch.since("wait", started, step)
        seconds.wait += waited
        if answer.arrived:
            if (spans := self._stopwatch.spans) is not None:
                answered_at = self._asked_at + answer.turnaround
                spans.span("model", answered_at - answer.seconds, answered_at, step)
            seconds.model += answer.seconds
            seconds.hidden += max(0.0, answer.turnaround - waited)
        elif self._must_answer:
            raise CouplerError(
                f"step {step}: {answer.reason.sentence}, and in deterministic mode a run cannot go on "
                "without it, because what is answered in time would depend on the clock. Run it again, with a "
                'longer exchange.patience if the server was only slow, or with learning.mode = "asynchronous".'
            )
        return answer

    def answer_aside(self, piece: Piece, questions: Floats, version: int) -> Answer:
        """Ask another version about some elements of a piece that has its answer, and wait; its inputs stay.

        Raises
        ------
        CouplerError
            If an answer that must come does not.

        Collective: no.
        """
        place = self._carrier.inputs(len(questions))
        before = place.copy()  # the inputs are the rank's own, who may look at them again
        place[...] = questions
        self._asked_at = time.perf_counter()
        self._carrier.ask(len(questions), piece.dt, version)
        answer = self.answer(piece.step)
        place[...] = before
        return answer

    def renew(self) -> None:
        """Turn to a server that was started in the place of one that was lost. Collective: no; between two steps."""
        if self.transport is not None:
            self.transport.renew()

    def _persist(self, answer: Answer, since: float) -> Answer:
        """Where an answer must come: wait for a server in the place of one that was lost, and for its answer."""
        while answer.reason is Reason.SERVER_LOST and self._carrier.renew(self._left(since)):
            answer = self._carrier.answer(self._left(since))
        return answer

    def _left(self, since: float) -> float:
        return max(0.0, self._deadline - (time.perf_counter() - since))
