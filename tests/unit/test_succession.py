"""Succession on a live route: candidates are tried beside the version that answers, promoted, and taken back."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import Controller, HeldOut
from coupler.controller.regions import Regions
from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.coupling.succession import Succession
from coupler.exchange import InProcessTransport, SlotShape
from coupler.learning.introduction import ModelIntroduction
from coupler.learning.registry import ModelCard
from coupler.operator import Operator
from coupler.records import Event, EventKind, Reason, Rows

Floats = NDArray[np.float64]

ELEMENTS, MOST = 500, 2000
IDS = np.arange(ELEMENTS)


def _truth(inputs: Floats, dt: float) -> Floats:
    return 2.0 * inputs


OPERATOR = Operator(_truth, inputs=["a"], outputs=["b"], atol=1e-2, rtol=0.0)


class Cast:
    """The versions of a model, each off by a factor of the tolerance; a test may change one in mid-run."""

    def __init__(self) -> None:
        self.off = {1: 1.0, 2: 1.0, 3: 1.0}
        self.asked: list[tuple[int, int]] = []

    def predict(self, parts: Sequence[Rows], version: int) -> None:
        for rows in parts:
            self.asked.append((version, len(rows.inputs)))
            wobble = np.abs(np.sin(1e4 * rows.inputs))
            rows.mean[...] = _truth(rows.inputs, rows.dt) + 1e-2 * self.off[version] * wobble
            rows.score[...] = 0.5


def _card(version: int) -> ModelCard:
    return ModelCard(
        version=version, operator="operator", surrogate="x:Y", params={}, signature={}, step=0, samples=100,
        range_lower=(-10.0,), range_upper=(10.0,), threshold=1.0, holdout_loss=0.1, holdout_accepted=0.5, seconds=1.0,
        sha256=f"{version:064d}",
    )  # fmt: skip


class Stage:
    """A route with a succession, stepped as a session would."""

    def __init__(self, *, rate: float = 0.1) -> None:
        self.cast = Cast()
        controller = Controller(cap=5.0, audit_rate=rate, policy="static")
        self.route = Route(
            OPERATOR, controller, seed=3, deadline=1.0, must_answer=False, stopwatch=Stopwatch(), regions=2
        )
        shape = SlotShape(0, ELEMENTS, 1, 1)
        self.route.line.transport = InProcessTransport(shape, self.cast.predict, lambda version: None)
        nothing = ModelIntroduction(HeldOut(np.empty((0, 1)), np.empty(0), np.empty(0)), Regions.none(1))
        self.succession = Succession(0, self.route, MOST, lambda card: nothing)
        self.step = 0
        self.events: list[Event] = []
        self._late: tuple[Counts, object] | None = None

    def introduce(self, version: int) -> None:
        self.events.append(self.succession.introduce(_card(version), self.step))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            setting = self.route.setting
            inputs = np.random.default_rng(self.step).random((ELEMENTS, 1))
            self.route.evaluate(inputs, np.empty((ELEMENTS, 1)), IDS, 0.1, self.step, 0)
            counts = Counts(self.route.counts.shape, self.route.counts.numbers.copy())
            self.route.counts.clear()
            if self._late is not None:
                self.events += self.succession.end_step(self.step, *self._late)  # type: ignore[arg-type]
            self._late = counts, setting

    @property
    def told(self) -> list[tuple[EventKind, int]]:
        return [(event.kind, event.version) for event in self.events]


def test_the_first_version_answers_at_once() -> None:
    stage = Stage()

    stage.introduce(1)

    assert stage.told == [(EventKind.PROMOTED, 1)]
    assert (stage.route.state.version, stage.route.challenger) == (1, 0)


def test_a_better_candidate_takes_over_and_is_then_watched_against_the_one_before() -> None:
    stage = Stage()
    stage.introduce(1)
    stage.cast.off[2] = 0.1
    stage.run(3)

    stage.introduce(2)
    stage.run(30)

    assert stage.told == [(EventKind.PROMOTED, 1), (EventKind.TRIAL, 2), (EventKind.PROMOTED, 2)]
    assert stage.route.state.version == 2
    assert "version 2 had a mean capped error of" in stage.events[-1].sentence


def test_a_poisoned_candidate_is_rejected_and_no_longer_asked() -> None:
    stage = Stage()
    stage.introduce(1)
    stage.cast.off[2] = 50.0

    stage.introduce(2)
    stage.run(30)
    stage.cast.asked.clear()
    stage.run(5)

    assert stage.told[1:] == [(EventKind.TRIAL, 2), (EventKind.REJECTED, 2)]
    assert stage.route.state.version == 1
    assert {version for version, _ in stage.cast.asked} == {1}


def test_a_candidate_that_is_no_different_is_rejected_after_so_many_audits() -> None:
    stage = Stage()
    stage.introduce(1)

    stage.introduce(2)
    stage.run(MOST // (ELEMENTS // 10) + 10)

    assert stage.told[1:] == [(EventKind.TRIAL, 2), (EventKind.REJECTED, 2)]
    assert "no difference was found" in stage.events[-1].sentence


def test_a_version_that_turns_bad_after_its_promotion_is_taken_back() -> None:
    stage = Stage()
    stage.introduce(1)
    stage.cast.off[2] = 0.1
    stage.introduce(2)
    while stage.route.state.version == 1:
        stage.run(1)

    stage.cast.off[2] = 50.0
    stage.run(20)

    assert stage.told[2:] == [(EventKind.PROMOTED, 2), (EventKind.ROLLED_BACK, 1)]
    assert stage.route.state.version == 1


def test_the_version_on_trial_is_asked_about_the_audited_elements_only() -> None:
    stage = Stage()
    stage.introduce(1)
    stage.introduce(2)
    stage.cast.asked.clear()

    stage.run(1)

    (answering, all_of_them), (trying, some) = stage.cast.asked
    assert (answering, all_of_them, trying) == (1, ELEMENTS, 2)
    assert some == stage._late[0].reasons[Reason.AUDIT]  # type: ignore[index]


def test_a_trial_changes_no_output_and_no_count_but_its_own() -> None:
    def outputs(*, on_trial: bool) -> tuple[Floats, list[int]]:
        stage = Stage()
        stage.introduce(1)
        if on_trial:
            stage.introduce(2)
        found, inputs = np.empty((ELEMENTS, 1)), stage.route.inputs(ELEMENTS)
        inputs[...] = np.random.default_rng(1).random((ELEMENTS, 1))
        before = inputs.copy()
        record = stage.route.evaluate(inputs, found, IDS, 0.1, 1, 0)
        assert np.array_equal(inputs, before)  # they are the rank's own, and may be looked at again
        return found, record.reasons + record.sums

    (with_trial, counts), (without, expected) = outputs(on_trial=True), outputs(on_trial=False)

    assert np.array_equal(with_trial, without)
    assert counts == expected


@pytest.mark.parametrize("late", [1, 2, 5])
def test_audits_of_an_earlier_trial_are_not_counted_for_the_next(late: int) -> None:
    stage = Stage()
    stage.introduce(1)
    stage.introduce(2)
    stage.run(late)
    stale = Counts(stage.route.counts.shape)
    stale.trial[:] = 10**15

    stage.succession.introduce(_card(3), stage.step)
    events = stage.succession.end_step(stage.step, stale, replace_challenger(stage, 2))

    assert events == []


def replace_challenger(stage: Stage, challenger: int):  # type: ignore[no-untyped-def]
    return stage.route.setting._replace(challenger=challenger)


def test_alarmed_regions_go_to_the_truth_with_their_reason() -> None:
    stage = Stage()
    stage.introduce(1)
    stage.route.observer.regions = Regions(np.array([[0.0], [1.0]]), np.ones(1))
    alarms = replace(stage.route.state.alarms.renewed(2), raised=(True, False))
    stage.route.state = replace(stage.route.state, alarms=alarms)
    inputs, found = np.random.default_rng(1).random((ELEMENTS, 1)), np.empty((ELEMENTS, 1))

    record = stage.route.evaluate(inputs, found, IDS, 0.1, 1, 0)

    near = inputs[:, 0] < 0.5
    audited = record.reasons[Reason.AUDIT]
    assert record.reasons[Reason.ALARM] + record.reasons[Reason.ACCEPTED] + audited == ELEMENTS
    assert abs(record.reasons[Reason.ALARM] - 0.9 * near.sum()) < 30
    np.testing.assert_array_equal(found[near], _truth(inputs[near], 0.1))


class _Reused:
    """A worker that gives the same memory every time, as a node's bench does."""

    borrowed_seconds = 0.0

    def __init__(self) -> None:
        self._place = np.empty((ELEMENTS, 1))

    def evaluate(self, inputs: Floats, dt: float) -> Floats:
        self._place[: len(inputs)] = _truth(inputs, dt)
        return self._place[: len(inputs)]


def test_a_trial_is_judged_by_the_truth_of_the_audits_though_its_memory_is_used_again() -> None:
    def trial(*, reused: bool) -> list[int]:
        stage = Stage()
        stage.route.truth.worker = _Reused() if reused else stage.route.truth.worker
        stage.introduce(1)
        stage.introduce(2)
        # Half of the elements go to the truth for their region, after the audits.
        stage.route.observer.regions = Regions(np.array([[0.0], [1.0]]), np.ones(1))
        alarms = replace(stage.route.state.alarms.renewed(2), raised=(True, False))
        stage.route.state = replace(stage.route.state, alarms=alarms)
        inputs = np.random.default_rng(1).random((ELEMENTS, 1))
        stage.route.evaluate(inputs, np.empty((ELEMENTS, 1)), IDS, 0.1, 1, 0)
        found: list[int] = stage.route.counts.trial.tolist()
        return found

    assert trial(reused=True) == trial(reused=False)


def test_while_switched_off_a_candidate_takes_over_at_once_and_a_resting_trial_blocks_nobody() -> None:
    stage = Stage()
    stage.introduce(1)
    stage.introduce(2)
    trying = [stage.succession.trying]

    stage.route.off = True
    trying.append(stage.succession.trying)
    stage.introduce(3)

    assert trying == [True, False]
    assert stage.told[-1] == (EventKind.PROMOTED, 3)
    assert (stage.route.state.version, stage.route.challenger) == (3, 0)
