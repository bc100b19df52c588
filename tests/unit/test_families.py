"""Statements about outputs and boxes: what they rest on is what a hand count gives, and they fail in words."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import SCORE_BINS, SCORE_ROWS, UNIT, Controller, Limits, Measures, Scale, measure, tosses
from coupler.controller.boxes import Boxes, check_boxes
from coupler.controller.findings import TRUTHS
from coupler.coupling.counts import Counts
from coupler.coupling.families import Families
from coupler.coupling.route import Route
from coupler.errors import ConfigError
from coupler.exchange import InProcessTransport, SlotShape
from coupler.operator import Operator
from coupler.records import Reason, Rows

Floats = NDArray[np.float64]

SEED, RATE, CAP, COUNT = 5, 0.3, 5.0, 2000
OPERATOR = Operator(lambda x, dt: 2.0 * x, inputs=["a", "b"], outputs=["c", "d"], atol=1e-2, rtol=0.0)
BOXES = {"left": {"a": [0.0, 0.5]}, "corner": {"a": [0.5, 2.0], "b": [0.75, 2.0]}, "nowhere": {"b": [7.0, 8.0]}}


def _answer(parts: Sequence[Rows], version: int) -> None:
    for rows in parts:
        rows.mean[...] = 2.0 * rows.inputs + [0.02, 0.005] * np.sin(1e4 * rows.inputs)
        rows.score[...] = rows.inputs[:, 1]


def _evaluated() -> tuple[Route, Floats]:
    controller = Controller(cap=CAP, audit_rate=RATE, policy="static", params={"threshold": 0.8})
    route = Route(
        OPERATOR,
        controller,
        seed=SEED,
        deadline=1.0,
        must_answer=False,
        stopwatch=Stopwatch(),
        boxes=Boxes.of(OPERATOR.signature, BOXES),
    )
    route.line.transport = InProcessTransport(SlotShape(0, COUNT, 2, 2), _answer, lambda version: None)
    route.limits = Limits.of(OPERATOR.signature, np.full(2, -9.0), np.full(2, 9.0))
    route.state = controller.promoted(route.state, 1, 0.8)
    inputs = np.random.default_rng(1).random((COUNT, 2))
    route.evaluate(inputs.copy(), np.empty((COUNT, 2)), np.arange(COUNT), 0.1, 1, 0)
    return route, inputs


def test_boxes_count_decisions_audits_accepted_and_losses_as_one_does_by_hand() -> None:
    route, inputs = _evaluated()

    coins, accepted = tosses(RATE, SEED, 1, 0, np.arange(COUNT)), inputs[:, 1] < 0.8
    error = np.abs([2.0, 0.5] * np.sin(1e4 * inputs)).max(axis=1)
    loss = np.minimum(error / CAP, 1.0)
    for box, row in zip((inputs[:, 0] < 0.5, (inputs > [0.5, 0.75]).all(axis=1)), route.counts.boxes, strict=False):
        seen = box & coins & accepted
        assert row[:3].tolist() == [box.sum(), (box & coins).sum(), (box & accepted).sum()]
        assert row[3] / UNIT == pytest.approx(loss[seen].sum(), abs=1e-6)
        assert row[4] == (error[seen] > 1.0).sum()
    assert not route.counts.boxes[2].any()


def test_where_nobody_is_asked_a_box_still_counts_its_decisions() -> None:
    route, inputs = _evaluated()
    route.counts.clear()
    route.off = True

    route.evaluate(inputs, np.empty((COUNT, 2)), np.arange(COUNT), 0.1, 2, 0)

    assert route.counts.reasons[Reason.SWITCHED_OFF] == COUNT
    assert route.counts.boxes[0].tolist() == [(inputs[:, 0] < 0.5).sum(), 0, 0, 0, 0]


def test_every_output_has_its_line_and_none_is_worse_than_the_whole() -> None:
    route, _ = _evaluated()
    certificate = replace(route.controller.certificate, delta=0.05)
    families = Families(certificate, {"reaction": route}, outputs=True)
    whole = certificate.add(certificate.start(), route.counts.findings(RATE).sums)

    families.add(0, route.counts, RATE)

    outputs, boxes = families.summary()
    assert (outputs.name, list(outputs.lines)) == ("outputs of reaction", ["c", "d"])
    assert (boxes.name, list(boxes.lines)) == ("boxes of reaction", list(BOXES))
    # c is four times as wrong as d, and is what the whole is made of.
    c, d = outputs.lines["c"], outputs.lines["d"]
    assert d.loss_estimate_per_decision < 0.5 * c.loss_estimate_per_decision
    assert c.loss_estimate_per_decision <= certificate.bound(whole).loss_estimate_per_decision
    assert "for all of these at once" in outputs.sentence


def test_an_answer_that_is_not_finite_is_a_full_loss_of_its_output_whatever_the_cap() -> None:
    shape = (SCORE_ROWS, SCORE_BINS)
    measures = Measures(np.zeros(shape, np.int64), np.zeros(TRUTHS, np.int64), np.zeros((2, 2), np.int64))
    accepted, scale = np.full(1, Reason.ACCEPTED, np.uint8), Scale(np.ones(2), np.zeros(2), cap=1e6)

    measure(np.array([[np.inf, 0.0]]), np.zeros(1), np.zeros(1, np.int64), accepted, np.zeros((1, 2)), scale, measures)

    assert measures.outputs.tolist() == [[UNIT, 0], [1, 0]]


def test_a_run_without_such_statements_has_none() -> None:
    route = Route(OPERATOR, Controller(), seed=0, deadline=1.0, must_answer=False, stopwatch=Stopwatch())
    families = Families(route.controller.certificate, {"reaction": route}, outputs=False)

    families.add(0, Counts(route.counts.shape), 0.0)

    assert families.summary() == []


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"hot": {"aa": [0.0, 1.0]}}, r"\[controller\.box\.hot\].*\"aa\" is among them"),
        ({"hot": {"a": [1.0, 1.0]}}, "is empty"),
        ({"hot": {"a": [2.0, 1.0]}}, "lower end first"),
    ],
)
def test_a_box_that_makes_no_sense_is_refused_in_words(ranges: dict[str, dict[str, list[float]]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_boxes([OPERATOR.signature], ranges)


def test_a_box_of_another_operator_is_no_box_of_this_one() -> None:
    other = Operator(lambda x, dt: x, inputs=["e"], outputs=["e"], atol=1.0, rtol=0.0)
    ranges = {"left": {"a": [0.0, 0.5]}, "hot": {"e": [1.0, 2.0]}}

    check_boxes([OPERATOR.signature, other.signature], ranges)

    assert Boxes.of(OPERATOR.signature, ranges).names == ("left",)
    assert Boxes.of(other.signature, ranges).names == ("hot",)
