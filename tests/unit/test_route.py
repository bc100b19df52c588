"""The route: one rank and one operator, from the question to the record, with the model inside the rank."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import Controller, Limits, Mode, tosses
from coupler.coupling.call import Audits, CallRecord, Piece
from coupler.coupling.route import Route
from coupler.errors import CouplerError
from coupler.exchange import Answer, InProcessTransport, SlotShape, Transport
from coupler.field import Field
from coupler.operator import Operator
from coupler.records import Reason, Rows
from tests.unit.rules import audited_sums, judged, measured

Floats = NDArray[np.float64]

SEED, STEP, CALL, DT = 11, 5, 2, 0.25
CAPACITY = 400
THRESHOLD = 0.6


def _truth(inputs: Floats, dt: float) -> Floats:
    return np.stack([inputs[:, 0] * (1.0 + dt), inputs.sum(axis=1)], axis=1)


OPERATOR = Operator(
    _truth, inputs=[Field("a"), Field("b")], outputs=[Field("c", bounds=(0, None)), Field("d")], atol=1e-3, rtol=1e-2
)


def _say(inputs: Floats, dt: float) -> tuple[Floats, Floats]:
    """Answer nearly right, doubtful where b is large, and impossible where a is tiny."""
    mean = _truth(inputs, dt) * (1.0 + 0.01 * np.sin(1e3 * inputs))
    mean[inputs[:, 0] < 0.05] = -1.0
    return mean, inputs[:, 1].copy()


def _predict(parts: Sequence[Rows], version: int) -> None:
    for rows in parts:
        rows.mean[...], rows.score[...] = _say(rows.inputs, rows.dt)


class Line(Transport):
    """A line whose far end a test plays: it answers, or leaves the question lying."""

    def __init__(
        self, *, reason: Reason = Reason.ACCEPTED, turnaround: float = 0.0, most: int = CAPACITY, first: int = 0
    ) -> None:
        self.reason, self.turnaround, self.first = reason, turnaround, first
        self.capacity = most
        self._place = np.zeros((1, 2))
        self._owes = False
        self.asked: list[Floats] = []

    def inputs(self, count: int) -> Floats:
        if count > len(self._place):
            self._place = np.zeros((count, 2))
        return self._place[:count]

    def ask(self, count: int, dt: float, version: int) -> None:
        self.asked.append(self._place[:count].copy())

    def answer(self, deadline: float) -> Answer:
        reason = Reason.ACCEPTED if len(self.asked) <= self.first else self.reason
        self._owes = reason is not Reason.ACCEPTED
        return Answer(reason, *_say(self.asked[-1], DT), 0.0, self.turnaround)

    def prepare(self, version: int) -> None: ...

    @property
    def busy(self) -> bool:
        return self._owes

    @property
    def lost(self) -> bool:
        return self._owes and self.reason is Reason.SERVER_LOST

    def close(self) -> None: ...


def _route(mode: Mode = "certified", *, transport: Transport | None = None, must_answer: bool = False) -> Route:
    controller = Controller(mode=mode, audit_rate=0.1, threshold=THRESHOLD)
    route = Route(OPERATOR, controller, seed=SEED, deadline=1.0, must_answer=must_answer, stopwatch=Stopwatch())
    route.line.transport = transport or InProcessTransport(SlotShape(0, CAPACITY, 2, 2), _predict, lambda version: None)
    if mode != "physics":
        promoted = controller.promoted(route.state, 1, 1.0)
        route.state = replace(promoted, gate=replace(promoted.gate, stopped=False))
        route.limits = Limits.of(OPERATOR.signature, np.zeros(2), np.array([0.95, 1.0]))
    return route


def _elements(count: int) -> tuple[Floats, NDArray[np.int64]]:
    return np.random.default_rng(3).random((count, 2)), np.arange(count, dtype=np.int64) + 1000


def _evaluate(route: Route, inputs: Floats, ids: NDArray[np.int64]) -> tuple[Floats, CallRecord]:
    outputs = np.full((len(inputs), 2), np.nan)
    return outputs, route.evaluate(inputs, outputs, ids, DT, STEP, CALL)


def _expected(route: Route, inputs: Floats, ids: NDArray[np.int64]) -> tuple[Floats, NDArray[np.uint8], list[int]]:
    """Outputs, reasons and sums, one rule after the other."""
    assert route.limits is not None
    truth, (mean, score) = _truth(inputs, DT), _say(inputs, DT)
    audited = tosses(0.1, SEED, STEP, CALL, ids)
    reasons = judged(inputs, mean, score, route.limits, threshold=THRESHOLD)
    error, loss = measured(mean[audited], truth[audited], OPERATOR.signature, route.controller.cap)
    sums = audited_sums(reasons, audited, error, loss, 0.1).counts.tolist()
    reasons[audited] = Reason.AUDIT
    return np.where((reasons == Reason.ACCEPTED)[:, np.newaxis], mean, truth), reasons, sums


# Nothing, one, less than fits, exactly that, one more, and several questions' worth.
@pytest.mark.parametrize("count", [0, 1, 57, CAPACITY, CAPACITY + 1, 3 * CAPACITY + 7])
def test_every_element_gets_what_the_rules_say_whatever_their_number(count: int) -> None:
    route, (inputs, ids) = _route(), _elements(count)

    outputs, record = _evaluate(route, inputs, ids)

    expected, reasons, sums = _expected(route, inputs, ids)
    np.testing.assert_array_equal(outputs, expected)
    assert record.reasons == np.bincount(reasons, minlength=len(Reason)).tolist()
    assert record.sums == sums
    assert route.counts.reasons.tolist() == record.reasons
    assert route.counts.audited.tolist() == record.sums
    assert (route.elements, route.asked_elements) == (count, count)
    if count > CAPACITY:
        assert len(set(reasons)) == 5  # accepted, audited, and three ways to be refused


def test_a_second_call_owes_nothing_to_the_first() -> None:
    route, (inputs, ids) = _route(), _elements(300)
    _evaluate(route, *_elements(777))

    outputs, record = _evaluate(route, inputs, ids)

    expected, reasons, sums = _expected(route, inputs, ids)
    np.testing.assert_array_equal(outputs, expected)
    assert (sum(record.reasons), record.sums) == (300, sums)
    assert route.counts.elements == 1077
    assert reasons.size == 300


@pytest.mark.parametrize("count", [1, 57, CAPACITY])
def test_inputs_gathered_in_place_are_asked_without_a_copy(count: int) -> None:
    line = Line()
    route, (inputs, ids) = _route(transport=line), _elements(count)
    place = route.inputs(count)
    place[...] = inputs

    outputs, _ = _evaluate(route, place, ids)

    assert np.shares_memory(place, line.inputs(count))
    np.testing.assert_array_equal(line.asked[-1], inputs)
    np.testing.assert_array_equal(outputs, _expected(route, inputs, ids)[0])


def test_inputs_from_elsewhere_in_the_transports_memory_are_asked_right() -> None:
    line = Line()
    route, (inputs, ids) = _route(transport=line), _elements(100)
    place = route.inputs(150)
    place[50:] = inputs

    outputs, _ = _evaluate(route, place[50:], ids)

    np.testing.assert_array_equal(line.asked[-1], inputs)
    np.testing.assert_array_equal(outputs, _expected(route, inputs, ids)[0])


def test_a_place_that_has_moved_since_it_was_given_is_copied_from() -> None:
    line = Line()
    route, (inputs, ids) = _route(transport=line), _elements(100)
    before = route.inputs(100)
    before[...] = inputs
    route.inputs(CAPACITY)

    outputs, _ = _evaluate(route, before, ids)

    np.testing.assert_array_equal(line.asked[-1], inputs)
    np.testing.assert_array_equal(outputs, _expected(route, inputs, ids)[0])


@pytest.mark.parametrize("count", [0, 1, CAPACITY + 1])
def test_there_is_always_a_place_to_gather_into_and_the_same_again(count: int) -> None:
    for route in (_route(), _route("physics")):
        first, again = route.inputs(count), route.inputs(count)

        assert first.shape == (count, 2)
        assert first.ctypes.data == again.ctypes.data


@pytest.mark.parametrize("count", [0, 1, CAPACITY + 1])
def test_physics_is_the_truth_of_everything_and_nothing_is_audited(count: int) -> None:
    route, (inputs, ids) = _route("physics"), _elements(count)

    outputs, record = _evaluate(route, inputs, ids)

    np.testing.assert_array_equal(outputs, _truth(inputs, DT))
    assert record.reasons[Reason.PHYSICS] == sum(record.reasons) == count
    assert record.sums == [count, 0, 0, 0, 0, 0, 0, 0]
    assert record.audit_rate == 0.0
    assert (route.asked_elements, route.truth.typical_elements) == (0, count)


def test_shadow_audits_every_answer_and_uses_none() -> None:
    route, (inputs, ids) = _route("shadow"), _elements(200)

    outputs, record = _evaluate(route, inputs, ids)

    np.testing.assert_array_equal(outputs, _truth(inputs, DT))
    assert record.reasons[Reason.AUDIT] == record.sums[1] == 200
    assert record.sums[2] > 0  # it says what would have been accepted


def test_surrogate_takes_every_answer_but_the_audited_ones() -> None:
    route, (inputs, ids) = _route("surrogate"), _elements(200)

    outputs, record = _evaluate(route, inputs, ids)

    audited = tosses(0.1, SEED, STEP, CALL, ids)
    np.testing.assert_array_equal(outputs, np.where(audited[:, np.newaxis], _truth(inputs, DT), _say(inputs, DT)[0]))
    assert record.reasons[Reason.ACCEPTED] == 200 - audited.sum()


@pytest.mark.parametrize("count", [1, 200, 2 * CAPACITY + 1])
@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.SERVER_LOST])
def test_an_answer_that_does_not_come_leaves_the_truth_for_everything(reason: Reason, count: int) -> None:
    line = Line(reason=reason)
    route, (inputs, ids) = _route(transport=line), _elements(count)
    told: list[NDArray[np.uint8]] = []
    route.on_truth = lambda piece, reasons: told.append(reasons.copy())

    for call in (1, 2):
        outputs, record = _evaluate(route, inputs, ids)

        np.testing.assert_array_equal(outputs, _truth(inputs, DT))
        assert record.reasons[reason] == sum(record.reasons) == count
        assert record.sums == [count, 0, 0, 0, 0, 0, 0, 0]
        assert (route.asked_elements, route.truth.typical_elements) == (0, call * count)
    assert len(line.asked) == 1  # nobody is asked while an answer is owed
    np.testing.assert_array_equal(np.concatenate(told), reason)
    assert route.counts.audited[0] == route.counts.reasons[reason] == 2 * count


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.SERVER_LOST])
def test_after_one_silence_the_rest_of_a_call_is_not_asked_about(reason: Reason) -> None:
    line = Line(reason=reason, first=2)
    route, (inputs, ids) = _route(transport=line), _elements(5 * CAPACITY)

    outputs, record = _evaluate(route, inputs, ids)

    assert len(line.asked) == 3
    answered, left = slice(None, 2 * CAPACITY), slice(2 * CAPACITY, None)
    np.testing.assert_array_equal(outputs[answered], _expected(route, inputs[answered], ids[answered])[0])
    np.testing.assert_array_equal(outputs[left], _truth(inputs[left], DT))
    assert record.reasons[reason] == 3 * CAPACITY
    assert sum(record.reasons) == record.sums[0] == 5 * CAPACITY
    ((said, ranges),) = record.unanswered
    assert said is reason
    assert ranges.tolist() == [[ids[left][0], ids[-1] + 1]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_who_went_without_an_answer_goes_without_again_whoever_has_the_element(ranks: int) -> None:
    count = 5 * CAPACITY
    route, (inputs, ids) = _route(transport=Line(reason=Reason.TIMEOUT, first=2)), _elements(count)
    outputs, record = _evaluate(route, inputs, ids)
    ((_, ranges),) = record.unanswered

    def absent(step: int, call: int, ids: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        assert (step, call) == (STEP, CALL)
        inside = (ids >= ranges[0, 0]) & (ids < ranges[0, 1])
        return np.where(inside, Reason.TIMEOUT, Reason.ACCEPTED).astype(np.uint8) if inside.any() else None

    again, reasons, sums = np.empty_like(outputs), np.zeros(len(Reason), np.int64), np.zeros(8, np.int64)
    for rank in range(ranks):
        route, rows = _route(), np.arange(rank, count, ranks)
        route.absent = absent
        again[rows], part = _evaluate(route, inputs[rows], ids[rows])
        reasons, sums = reasons + part.reasons, sums + part.sums

    np.testing.assert_array_equal(again, outputs)
    assert reasons.tolist() == record.reasons
    assert sums.tolist() == record.sums


def test_who_was_asked_beside_others_who_were_not_leaves_their_inputs_alone() -> None:
    given, ids = _elements(CAPACITY)
    route, asked = _route(), ids >= ids[CAPACITY // 3]  # the first elements belonged to a rank without an answer
    route.absent = lambda step, call, ids: np.where(asked, Reason.ACCEPTED, Reason.SERVER_LOST).astype(np.uint8)
    inputs = route.inputs(CAPACITY)
    inputs[...] = given

    outputs, record = _evaluate(route, inputs, ids)

    np.testing.assert_array_equal(outputs[~asked], _truth(given[~asked], DT))
    np.testing.assert_array_equal(outputs[asked], _expected(route, given[asked], ids[asked])[0])
    np.testing.assert_array_equal(inputs, given)
    assert record.reasons[Reason.SERVER_LOST] == (~asked).sum()


def test_audits_are_told_one_by_one_where_somebody_listens() -> None:
    route, (inputs, ids) = _route(), _elements(900)
    told: list[Audits] = []
    route.observer.on_audits = told.append

    _, record = _evaluate(route, inputs, ids)

    audited = tosses(0.1, SEED, STEP, CALL, ids)
    mean, score = _say(inputs, DT)
    np.testing.assert_array_equal(np.concatenate([one.ids for one in told]), ids[audited])
    np.testing.assert_array_equal(np.concatenate([one.score for one in told]), score[audited])
    error = OPERATOR.signature.error(mean[audited], _truth(inputs, DT)[audited])
    np.testing.assert_array_equal(np.concatenate([one.error for one in told]), error)
    assert {(one.step, one.call) for one in told} == {(STEP, CALL)}
    assert sum(len(one.verdicts) for one in told) == record.reasons[Reason.AUDIT]


def test_an_answer_that_must_come_and_does_not_ends_the_run() -> None:
    route = _route(transport=Line(reason=Reason.TIMEOUT), must_answer=True)

    with pytest.raises(CouplerError, match=r"step 5: the surrogate did not answer .* exchange.patience"):
        _evaluate(route, *_elements(10))


def test_what_was_kept_for_learning_knows_every_reason_and_its_truth() -> None:
    route, (inputs, ids) = _route(), _elements(2 * CAPACITY)
    told: list[tuple[Floats, Floats, NDArray[np.int64], NDArray[np.uint8]]] = []

    def keep(piece: Piece, reasons: NDArray[np.uint8]) -> None:
        told.append((piece.inputs.copy(), piece.outputs.copy(), piece.ids.copy(), reasons.copy()))

    route.on_truth = keep
    outputs, _ = _evaluate(route, inputs, ids)

    for column, expected in enumerate((inputs, outputs, ids, _expected(route, inputs, ids)[1])):
        np.testing.assert_array_equal(np.concatenate([each[column] for each in told]), expected)


def test_the_wait_that_other_work_has_hidden_is_told_from_the_wait_that_was_left() -> None:
    route = _route(transport=Line(turnaround=100.0))

    _, record = _evaluate(route, *_elements(20))

    assert record.hidden_seconds == 100.0 - record.wait_seconds
    assert (route.hidden_seconds, route.waited_seconds) == (record.hidden_seconds, record.wait_seconds)


def test_a_model_inside_the_rank_hides_nothing() -> None:
    _, record = _evaluate(_route(), *_elements(20))

    assert record.hidden_seconds == 0.0 < record.model_seconds <= record.wait_seconds


class Neighbour:
    """Somebody else who computes the truth, of every second element on another rank."""

    def __init__(self) -> None:
        self.borrowed_seconds = 1.0
        self.rows = 0
        self._bench = np.empty((10_000, 2))

    def evaluate(self, inputs: Floats, dt: float) -> Floats:
        self.rows += len(inputs)
        self.borrowed_seconds += 7.0
        outputs = self._bench[: len(inputs)]  # used again in the next call
        outputs[...] = _truth(inputs, dt)
        return outputs


def test_every_truth_goes_through_the_workshop_and_what_was_borrowed_counts_as_its_cost() -> None:
    route, (inputs, ids) = _route(), _elements(CAPACITY)
    neighbour = route.truth.worker = Neighbour()

    outputs, record = _evaluate(route, inputs, ids)

    expected, reasons, _ = _expected(route, inputs, ids)
    np.testing.assert_array_equal(outputs, expected)
    assert neighbour.rows == (reasons != Reason.ACCEPTED).sum()
    # Audits are typical elements, refused ones are not.
    assert route.truth.typical_elements == record.reasons[Reason.AUDIT]
    assert 7.0 <= route.truth.typical_seconds < 14.0


def test_seconds_are_charged_once_to_their_activities() -> None:
    route = _route()
    _, record = _evaluate(route, *_elements(1000))

    seconds = route._stopwatch.seconds
    assert seconds["truth"] == record.truth_seconds == route.truth.seconds > 0
    assert seconds["wait"] == record.wait_seconds > 0
    assert route.asked_seconds == pytest.approx(seconds["gather"] + seconds["wait"] + seconds["gate"])


def test_counts_of_a_step_add_up_until_they_are_cleared() -> None:
    route, counts = _route(), (CAPACITY + 1, 0, 3, CAPACITY, 1)
    for count in counts:
        _evaluate(route, *_elements(count))

    assert route.counts.elements == sum(counts)
    route.counts.clear()
    assert route.counts.elements == 0


def _soft(*, hysteresis: float = 0.0, blend: float = 0.0) -> Route:
    controller = Controller(audit_rate=0.1, threshold=THRESHOLD, hysteresis=hysteresis, blend=blend)
    route = Route(OPERATOR, controller, seed=SEED, deadline=1.0, must_answer=False, stopwatch=Stopwatch())
    route.line.transport = InProcessTransport(SlotShape(0, CAPACITY, 2, 2), _predict, lambda version: None)
    promoted = controller.promoted(route.state, 1, 1.0)
    route.state = replace(promoted, gate=replace(promoted.gate, stopped=False))
    route.limits = Limits.of(OPERATOR.signature, np.zeros(2), np.array([0.95, 1.0]))
    return route


def test_just_below_the_threshold_answer_and_truth_are_mixed_and_nothing_is_counted_otherwise() -> None:
    inputs, ids = _elements(CAPACITY)
    plain, expected = _evaluate(_route(), inputs, ids)

    mixed, record = _evaluate(_soft(blend=0.5), inputs, ids)

    assert (record.reasons, record.sums) == (expected.reasons, expected.sums)
    truth, depth = _truth(inputs, DT), (THRESHOLD - inputs[:, 1]) / (0.5 * THRESHOLD)
    weight = np.clip(depth, 0, 1) ** 2 * (3 - 2 * np.clip(depth, 0, 1))
    moved = (mixed != plain).any(axis=1)
    assert moved.sum() > 50
    assert set(np.flatnonzero(moved)) <= set(np.flatnonzero((depth > 0) & (depth <= 1)))
    np.testing.assert_allclose(
        mixed[moved], weight[moved, None] * plain[moved] + (1 - weight[moved, None]) * truth[moved], rtol=1e-12
    )


def test_who_was_accepted_last_time_stays_so_with_a_slightly_higher_score() -> None:
    route, (inputs, ids) = _soft(hysteresis=0.2), _elements(CAPACITY)
    _evaluate(route, inputs, ids)
    inputs[:, 1] *= 1.1  # the score

    record = route.evaluate(inputs, np.empty((CAPACITY, 2)), ids, DT, STEP + 1, CALL)

    strict = _route().evaluate(inputs, np.empty((CAPACITY, 2)), ids, DT, STEP + 1, CALL)
    assert record.reasons[Reason.ACCEPTED] > strict.reasons[Reason.ACCEPTED]
    assert record.reasons[Reason.OUT_OF_RANGE] == strict.reasons[Reason.OUT_OF_RANGE]
