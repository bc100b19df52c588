"""Economics: what does not pay is switched off, tried again ever more rarely, and another version gets its chance."""

import pytest

from coupler.controller.economics import PROBE_STEPS, WINDOW_STEPS, Change, Costs, Economics

CHEAP_TRUTH = Costs(physics=1.0, coupled=3.0, best=2.0)
IMMATURE = Costs(physics=1.0, coupled=1.2, best=0.3)
PAYS = Costs(physics=1.0, coupled=0.4, best=0.3)


def _window(switch: Economics, costs: Costs) -> Economics:
    while not switch.due:
        switch = switch.after_step(asked=True)
    return switch.judged(costs)


def _run(steps: int, costs: Costs) -> list[bool]:
    """Whether the surrogate was asked, step by step."""
    switch, asked = Economics(), []
    for _ in range(steps):
        asked.append(switch.on)
        switch = switch.after_step(asked=True)
        if switch.due:
            switch = switch.judged(costs)
    return asked


def test_speedups_are_those_of_the_slowest_rank() -> None:
    assert PAYS.speedup == pytest.approx(2.5)
    assert PAYS.best_speedup == pytest.approx(1 / 0.3)


def test_where_nothing_was_measured_nothing_is_concluded() -> None:
    assert Costs(0.0, 0.0, 0.0).speedup == 1.0
    assert Economics(steps=WINDOW_STEPS).judged(Costs(0.0, 0.0, 0.0)).on


def test_what_cannot_pay_even_if_every_answer_were_taken_is_switched_off_after_one_window() -> None:
    switch = _window(Economics(), CHEAP_TRUTH)

    assert (switch.on, switch.hopeful, switch.change) == (False, False, Change.OFF)


def test_what_could_pay_gets_some_windows_to_get_better() -> None:
    switch, windows = Economics(), 0
    while switch.on:
        switch, windows = _window(switch, IMMATURE), windows + 1

    assert windows == 5
    assert switch.hopeful


def test_what_pays_stays_on() -> None:
    assert all(_run(2000, PAYS))


def test_a_good_window_forgives_the_bad_ones_before() -> None:
    switch = Economics()
    for costs in (IMMATURE, IMMATURE, PAYS, IMMATURE, IMMATURE, IMMATURE, IMMATURE):
        switch = _window(switch, costs)

    assert switch.on


def test_tries_that_fail_take_less_than_two_per_cent_of_a_long_run() -> None:
    asked = _run(60_000, CHEAP_TRUTH)

    assert sum(asked) / len(asked) < 0.001
    # It is tried again all the same: costs may change.
    assert asked.count(True) > WINDOW_STEPS + 2 * PROBE_STEPS


def test_a_try_that_succeeds_switches_it_on_for_good() -> None:
    switch = _window(Economics(), CHEAP_TRUTH)
    while not switch.on:
        switch = switch.after_step(asked=False)
    assert switch.change is Change.ON and switch.window == PROBE_STEPS

    switch = _window(switch, PAYS)

    assert switch.on and switch.window == WINDOW_STEPS


def test_another_version_is_another_chance_where_there_is_hope() -> None:
    hopeful = Economics(on=False, hopeful=True)

    assert hopeful.renewed().change is Change.ON


def test_another_version_is_none_where_asking_alone_costs_more_than_the_truth() -> None:
    hopeless = Economics(on=False, hopeful=False)

    assert not hopeless.renewed().on


def test_steps_without_a_model_are_not_judged() -> None:
    switch = Economics()
    for _ in range(10 * WINDOW_STEPS):
        switch = switch.after_step(asked=False)

    assert not switch.due


def test_what_is_missed_while_it_is_off_counts_the_same_after_a_try_that_failed() -> None:
    poor = Costs(physics=10.0, coupled=12.0, best=2.0, fallback=9.0)
    switch = Economics()
    while switch.on:
        switch = _window(switch, poor)
    first = switch.after_step(asked=True).missed - switch.missed

    for _ in range(switch.pause):
        switch = switch.after_step(asked=True)
    assert switch.probing
    share = PROBE_STEPS / WINDOW_STEPS
    switch = _window(switch, Costs(*(share * one for one in (10.0, 12.0, 2.0, 9.0))))

    assert not switch.on
    assert switch.after_step(asked=True).missed - switch.missed == pytest.approx(first) == pytest.approx(0.8)


def test_a_training_is_worth_it_once_what_was_missed_has_cost_as_much() -> None:
    switch = _window(Economics(), Costs(physics=10.0, coupled=4.0, best=2.0, fallback=2.0))

    assert switch.worth_training(2.0)
    assert not switch.worth_training(2.1)
    assert not switch.trained().worth_training(0.1)
