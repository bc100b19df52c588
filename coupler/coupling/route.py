"""The route of one operator on one rank: which elements the surrogate answers, which the truth, and why."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import (
    AuditedSums,
    Coins,
    Controller,
    ControllerState,
    Gate,
    Limits,
    Question,
    Stream,
    Workspace,
    put_rows,
)
from coupler.controller.blending import band, mixed
from coupler.controller.boxes import Boxes
from coupler.controller.hysteresis import Hysteresis, Remembered
from coupler.controller.repair import repair
from coupler.coupling.call import CallRecord, Piece, StepSetting, Unanswered, id_ranges
from coupler.coupling.counts import Counts, CountsShape
from coupler.coupling.line import Line, LineSeconds
from coupler.coupling.observer import Observer
from coupler.coupling.truth import Truth
from coupler.exchange import Answer
from coupler.operator import Operator
from coupler.records import Reason

Floats = NDArray[np.float64]
Reasons = NDArray[np.uint8]
Rows = NDArray[np.int64]

_SUMS = len(AuditedSums(audit_rate=1.0, decisions=0).counts)
# Why a question that would have been asked had no answer: these hang on a clock, or on what broke.
_UNANSWERED = (Reason.TIMEOUT, Reason.SERVER_LOST)


@dataclass(frozen=True)
class RouteMemory:
    """What a route needs to go on, besides the versions themselves.

    Parameters
    ----------
    state : ControllerState
        The gate, the certificate's evidence, the alarms.
    challenger : int
        The version on trial.
    off : bool
        Whether the surrogate is switched off.
    """

    state: ControllerState
    challenger: int
    off: bool


class Route:
    """Evaluates one operator for this rank and counts what became of every element.

    Attributes
    ----------
    state : ControllerState
        Replaced between steps by whoever reduces over the ranks, never within one.
    line : Line
        The way to the model.
    observer : Observer
        Counts what truth says of answers.
    challenger : int
        Another version that is asked about the audited elements, too, while it is on trial; 0 if there is none.
    off : bool
        Whether the surrogate is switched off, because it does not pay.
    truth : Truth
        Computes every truth, and knows what that costs.
    counts : Counts
        Of the present step.
    absent : callable or None
        Says who goes without an answer in a call, in a run that follows a script; nobody does if it is left out.
    on_truth : callable or None
        Told of every piece and its reasons once its outputs are there; both are good until it returns.
    elements, asked_elements : int
        Elements evaluated so far, and those of them the surrogate answered, taken or not.
    asked_seconds : float
        Wall-clock time of asking: gathering, waiting, judging and taking [s].
    waited_seconds, hidden_seconds : float
        Time spent waiting for answers, and time in which they were under way while this rank did other work [s].

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
    regions : int
        Regions of the input space that may be watched.
    boxes : Boxes, optional
        Parts of the input space that there are statements about.
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
        regions: int = 0,
        boxes: Boxes | None = None,
    ) -> None:
        self.operator = operator
        self.controller = controller
        self.state: ControllerState = controller.start()
        self.line = Line(
            len(operator.signature.inputs), deadline=deadline, must_answer=must_answer, stopwatch=stopwatch
        )
        self.truth = Truth(operator, stopwatch)
        self.challenger = 0
        self.off = False
        self.absent: Callable[[int, int, NDArray[np.int64]], Reasons | None] | None = None
        named = boxes or Boxes.of(operator.signature, {})
        self.counts = Counts(CountsShape(len(operator.signature.output_fields), regions, len(named.names)))
        self.observer = Observer(operator, controller.cap, named, self.counts)
        self._hysteresis = Hysteresis(controller.hysteresis)
        self.on_truth: Callable[[Piece, Reasons], None] | None = None
        self.elements = self.asked_elements = 0
        self.asked_seconds = self.waited_seconds = self.hidden_seconds = 0.0
        self._stopwatch = stopwatch
        self._coins = Coins(seed, Stream.AUDIT)
        self._n_in, self._n_out = len(operator.signature.inputs), len(operator.signature.outputs)
        self._atol, self._rtol = np.array(operator.signature.atol), np.array(operator.signature.rtol)
        self._gate: Gate | None = None
        self._gate_seconds = self._trial_seconds = self._truth_before = 0.0
        self._unanswered: list[Unanswered] = []
        self._silent = id_ranges(np.empty(0, np.int64))
        self._space = _workspace(0, self._n_in)
        self._no_truth = np.empty((0, self._n_out))

    @property
    def limits(self) -> Limits | None:
        """The hard gates of the present version."""
        return None if self._gate is None else self._gate.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._gate = Gate(limits, self._atol, self._rtol, self.controller.cap)

    def inputs(self, count: int) -> Floats:
        """Give an array (count, n_in) to gather into, good until the next call: the transport's own if possible."""
        # Where a script says who is asked, a question is a part of its call, and would lie on what is left of it.
        return self.line.inputs(count, apart=self.absent is not None)

    def evaluate(
        self, inputs: Floats, outputs: Floats, ids: NDArray[np.int64], dt: float, step: int, call: int
    ) -> CallRecord:
        """Fill the outputs of every element, from the surrogate or from the truth. Collective: no.

        Parameters
        ----------
        inputs : ndarray (n, n_in), C order
            Operator inputs.
        outputs : ndarray (n, n_out), C order
            Receives the result; must not overlap the inputs.
        ids : ndarray (n,) of int64
            Global ids.
        dt : float
            Time step.
        step, call : int
            The step, and the number of the call within it.

        Returns
        -------
        CallRecord

        Raises
        ------
        CouplerError
            If an answer that must come does not.

        Collective: no.
        """
        count, space = len(inputs), self._space
        self.line.seconds = seconds = LineSeconds()
        self._gate_seconds = self._trial_seconds = 0.0
        self._truth_before = self.truth.seconds
        self._unanswered = []
        self.elements += count
        closed = self._closed()
        if closed is not None:
            reasons, sums = [0] * len(space.by_reason), [0] * len(space.sums)
            reasons[closed] = sums[0] = count
            self.counts.reasons[closed] += count
            self.counts.audited[0] += count
            if closed in _UNANSWERED:
                self._note_unanswered(closed, ids)
            if count:
                self._close(Piece(inputs, outputs, ids, dt, step, call), closed)
            return self._record(step, call, reasons, sums)
        space.by_reason.fill(0)
        space.sums.fill(0)
        call_whole = Piece(inputs, outputs, ids, dt, step, call)
        if self.absent is None or not self._follow(call_whole, self.absent):
            self._go_through(call_whole)
        self.counts.reasons += space.by_reason
        self.counts.audited += space.sums
        self.asked_seconds += seconds.gather + seconds.wait + self._gate_seconds - self._trial_seconds
        self.waited_seconds += seconds.wait
        self.hidden_seconds += seconds.hidden
        self._stopwatch.charge("gather", seconds.gather)
        self._stopwatch.charge("wait", seconds.wait)
        self._stopwatch.charge("gate", self._gate_seconds)
        return self._record(step, call, space.by_reason.tolist(), space.sums.tolist())

    @property
    def needed_versions(self) -> tuple[int, ...]:
        """Versions that are asked now, and must be whatever else is loaded."""
        return tuple(sorted({self.state.version, self.challenger} - {0}))

    @property
    def loss_bound(self) -> float:
        """Certified mean loss per decision, as of the last step taken in."""
        return self.controller.certificate.loss_bound(self.state.tally)

    @property
    def audit_rate(self) -> float:
        """Share of the decisions that is audited in this step."""
        return self.controller.audit_rate_now(self.state)

    @property
    def accepted(self) -> dict[int, Remembered]:
        """What was accepted last, by call, for elements to be treated alike after a resumption."""
        return self._hysteresis.accepted()

    def resume(self, memory: RouteMemory, accepted: dict[int, Remembered]) -> None:
        """Go on from what was known; what hangs on the version that answers is up to its succession.

        Parameters
        ----------
        memory : RouteMemory
            What was known.
        accepted : dict
            What was accepted last, of all ranks.

        Collective: no.
        """
        self.state, self.challenger, self.off = memory.state, memory.challenger, memory.off
        self._hysteresis.resume(accepted)

    @property
    def memory(self) -> RouteMemory:
        """What is needed to go on."""
        return RouteMemory(self.state, self.challenger, self.off)

    @property
    def setting(self) -> StepSetting:
        """What holds in this step."""
        state = self.state
        alarms, threshold = sum(state.alarms.raised), state.threshold
        return StepSetting(
            self.audit_rate, state.version, self.challenger, self.off, state.stopped, alarms, threshold, state.unit
        )

    def _record(self, step: int, call: int, reasons: list[int], sums: list[int]) -> CallRecord:
        seconds, state = self.line.seconds, self.state
        truth_seconds = self.truth.seconds - self._truth_before
        self._stopwatch.charge("truth", truth_seconds)
        return CallRecord(
            step,
            call,
            reasons,
            sums,
            state.threshold,
            self.audit_rate,
            state.version,
            truth_seconds,
            seconds.wait,
            seconds.model,
            seconds.hidden,
            state.stopped,
            self._unanswered,
        )

    def _closed(self) -> Reason | None:
        """Why no question can be asked now, if so."""
        if not self.controller.asks:
            return Reason.PHYSICS
        if self.off:
            return Reason.SWITCHED_OFF
        if self.state.version == 0:
            return Reason.NO_MODEL
        return self.line.silence

    def _go_through(self, whole: Piece) -> None:
        """Decide on all elements, as many at once as can be asked about; after one silence nobody is asked any more.

        So what went unanswered is a tail of the call, and the counts of the call say which elements that is.
        """
        count, start = len(whole.ids), 0
        while start < count:
            # Asked every time: a slot may have grown with the question before.
            stop = start + self.line.room(count - start)
            first, closed = start, self._closed()
            silence = closed or self._decide(whole if stop - start == count else whole.take(slice(start, stop)))
            start = stop
            if silence is not None:
                self._note_unanswered(silence, whole.ids[first:])
                self._leave(whole.take(slice(first if closed else stop, count)), silence)
                return

    def _follow(self, whole: Piece, absent: Callable[[int, int, NDArray[np.int64]], Reasons | None]) -> bool:
        """Let those go without an answer that did so before, whoever they are here, and decide on the others."""
        reasons = absent(whole.step, whole.call, whole.ids)
        if reasons is None:
            return False
        for reason in map(Reason, np.unique(reasons).tolist()):
            rows = np.flatnonzero(reasons == reason)
            part = whole.take(rows)
            if reason is Reason.ACCEPTED:
                self._go_through(part)
            else:
                self._leave(part, reason)
                self._note_unanswered(reason, part.ids)
            whole.outputs[rows] = part.outputs
        return True

    def _leave(self, piece: Piece, reason: Reason) -> None:
        """Count elements that are not asked about in a call that others are, and compute their truth."""
        if not len(piece.ids):
            return
        self._space.by_reason[reason] += len(piece.ids)
        self._space.sums[0] += len(piece.ids)
        self._close(piece, reason)

    def _note_unanswered(self, reason: Reason, ids: NDArray[np.int64]) -> None:
        """Note who went without; of what is the same in every call, as without a server, one copy is kept."""
        ranges = id_ranges(ids)
        if not np.array_equal(ranges, self._silent):
            self._silent = ranges
        self._unanswered.append(Unanswered(reason, self._silent))

    def _decide(self, piece: Piece) -> Reason | None:
        """Route one piece, and say why it had no answer, if so.

        Before its answer nothing is known of a question but its audits: they fill the wait.
        """
        count = len(piece.ids)
        if len(self._space.reasons) < count:
            self._space = _workspace(count, self._n_in, self._space)
        self.line.ask(piece, self.state.version)
        audits = self._toss(piece)
        truth = self.truth.of_typical(self._space.rest_inputs[:audits], piece.dt) if audits else self._no_truth
        if self.challenger:
            truth = truth.copy()  # it is good until the next truth, and the challenger is judged after that of the rest
        answer = self.line.answer(piece.step)
        if answer.arrived:
            self._take(piece, answer, truth)
        else:
            self._go_without(piece, answer.reason, truth)
        # The line may be asked again from here on: nobody looks at the answer any more.
        defence = answer.mean[self._space.audited[:audits]] if self.challenger and answer.arrived else self._no_truth
        if self.on_truth is not None:
            self.on_truth(piece, self._space.reasons[:count])
        if len(defence):
            self._try_challenger(piece, defence, truth)
        return None if answer.arrived else answer.reason

    def _close(self, piece: Piece, reason: Reason) -> None:
        """Compute the truth of everything without asking."""
        self.observer.unanswered(piece, reason)
        np.copyto(piece.outputs, self.truth.of_typical(piece.inputs, piece.dt))
        if self.on_truth is not None:
            self.on_truth(piece, np.full(len(piece.ids), reason, np.uint8))

    def _toss(self, piece: Piece) -> int:
        started, space = time.perf_counter(), self._space
        audits = self._coins.choose(
            self.audit_rate, piece.step, piece.call, piece.ids, piece.inputs, space.audited, space.rest_inputs
        )
        self._gate_seconds += self._stopwatch.since("gate", started, piece.step)
        return audits

    def _take(self, piece: Piece, answer: Answer, truth: Floats) -> None:
        """Judge an answer, measure it where it was audited, take it where it may stand; the truth for the rest."""
        assert self._gate is not None
        started, space, state = time.perf_counter(), self._space, self.state
        self.asked_elements += len(piece.ids)
        self._repair(piece.inputs, answer.mean)
        score = self.controller.rule.scores(
            state.gate, Question(piece.inputs, answer.score, piece.ids, piece.step, piece.call)
        )
        score = self._hysteresis.eased(score, piece.ids, piece.step, piece.call)
        left = self._gate.settle(
            piece.inputs,
            answer.mean,
            score,
            truth,
            piece.outputs,
            space,
            threshold=state.threshold,
            stopped=state.stopped,
            judges=self.controller.uses_gate,
            barred=self._barred(piece),
        )
        self.observer.audited(piece, answer.mean, score, space, truth, state)
        self._gate_seconds += self._stopwatch.since("gate", started, piece.step)
        if left:
            rest, rest_truth = space.rest[:left], self.truth.of(space.rest_inputs[:left], piece.dt)
            put_rows(space.rest, left, rest_truth, piece.outputs)
            started = time.perf_counter()
            self.observer.compared(answer.mean, score, rest, space.reasons[rest], rest_truth, state.unit)
            self._gate_seconds += self._stopwatch.since("gate", started, piece.step)
        self._soften(piece, answer.mean, score, len(truth))

    def _soften(self, piece: Piece, mean: Floats, score: Floats, audits: int) -> None:
        """Remember who was accepted, and mix answer and truth just below the threshold, if the case wants it."""
        controller, space, count = self.controller, self._space, len(piece.ids)
        if not (controller.hysteresis or controller.blend):
            return
        accepted = space.reasons[:count] == Reason.ACCEPTED
        rows = band(score, accepted, self.state.threshold, controller.blend)
        if len(rows):
            truth = self.truth.of(piece.inputs[rows], piece.dt)
            piece.outputs[rows] = mixed(mean[rows], truth, score[rows], self.state.threshold, controller.blend)
        accepted[space.audited[:audits]] = space.verdicts[:audits] == Reason.ACCEPTED
        self._hysteresis.remember(accepted, piece.ids, piece.step, piece.call)

    def _repair(self, inputs: Floats, mean: Floats) -> None:
        """Move answers that miss a conserved sum by little onto it."""
        assert self._gate is not None
        repair(inputs, mean, self._gate.limits, self._atol, self._rtol, self.controller.repair)

    def _barred(self, piece: Piece) -> NDArray[np.bool_]:
        """Say which elements lie in a region under alarm; nobody is looked at while there is none."""
        heeds = self.controller.uses_gate and self.state.alarms.any
        raised = self.state.alarms.raised if heeds else ()
        found: NDArray[np.bool_] = np.array(raised, np.bool_)
        return found[self.observer.regions.find(piece.inputs)] if raised else found

    def _try_challenger(self, piece: Piece, defence: Floats, truth: Floats) -> None:
        """Ask the version on trial about the audited elements, and count how both fared."""
        questions, waited = piece.inputs[self._space.audited[: len(truth)]], self.line.seconds.wait
        answer = self.line.answer_aside(piece, questions, self.challenger)
        self._trial_seconds += self.line.seconds.wait - waited
        if answer.arrived:
            self._repair(questions, answer.mean)
            self.observer.tried(defence, answer.mean, truth)

    def _go_without(self, piece: Piece, reason: Reason, truth: Floats) -> None:
        """No answer came: the truth for everything that was not audited."""
        space, count, audits = self._space, len(piece.ids), len(truth)
        put_rows(space.audited, audits, truth, piece.outputs)
        rest = np.setdiff1d(np.arange(count), space.audited[:audits], assume_unique=True)
        if len(rest):
            put_rows(rest, len(rest), self.truth.of_typical(piece.inputs[rest], piece.dt), piece.outputs)
        space.reasons[:count] = reason
        self.observer.unanswered(piece, reason)
        space.by_reason[reason] += count
        space.sums[0] += count


def _workspace(count: int, n_in: int, before: Workspace | None = None) -> Workspace:
    """Make room for so many elements, keeping what was counted before."""
    return Workspace(
        audited=np.empty(count, np.int64),
        verdicts=np.empty(count, np.uint8),
        rest=np.empty(count, np.int64),
        rest_inputs=np.empty((count, n_in)),
        reasons=np.empty(count, np.uint8),
        by_reason=np.zeros(len(Reason), np.int64) if before is None else before.by_reason,
        sums=np.zeros(_SUMS, np.int64) if before is None else before.sums,
    )
