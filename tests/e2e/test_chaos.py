"""Chaotic kernels under mpirun: the same bits on any number of ranks, though every bit would grow."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Couple

pytestmark = pytest.mark.e2e

LAUNCH = Path(__file__).parents[2] / "launch"
SMALL = {
    "lorenz96": ("grid.shape=[6,8]", "run.steps=40"),
    "kuramoto_sivashinsky": ("grid.shape=[5,64]", "run.steps=20"),
}
PHYSICS = ("controller.mode=physics", "output.pictures=false")
# A model of its own within a few steps, the same on every machine.
LEARNING = (
    "grid.shape=[24,64]",
    "run.steps=24",
    "output.pictures=false",
    "learning.mode=deterministic",
    "learning.lag=2",
    "learning.first=200",
    "surrogate.params={members=2,width=16,depth=1,epochs=2}",
)


def case(name: str) -> str:
    return str(LAUNCH / name / "case.toml")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("ranks", [2, 4])
def test_physics_is_bitwise_the_same_on_any_ranks(couple: "Couple", name: str, ranks: int) -> None:
    alone = couple(case(name), 1, *SMALL[name], *PHYSICS)

    run = couple(case(name), ranks, *SMALL[name], *PHYSICS)

    assert run.summary.ranks == ranks
    assert run.summary.state_sha256 == alone.summary.state_sha256


@pytest.mark.ray
def test_a_learning_run_over_members_is_bitwise_the_same_on_any_ranks(couple: "Couple") -> None:
    alone = couple(case("kuramoto_sivashinsky"), 1, *LEARNING, "exchange.transport=inprocess")

    run = couple(case("kuramoto_sivashinsky"), 4, *LEARNING)

    assert len(run.summary.models) > 0
    assert run.summary.models == alone.summary.models
    assert run.summary.decisions == alone.summary.decisions
    assert run.summary.state_sha256 == alone.summary.state_sha256


@pytest.mark.ray
def test_too_few_steps_for_any_climate_are_said_to_be_so(couple: "Couple", mpirun) -> None:
    run = couple(case("lorenz96"), 1, *SMALL["lorenz96"], *PHYSICS, "run.steps=0").path

    finished = mpirun(1, str(LAUNCH / "lorenz96" / "compare.py"), str(run), str(run.parent / "none"))

    assert finished.returncode == 2
    assert "compare: " in finished.stdout
