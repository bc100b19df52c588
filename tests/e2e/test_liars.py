"""Surrogates that lie without a doubt: the target is kept, the reasons are right, and the run ends."""

from typing import TYPE_CHECKING

import pytest

from coupler.records import Reason

if TYPE_CHECKING:
    from tests.e2e.conftest import Couple, RunFiles

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

TARGET = 0.05
QUICK = "exchange.transport=inprocess"


def _bounds(run: "RunFiles") -> list[float]:
    return [line["loss_bound"] for line in run.metrics]


@pytest.mark.parametrize("kind", ["wrong", "constant"])
def test_a_surrogate_that_is_always_wrong_keeps_to_its_share_of_the_budget(couple: "Couple", kind: str) -> None:
    run = couple("fades.toml", 2, QUICK, f'surrogate.params={{ kind = "{kind}" }}')

    # What two steps under way can add, as the controller learns of a step one step late.
    assert max(_bounds(run)) <= 1.3 * TARGET
    assert run.summary.certificate.loss_bound_per_decision <= TARGET
    # An answer in fifty, at most: what is accepted at all is the budget's share, and all of it is lost.
    assert run.summary.decisions.accepted < 0.02 * run.summary.elements
    assert run.reasons()[Reason.BUDGET] > 0.2 * run.summary.elements


def test_a_surrogate_that_says_nothing_finite_is_vetoed_everywhere(couple: "Couple") -> None:
    run = couple("fades.toml", 2, QUICK, 'surrogate.params={ kind = "nan" }')

    assert run.summary.certificate.loss_bound_per_decision == 0.0
    assert set(run.reasons()) == {Reason.NO_MODEL, Reason.NOT_FINITE, Reason.AUDIT}


def test_a_surrogate_that_turns_bad_in_mid_run_is_stopped_by_budget_and_alarm(couple: "Couple") -> None:
    run = couple("fades.toml", 2, QUICK, 'surrogate.params={ kind = "corrupted" }')

    assert run.summary.decisions.accepted > 0.1 * run.summary.elements
    assert max(_bounds(run)) <= 1.5 * TARGET
    assert run.summary.certificate.loss_bound_per_decision <= TARGET
    # Wrong answers that were taken leave the trained range behind, so the last steps have other reasons, too.
    assert run.reasons(after=100).get(Reason.ACCEPTED, 0) < 0.05 * 20 * 4000
    assert run.reasons().get(Reason.ALARM, 0) > 0
    assert any(event.kind == "alarm" for event in run.summary.events)


def test_physics_that_changes_in_mid_run_is_noticed_though_the_surrogate_is_as_sure_as_before(
    couple: "Couple",
) -> None:
    run = couple("fades.toml", 2, QUICK, 'surrogate.params={ kind = "outdated" }', "kernel.params={ faster_from = 60 }")

    assert run.reasons()[Reason.ACCEPTED] > 0.3 * run.summary.elements
    assert max(_bounds(run)) <= 1.5 * TARGET
    assert run.summary.certificate.loss_bound_per_decision <= TARGET
    # Wrong answers that were taken leave the trained range behind, so the last steps have other reasons, too.
    assert run.reasons(after=100).get(Reason.ACCEPTED, 0) < 0.05 * 20 * 4000
    assert run.reasons().get(Reason.ALARM, 0) > 0
    assert any(event.kind == "alarm" for event in run.summary.events)


def test_liars_lie_alike_on_any_number_of_ranks(couple: "Couple") -> None:
    settings = (QUICK, 'surrogate.params={ kind = "outdated" }', "kernel.params={ faster_from = 60 }")

    two, four = (couple("fades.toml", ranks, *settings).summary for ranks in (2, 4))

    assert two.state_sha256 == four.state_sha256
    assert (two.decisions, two.certificate, two.events) == (four.decisions, four.certificate, four.events)


def test_a_truth_that_costs_less_than_asking_is_never_handed_over(couple: "Couple") -> None:
    run = couple("heat.toml", 2, "learning.mode=asynchronous", "controller.economics=auto")

    assert set(run.reasons()) == {Reason.SWITCHED_OFF}
    assert not list((run.path / "models").iterdir())
    (event,) = run.summary.events
    assert event.sentence.startswith("never switched on")
    physics = couple("heat.toml", 2, "controller.mode=physics")
    assert run.summary.state_sha256 == physics.summary.state_sha256
