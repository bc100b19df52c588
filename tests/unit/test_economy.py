"""The economy of a run: seconds become windows, windows become switches, and events say so with their figures."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from coupler.clock import Stopwatch
from coupler.config import case_from
from coupler.controller import Controller
from coupler.controller.economics import WINDOW_STEPS
from coupler.coupling.economy import Economy
from coupler.coupling.foresight import Foresight
from coupler.coupling.preview import PreviewCosts, preview
from coupler.coupling.route import Route
from coupler.operator import Operator
from coupler.records import Event, EventKind

OPERATOR = Operator(lambda inputs, dt: inputs, inputs=["a"], outputs=["a"], atol=1.0, rtol=0.0)
ELEMENTS = 1000


class Books:
    """A route whose seconds a test writes down instead of spending them."""

    def __init__(self, *, truth: float, asking: float, fallback: float, training: float = 0.0) -> None:
        controller = Controller(audit_rate=0.02)
        self.route = Route(OPERATOR, controller, seed=0, deadline=1.0, must_answer=False, stopwatch=Stopwatch())
        self._truth, self._asking, self._fallback = truth, asking, fallback
        self.economy = Economy(MPI.COMM_SELF, [self.route], training)
        self.events: list[Event] = []
        # Some calls went to the truth as a whole before there was a model.
        inputs = np.zeros((ELEMENTS, 1))
        for step in (1, 2):  # the first one is not timed
            self.route.evaluate(inputs, np.empty_like(inputs), np.arange(ELEMENTS), 0.1, step, 0)
        self.route.truth._bulk_seconds = truth * self.route.truth._bulk_elements
        self.economy.end_step(0)
        self.route.state = controller.promoted(self.route.state, 1, 1.0)

    def run(self, steps: int) -> None:
        for step in range(steps):
            self.route.elements += ELEMENTS
            asked = not self.route.off
            self.route.asked_seconds += ELEMENTS * self._asking * asked
            self.route.truth.seconds += ELEMENTS * self._truth * (self._fallback if asked else 1.0)
            self.events += self.economy.end_step(step)


def test_a_surrogate_whose_answers_cost_more_than_the_truth_is_switched_off_after_one_window() -> None:
    books = Books(truth=1e-7, asking=3e-7, fallback=0.1)

    books.run(WINDOW_STEPS + 2)

    (event,) = books.events
    assert event.kind is EventKind.SWITCHED_OFF
    assert event.sentence == "switched off: 0.32 times as fast as physics alone as it is, 0.33 times at best"
    assert books.route.off
    assert not books.economy.worthwhile(0)


def test_a_surrogate_that_takes_too_little_off_the_truth_is_switched_off_later_and_may_still_learn() -> None:
    books = Books(truth=1e-6, asking=3e-7, fallback=0.9)

    books.run(4 * WINDOW_STEPS)
    early = list(books.events)
    books.run(2 * WINDOW_STEPS)

    assert (early, [event.kind for event in books.events]) == ([], [EventKind.SWITCHED_OFF])
    assert books.economy.worthwhile(0)


def test_another_version_switches_it_on_again_at_once() -> None:
    books = Books(truth=1e-6, asking=3e-7, fallback=0.9)
    books.run(8 * WINDOW_STEPS)

    (event,) = books.economy.renew(0, 99)

    assert (event.step, event.kind) == (100, EventKind.SWITCHED_ON)
    assert not books.route.off


def test_another_version_is_not_judged_on_the_window_of_the_one_before() -> None:
    books = Books(truth=1e-7, asking=3e-7, fallback=0.1)
    books.run(WINDOW_STEPS)  # the window is under way to the other ranks

    books.economy.renew(0, WINDOW_STEPS)
    books.run(1)

    assert books.events == []


def test_where_nobody_knows_what_physics_costs_nothing_is_switched_off() -> None:
    books = Books(truth=0.0, asking=3e-7, fallback=0.1)
    books.route.truth._bulk_seconds = 0.0

    books.run(500)

    assert books.events == []


def test_a_surrogate_that_pays_is_left_alone() -> None:
    books = Books(truth=1e-5, asking=3e-7, fallback=0.1)

    books.run(500)

    assert books.events == []


def test_before_there_is_a_model_nothing_is_judged() -> None:
    books = Books(truth=1e-7, asking=3e-7, fallback=0.1)
    books.route.state = books.route.controller.start()

    books.run(500)

    assert books.events == []


def test_a_training_waits_until_what_fell_back_has_cost_as_much() -> None:
    books = Books(truth=1e-5, asking=3e-7, fallback=0.1, training=0.05)  # a millisecond of fallback per step

    books.run(4 * WINDOW_STEPS)
    early = books.economy.worth_training(0)
    books.run(3 * WINDOW_STEPS)
    late = books.economy.worth_training(0)
    books.economy.trained(0)

    assert (early, late, books.economy.worth_training(0)) == (False, True, False)


def test_where_a_training_takes_nothing_from_the_ranks_it_need_not_wait() -> None:
    assert Books(truth=1e-5, asking=3e-7, fallback=0.0).economy.worth_training(0)


def test_the_first_training_need_not_wait() -> None:
    books = Books(truth=1e-5, asking=3e-7, fallback=0.1, training=1e9)
    books.route.state = books.route.controller.start()

    assert books.economy.worth_training(0)


def test_a_surrogate_that_is_switched_off_is_trained_again_once_its_absence_has_cost_as_much() -> None:
    books = Books(truth=1e-6, asking=3e-7, fallback=0.9, training=0.2)
    books.run(6 * WINDOW_STEPS)
    early = books.route.off, books.economy.worth_training(0)

    books.run(40 * WINDOW_STEPS)

    assert early == (True, False)
    assert books.economy.worth_training(0)


def _computing(rounds: int) -> Operator:
    """Make a truth of some 15 ns times ``rounds`` for an element."""

    def truth(inputs: np.ndarray, dt: float) -> np.ndarray:
        outputs = inputs
        for _ in range(rounds):
            outputs = np.sin(outputs)
        return outputs

    return Operator(truth, inputs=["a"], outputs=["a"], atol=1.0, rtol=0.0)


def _work(seconds: float) -> None:
    """Keep the core for so long."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pass


def _foreseen(operator: Operator, **sections: Mapping[str, object]) -> str:
    data = {"surrogate": {"name": "coupler.models.mlp_ensemble:MLPEnsemble"}} | sections
    foresight = Foresight(case_from(data, folder=Path()), {"a": operator})
    foresight.show("a", np.random.default_rng(0).random((20_000, 1)), 0.1)
    return foresight.hopeless(MPI.COMM_SELF)


def test_a_truth_that_only_copies_leaves_no_hope_for_any_model() -> None:
    assert _foreseen(OPERATOR).startswith("never switched on: for the elements at the start the truth takes ")


def test_a_truth_cheaper_than_the_model_alone_is_not_replaced_on_its_own_cores() -> None:
    wide = {"name": "coupler.models.mlp_ensemble:MLPEnsemble", "params": {"width": 128}}

    said = _foreseen(_computing(20), surrogate=wide, exchange={"transport": "inprocess"})

    assert said.startswith("never switched on")
    assert said.endswith("µs of the same cores")


def test_a_truth_dearer_than_asking_and_answering_is_given_a_chance() -> None:
    assert _foreseen(_computing(1000), exchange={"transport": "inprocess"}) == ""


def test_a_dear_truth_is_found_out_with_a_handful_of_elements() -> None:
    seen: list[int] = []

    def dear(inputs: np.ndarray, dt: float) -> np.ndarray:
        seen.append(len(inputs))
        _work(2e-3)
        return inputs

    operator = Operator(dear, inputs=["a"], outputs=["a"], atol=1.0, rtol=0.0)

    assert _foreseen(operator, exchange={"transport": "inprocess"}) == ""
    assert max(seen) <= 32


def test_a_truth_that_is_dear_only_as_a_whole_is_not_computed_over_and_over() -> None:
    seen: list[int] = []

    def flame(inputs: np.ndarray, dt: float) -> np.ndarray:
        seen.append(len(inputs))
        _work(5e-6 * max(len(inputs) - 100, 0))
        return inputs

    operator = Operator(flame, inputs=["a"], outputs=["a"], atol=1.0, rtol=0.0)

    assert _foreseen(operator, exchange={"transport": "inprocess"}) == ""
    assert sum(count > 32 for count in seen) == 3


def test_what_a_truth_does_once_for_so_many_elements_is_not_held_against_it() -> None:
    known: set[int] = set()

    def compiled(inputs: np.ndarray, dt: float) -> np.ndarray:
        if len(inputs) not in known:
            _work(0.1)
        known.add(len(inputs))
        return inputs

    operator = Operator(compiled, inputs=["a"], outputs=["a"], atol=1.0, rtol=0.0)

    assert _foreseen(operator).startswith("never switched on")


def test_operators_that_were_not_shown_are_given_a_chance() -> None:
    foresight = Foresight(case_from({}, folder=Path()), {"a": OPERATOR, "b": OPERATOR})
    foresight.show("a", np.zeros((1000, 1)), 0.1)

    assert foresight.hopeless(MPI.COMM_SELF) == ""


def test_a_rank_without_elements_has_nothing_against_it() -> None:
    assert preview(OPERATOR, np.empty((0, 1)), 0.1) == PreviewCosts(0, 0.0, 0.0)


def test_every_step_of_a_window_is_measured() -> None:
    books = Books(truth=1e-6, asking=1e-8, fallback=0.5)

    books.run(WINDOW_STEPS + 1)

    # Half of the truth of all its steps, not of all but one; nothing of the step in which it was judged.
    assert books.economy.switches[0].missed == pytest.approx(WINDOW_STEPS * ELEMENTS * 1e-6 * 0.5, rel=1e-3)
