"""Whole runs whose elements are tiles: physics, learning and the certificate, on any number of ranks."""

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import HERE

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple, RunFiles

PHYSICS = "controller.mode=physics"


@pytest.fixture(scope="module")
def reference(couple: "Couple") -> "RunFiles":
    return couple("tiles.toml", 2)


@pytest.mark.e2e
def test_physics_on_tiles_is_the_same_bits_on_one_two_and_four_ranks(couple: "Couple") -> None:
    runs = [couple("tiles.toml", ranks, PHYSICS) for ranks in (1, 2, 4)]

    assert len({run.summary.state_sha256 for run in runs}) == 1
    assert {run.summary.elements for run in runs} == {60 * 16}


@pytest.mark.e2e
@pytest.mark.ray
def test_a_network_learns_to_answer_for_tiles(reference: "RunFiles") -> None:
    summary, decisions = reference.summary, reference.summary.decisions

    assert summary.models
    assert decisions.accepted > 0.1 * summary.elements
    assert decisions.audited > 0
    assert summary.certificate.loss_bound_per_decision < 1.0
    (outputs,) = summary.certificate.families
    assert list(outputs.lines) == ["u", "v"]


@pytest.mark.e2e
@pytest.mark.ray
def test_the_learning_run_is_the_same_bits_on_one_rank(couple: "Couple", reference: "RunFiles") -> None:
    run = couple("tiles.toml", 1)

    assert run.summary.models == reference.summary.models
    assert run.summary.decisions == reference.summary.decisions
    assert run.summary.state_sha256 == reference.summary.state_sha256


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("ranks", "settings", "said"),
    [
        (1, ("grid.shape=[60, 64]",), "not made of whole tiles of 8x8 cells"),
        (1, ("kernel.params.tile=128",), "not made of whole tiles of 128x128 cells"),
        (2, ("grid.shape=[8, 8]",), "of whole tiles of 8x8 cells: start fewer ranks (mpirun -n 1)"),
        (1, ("surrogate.params.dilations=[4, 4]",), "add up to 4 at most"),
        (1, ("grid.shape=[64]",), "has 1 dimensions; GrayScott works in 2"),
    ],
)
def test_tiles_that_do_not_fit_are_refused_in_a_sentence(
    lasting_mpirun: "MpiRun", ranks: int, settings: tuple[str, ...], said: str
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]

    finished = lasting_mpirun(ranks, "-m", "coupler", "run", str(HERE / "tiles.toml"), *options, timeout=60.0)

    assert finished.returncode != 0
    assert said in " ".join(finished.stdout.split())
