"""The gate: every reason for a refusal, the order they come in, and its one pass beside the rules in NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupler.controller import (
    Gate,
    Limits,
    Workspace,
    put_rows,
)
from coupler.errors import FieldMismatch
from coupler.field import Field
from coupler.operator import Operator
from coupler.records import Reason
from tests.unit.rules import audited_sums, judged, measured

OPERATOR = Operator(
    lambda inputs, dt: inputs[:, :2],
    inputs=[Field("u", bounds=(0, None)), Field("v", bounds=(0, 10)), Field("temperature")],
    outputs=[Field("u", bounds=(0, None)), Field("v", bounds=(0, 10))],
    atol=[1e-3, 2e-3],
    rtol=[0.0, 1e-2],
    conserved={"mass": {"u": 1.0, "v": 2.0}},
)
SIGNATURE = OPERATOR.signature
LIMITS = Limits.of(SIGNATURE, np.array([0.0, 0.0, 200.0]), np.array([5.0, 5.0, 900.0]))
GOOD = [1.0, 2.0, 300.0]
# |1| 1e-3 + |2| (2e-3 + 1e-2 |v|) at v = 2: how far the mass may be off.
ALLOWED = 1e-3 + 2 * (2e-3 + 1e-2 * 2.0)


CAP = 2.0
GATE = Gate(LIMITS, np.array(SIGNATURE.atol), np.array(SIGNATURE.rtol), CAP)


def workspace(count, audited):
    """Room for so many elements, full of what nobody may read."""
    rows = np.full(count + 3, -1, np.int64)
    rows[: len(audited)] = audited
    return Workspace(
        audited=rows,
        verdicts=np.full(count, 99, np.uint8),
        rest=np.full(count, -1, np.int64),
        rest_inputs=np.full((count, 3), np.nan),
        reasons=np.full(count, 99, np.uint8),
        by_reason=np.zeros(len(Reason), np.int64),
        sums=np.zeros(8, np.int64),
    )


def judge(inputs, mean, score, gate=GATE, *, threshold, stopped=False):
    """What the gate says of answers of which none is audited."""
    space = workspace(len(score), [])
    nobody = np.empty((0, mean.shape[1]))
    gate.settle(inputs, mean, score, nobody, np.empty_like(mean), space, threshold=threshold, stopped=stopped)
    return space.reasons


def reason_of(inputs=GOOD, mean=(1.0, 2.0), score=0.5, threshold=1.0, stopped=False):
    rows, answer = np.array([inputs], dtype=float), np.array([mean], dtype=float)
    return Reason(judge(rows, answer, np.array([score]), threshold=threshold, stopped=stopped)[0])


def test_a_good_answer_with_a_low_score_is_accepted():
    assert reason_of() == Reason.ACCEPTED


@pytest.mark.parametrize("mean", [(np.nan, 2.0), (1.0, np.inf), (-np.inf, 2.0)])
def test_an_answer_that_is_not_finite_is_vetoed(mean):
    assert reason_of(mean=mean) == Reason.NOT_FINITE


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_vetoed_whatever_the_threshold(score):
    assert reason_of(score=score, threshold=np.inf) == Reason.NOT_FINITE


@pytest.mark.parametrize("mean", [(-1e-12, 2.0), (1.0, 10.000001)])
def test_an_answer_outside_the_bounds_of_its_field_is_vetoed(mean):
    assert reason_of(mean=mean) == Reason.OUT_OF_BOUNDS


def test_an_answer_on_the_bounds_of_its_field_stands():
    assert reason_of(inputs=[4.0, 0.0, 300.0], mean=(4.0, 0.0)) == Reason.ACCEPTED


def test_a_conserved_sum_may_be_off_by_the_tolerances_of_its_terms_and_no_more():
    assert reason_of(mean=(1.0 + 0.999 * ALLOWED, 2.0)) == Reason.ACCEPTED
    assert reason_of(mean=(1.0 + 1.001 * ALLOWED, 2.0)) == Reason.NOT_CONSERVED


@pytest.mark.parametrize("inputs", [[6.0, 2.0, 300.0], [1.0, 2.0, 100.0], [1.0, 2.0, np.nan]])
def test_inputs_outside_the_training_range_are_vetoed(inputs):
    assert reason_of(inputs=inputs, mean=(inputs[0], 2.0)) == Reason.OUT_OF_RANGE


def test_a_score_at_the_threshold_falls_back():
    assert reason_of(score=1.0, threshold=1.0) == Reason.SCORE
    assert reason_of(score=np.nextafter(1.0, 0.0), threshold=1.0) == Reason.ACCEPTED


@pytest.mark.parametrize("score", [0.0, -0.0, -5.0])
def test_a_threshold_of_zero_refuses_whatever_a_score_claims(score):
    assert reason_of(score=score, threshold=0.0) == Reason.SCORE


def test_the_hard_stop_names_itself_only_where_nothing_else_refuses():
    assert reason_of(stopped=True) == Reason.BUDGET
    assert reason_of(stopped=True, score=2.0) == Reason.SCORE
    assert reason_of(stopped=True, mean=(np.nan, 2.0)) == Reason.NOT_FINITE


def test_no_elements_give_no_reasons():
    assert judge(np.empty((0, 3)), np.empty((0, 2)), np.empty(0), threshold=1.0).shape == (0,)


def test_an_operator_without_conserved_sums_has_none_to_break():
    operator = Operator(lambda inputs, dt: inputs, inputs=["u"], outputs=["u"], atol=1.0, rtol=0.0)
    limits = Limits.of(operator.signature, np.array([-np.inf]), np.array([np.inf]))

    gate = Gate(limits, np.ones(1), np.zeros(1), CAP)

    assert judge(np.zeros((1, 1)), np.full((1, 1), 1e9), np.zeros(1), gate, threshold=1.0)[0] == Reason.ACCEPTED


@pytest.mark.parametrize(
    ("inputs", "mean", "score"),
    [((4, 2), (4, 2), (4,)), ((4, 3), (4, 3), (4,)), ((4, 3), (3, 2), (4,)), ((4, 3), (4, 2), (4, 1))],
)
def test_arrays_that_do_not_fit_the_operator_are_refused_in_words(inputs, mean, score):
    with pytest.raises(FieldMismatch, match="3 inputs and 2 outputs"):
        judge(np.ones(inputs), np.ones(mean), np.ones(score), threshold=1.0)


def test_a_training_range_of_another_length_is_refused_in_words():
    with pytest.raises(FieldMismatch, match="u, v, temperature"):
        Limits.of(SIGNATURE, np.zeros(2), np.ones(2))


def test_the_gate_agrees_with_the_rules_on_a_batch_that_meets_every_reason():
    rng = np.random.default_rng(3)
    inputs = rng.uniform([-0.2, -0.2, 100], [5.5, 5.5, 1000], (20_000, 3))
    mean = inputs[:, :2] + rng.normal(0, 0.02, (20_000, 2))
    mean[rng.random(20_000) < 0.05] = np.nan
    score = rng.normal(0.5, 0.5, 20_000)

    reasons = judge(inputs, mean, score, threshold=0.7)

    np.testing.assert_array_equal(reasons, judged(inputs, mean, score, LIMITS, threshold=0.7))
    assert set(reasons) == {0, 1, 3, 4, 5, 6}


numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10))


@settings(deadline=None)  # the first example waits for the compiler
@given(st.lists(st.tuples(numbers, numbers, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=20))
def test_losses_are_the_errors_of_the_signature_quantised(rows):
    answer, truth = np.ascontiguousarray(np.array(rows, dtype=float).reshape(-1, 2, 2).swapaxes(0, 1))

    space = workspace(len(answer), np.arange(len(answer)))
    inputs, doubt = np.ones((len(answer), 3)), np.zeros(len(answer))
    GATE.settle(inputs, answer, doubt, truth, np.empty_like(answer), space, threshold=1.0, judges=False)

    error, loss = measured(answer, truth, SIGNATURE, CAP)
    assert tuple(space.sums[3:5]) == (loss.sum(), (error > 1.0).sum())


def answered(count, seed, *, clean):
    """A piece with its answer: mostly sound, or one that meets every reason."""
    rng = np.random.default_rng(seed)
    lower, upper = ([0.0, 0.0, 200.0], [5.0, 5.0, 900.0]) if clean else ([-0.2, -0.2, 150.0], [5.2, 5.2, 950.0])
    inputs = rng.uniform(lower, upper, (count, 3))
    mean = inputs[:, :2] + rng.normal(0, 1e-4 if clean else 0.01, (count, 2)).clip(-0.1, 0.1)
    score = rng.normal(0.5, 0.3, count)
    if clean:
        np.abs(mean, out=mean)
    else:
        mean[rng.random(count) < 0.02] = np.inf
        score[rng.random(count) < 0.02] = np.nan
    truth = mean + rng.normal(0, 3e-3, (count, 2))
    truth[rng.random(count) < 0.01] = np.nan
    audited = np.flatnonzero(rng.random(count) < 0.1)
    return inputs, mean, score, truth[audited], audited


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1000])
def test_one_pass_is_judging_measuring_and_taking_one_after_the_other(count, clean, stopped):
    inputs, mean, score, truth, audited = answered(count, seed=count, clean=clean)
    outputs, space = np.full((count, 2), -7.0), workspace(count, audited)

    left = GATE.settle(inputs, mean, score, truth, outputs, space, threshold=0.9, stopped=stopped)

    reasons = judged(inputs, mean, score, LIMITS, threshold=0.9, stopped=stopped)
    was_audited = np.zeros(count, bool)
    was_audited[audited] = True
    error, loss = measured(mean[audited], truth, SIGNATURE, CAP)
    np.testing.assert_array_equal(space.sums, audited_sums(reasons, was_audited, error, loss, 0.1).counts)
    reasons[audited] = Reason.AUDIT
    np.testing.assert_array_equal(space.reasons, reasons)
    np.testing.assert_array_equal(space.by_reason, np.bincount(reasons, minlength=len(Reason)))
    accepted = reasons == Reason.ACCEPTED
    rest = np.flatnonzero(~accepted & ~was_audited)
    assert left == len(rest)
    np.testing.assert_array_equal(space.rest[:left], rest)
    np.testing.assert_array_equal(space.rest_inputs[:left], inputs[rest])
    np.testing.assert_array_equal(outputs[accepted], mean[accepted])
    np.testing.assert_array_equal(outputs[audited], truth)


def test_without_judging_everything_is_taken_and_the_audits_are_measured_all_the_same():
    inputs, mean, score, truth, audited = answered(300, seed=1, clean=False)
    outputs, space = np.empty((300, 2)), workspace(300, audited)

    left = GATE.settle(inputs, mean, score, truth, outputs, space, threshold=0.0, judges=False)

    _, loss = measured(mean[audited], truth, SIGNATURE, CAP)
    assert left == 0
    assert space.by_reason[Reason.ACCEPTED] + space.by_reason[Reason.AUDIT] == 300
    assert tuple(space.sums[:4]) == (300, len(audited), 300, loss.sum())


def test_pieces_add_up_to_the_whole():
    inputs, mean, score, truth, audited = answered(1000, seed=2, clean=False)
    whole, parts = workspace(1000, audited), workspace(1000, audited)
    GATE.settle(inputs, mean, score, truth, np.empty((1000, 2)), whole, threshold=0.9)

    for rows in (slice(0, 1), slice(1, 333), slice(333, 1000)):
        inside = (audited >= rows.start) & (audited < rows.stop)
        part = parts._replace(audited=audited[inside] - rows.start)
        count = rows.stop - rows.start
        GATE.settle(inputs[rows], mean[rows], score[rows], truth[inside], np.empty((count, 2)), part, threshold=0.9)

    np.testing.assert_array_equal(parts.sums, whole.sums)
    np.testing.assert_array_equal(parts.by_reason, whole.by_reason)


def test_an_answer_that_does_not_fit_is_refused_in_words_by_the_one_pass_too():
    space = workspace(4, [])

    with pytest.raises(FieldMismatch, match="3 inputs and 2 outputs"):
        GATE.settle(
            np.ones((4, 3)), np.ones((3, 2)), np.ones(4), np.empty((0, 2)), np.ones((4, 2)), space, threshold=1.0
        )


def test_rows_are_put_where_they_belong_and_nowhere_else():
    outputs = np.zeros((5, 2))

    put_rows(np.array([3, 0, 4]), 2, np.array([[1.0, 2.0], [3.0, 4.0]]), outputs)

    np.testing.assert_array_equal(outputs, [[3, 4], [0, 0], [0, 0], [1, 2], [0, 0]])
