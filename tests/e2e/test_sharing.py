"""Truth shared among the ranks of a node: the same run, bit by bit, and only where it pays."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Couple

pytestmark = pytest.mark.e2e

PHYSICS = "controller.mode=physics"
CASE, ON, OFF = "lopsided.toml", "exchange.sharing=on", "exchange.sharing=off"


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_physics_is_the_same_whoever_computes_it(couple: "Couple", ranks: int) -> None:
    shared = couple(CASE, ranks, PHYSICS, ON).summary

    assert shared.state_sha256 == couple(CASE, 1, PHYSICS).summary.state_sha256
    assert (shared.shared.elements > 0) == (shared.shared.seconds > 0) == (ranks > 1)


@pytest.mark.ray
def test_a_deterministic_run_is_the_same_whoever_computes_its_truth(couple: "Couple") -> None:
    shared, alone = (couple(CASE, 2, sharing) for sharing in (ON, OFF))

    assert shared.summary.state_sha256 == alone.summary.state_sha256
    assert shared.summary.decisions == alone.summary.decisions
    assert shared.summary.models == alone.summary.models != []
    assert shared.summary.certificate == alone.summary.certificate
    assert shared.summary.shared.elements > 0
    assert alone.summary.shared.elements == 0


@pytest.mark.ray
def test_by_itself_a_run_tries_whether_sharing_pays(couple: "Couple") -> None:
    shared = couple(CASE, 2, "exchange.transport=inprocess", "controller.mode=shadow").summary.shared

    # Whether it goes on after the first steps is up to the clock.
    assert shared.elements > 0
    assert shared.seconds > 0


def test_physics_shares_nothing_unless_asked(couple: "Couple") -> None:
    shared = couple(CASE, 2, PHYSICS).summary.shared

    assert (shared.elements, shared.seconds, shared.overhead_seconds) == (0, 0, 0)
