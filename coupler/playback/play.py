"""Playing a recorded stream: the controller of a run, its coins and its certificate, and nothing to solve.

The stream does not notice what is accepted (open loop): its elements are those of a run by physics alone. What a real
run would do besides is left out: hard checks, alarms of regions, further versions.
"""

import numpy as np
from numpy.typing import NDArray

from coupler.controller import (
    SCORE_BINS,
    SCORE_ROWS,
    AuditedSums,
    Controller,
    ControllerState,
    Findings,
    HeldOut,
    Measures,
    Question,
    Scale,
    measure,
    quantise,
    tosses,
)
from coupler.controller.findings import TRUTHS
from coupler.controller.regions import REGION_NUMBERS
from coupler.errors import ConfigError
from coupler.learning.calibration import risk_controlled_threshold
from coupler.playback.record import Playback
from coupler.playback.step import settle
from coupler.records import Reason
from coupler.redraw import ErrorStream

_NO_REGIONS = np.zeros((0, REGION_NUMBERS), np.int64)
# Held-out elements are as many as a trainer would have in a usual buffer, whatever the size of the shadow phase.
_MOST_HELD_OUT = 2000


def play(
    stream: ErrorStream,
    controller: Controller,
    *,
    shadow: int,
    held_out: HeldOut | None = None,
    threshold: float | None = None,
) -> Playback:
    """Put a controller in front of a recorded stream.

    The audit coins are those of a run with ``controller.seed``, keyed by step and by the element's place in its step;
    findings reach the controller one step late, as in a run.

    Parameters
    ----------
    stream : ErrorStream
        Scores and errors of all elements; inputs, where the policy looks at them. Where the stream has none, the
        score stands in for them.
    controller : Controller
        Any policy, in mode "certified", "shadow" or "surrogate".
    shadow : int
        Steps at the beginning that go by physics, before there is a model. They count as decisions.
    held_out : HeldOut, optional
        What the policy is introduced to the model with; if None, at most 2000 elements of the shadow phase, evenly
        spread over it.
    threshold : float, optional
        That the model arrives with; if None, the one that conformal risk control finds on the held-out elements, as
        the trainer does.

    Returns
    -------
    Playback

    Raises
    ------
    ConfigError
        If the shadow phase is longer than the stream, or nothing says which threshold to begin with.

    Collective: no.
    """
    if not 0 <= shadow <= stream.steps:
        raise ConfigError(
            f'The stream "{stream.name}" has {stream.steps} steps and shadow = {shadow} of them: the model must come '
            f"between its begin and its end. Set shadow between 0 and {stream.steps}."
        )
    known = _first_elements(stream, shadow) if held_out is None else held_out
    if threshold is None:
        if not len(known.score):
            raise ConfigError(
                f'The stream "{stream.name}" is to be played from its first step, without held-out elements: nothing '
                "says which threshold the model arrives with. Set shadow to a few steps, or give held_out or threshold."
            )
        threshold = risk_controlled_threshold(known.score, known.error, cap=controller.cap, target=controller.target)
    playing = _Playing(stream, controller)
    for step in range(stream.steps):
        if step == shadow:
            playing.introduce(threshold, known)
        playing.step(step)
    return playing.record()


class _Playing:
    """A run in the middle."""

    def __init__(self, stream: ErrorStream, controller: Controller) -> None:
        self._stream, self._controller = stream, controller
        self._state = controller.start()
        self._loss = quantise(stream.error / controller.cap)
        self._inputs = inputs_of(stream)
        widest = int(np.diff(stream.first).max(initial=0))
        self._ids, self._zeros = np.arange(widest), np.zeros((widest, 1))
        # Written to before it is known whether the place is needed.
        self._rows, self._verdicts = np.empty(widest + 1, np.int64), np.empty(widest + 1, np.uint8)
        self._late: Findings | None = None
        self._counts, self._true = np.zeros((stream.steps, 8), np.int64), np.zeros((stream.steps, 3), np.int64)
        self._asked = np.zeros(stream.steps, np.bool_)
        self._gates: list[ControllerState] = []
        self._bounds: list[float] = []

    def introduce(self, threshold: float, held_out: HeldOut) -> None:
        self._state = self._controller.promoted(self._state, 1, threshold, held_out=held_out)

    def step(self, step: int) -> None:
        """Gate, toss and measure a step; the controller learns of the step before."""
        self._gates.append(self._state)
        rate = self._controller.audit_rate_now(self._state)
        found = self._found(step, rate) if rate else self._by_physics(step)
        if self._late is not None:
            self._state = self._controller.advance(self._state, self._late)
        self._late = found
        self._bounds.append(self._controller.certificate.loss_bound(self._state.tally))

    def record(self) -> Playback:
        counts, true = self._counts, self._true
        return Playback(
            decisions=counts[:, 0],
            asked=counts[:, 0] * self._asked,
            accepted=counts[:, 2],
            audits=true[:, 2],
            loss=true[:, 0],
            exceedances=true[:, 1],
            bound=np.array(self._bounds, np.float64),
            threshold=np.array([gate.threshold for gate in self._gates], np.float64),
            stopped=np.array([gate.stopped for gate in self._gates], np.bool_),
        )

    def _by_physics(self, step: int) -> Findings:
        self._counts[step, 0] = count = int(self._stream.first[step + 1] - self._stream.first[step])
        return Findings(AuditedSums(0.0, count))

    def _found(self, step: int, rate: float) -> Findings:
        state, counts = self._state, self._counts[step]
        rows = slice(self._stream.first[step], self._stream.first[step + 1])
        error, ids = self._stream.error[rows], self._ids[: rows.stop - rows.start]
        question = Question(self._inputs[rows], self._stream.score[rows], ids, step, 0)
        score, threshold = question.score, np.inf
        if self._controller.uses_gate:
            score, threshold = self._controller.rule.scores(state.gate, question), state.threshold
        passed = Reason.BUDGET if state.stopped else Reason.ACCEPTED
        fell = tosses(rate, self._controller.seed, step, 0, ids)
        seen = settle(
            score, error, self._loss[rows], fell, threshold, int(passed),
            self._rows, self._verdicts, counts, self._true[step],
        )  # fmt: skip
        self._asked[step] = True
        measures = _nothing_measured()
        known, verdicts = self._rows[:seen], self._verdicts[:seen]
        # Answers are as wrong as recorded: the truth is 0, the tolerance 1, and the answer the error.
        scale = Scale(np.ones(1), np.zeros(1), self._controller.cap, state.unit)
        measure(error[:, np.newaxis], score, known, verdicts, self._zeros[:seen], scale, measures)
        return Findings.of(AuditedSums.of(rate, counts), measures, _NO_REGIONS)


def inputs_of(stream: ErrorStream) -> NDArray[np.float64]:
    """Give a stream's inputs (n, n_in), or its scores as the only one."""
    return stream.inputs if len(stream.inputs) else stream.score[:, np.newaxis]


def _first_elements(stream: ErrorStream, shadow: int) -> HeldOut:
    end = int(stream.first[shadow])
    rows = np.unique(np.linspace(0, end - 1, min(end, _MOST_HELD_OUT)).astype(np.int64)) if end else slice(0, 0)
    return HeldOut(inputs_of(stream)[rows], stream.score[rows], stream.error[rows])


def _nothing_measured() -> Measures:
    scores = np.zeros((SCORE_ROWS, SCORE_BINS), np.int64)
    return Measures(scores, np.zeros(TRUTHS, np.int64), np.zeros((2, 1), np.int64))
