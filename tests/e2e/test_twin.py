"""Twin windows in whole runs: they measure, and the run does not notice."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coupler.ledger import RECORD
from tests.e2e.conftest import arguments

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple, RunFiles

pytestmark = pytest.mark.e2e

PHYSICS = "controller.mode=physics"
TWINS = ("controller.twin_every=8", "controller.twin_steps=3")
FAST = ("exchange.transport=inprocess",)
# What a clock says is never the same twice.
UNTIMED = [name for name in RECORD.names or () if not name.endswith("_seconds")]


def decided(run: "RunFiles") -> Any:
    """All of a run but its seconds and its twins."""
    summary = run.summary.model_dump(
        exclude={"seconds", "twins", "truth_seconds_per_element", "surrogate_seconds_per_element", "speedup_estimate"}
        | {"shared", "wait_hidden_share"}
    )
    metrics = [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics]
    return summary, metrics, {name: run.ledger[name].tolist() for name in UNTIMED}


def distances(run: "RunFiles") -> list[float]:
    return [moment for window in run.summary.twins for field in window.fields.values() for moment in field.growth]


@pytest.mark.ray
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_with_twins_is_bitwise_the_run_without(couple: "Couple", ranks: int) -> None:
    twice, once = couple("bz.toml", ranks, *FAST, *TWINS), couple("bz.toml", ranks, *FAST)

    assert decided(twice) == decided(once)
    assert [(window.step, window.steps) for window in twice.summary.twins] == [(8 * n + 1, 3) for n in range(1, 8)]
    assert once.summary.twins == []
    assert twice.summary.seconds.twin > once.summary.seconds.twin == 0.0


@pytest.mark.ray
def test_distances_are_bitwise_the_same_on_any_number_of_ranks_and_the_surrogate_shows(couple: "Couple") -> None:
    alone, both = (couple("bz.toml", ranks, *FAST, *TWINS) for ranks in (1, 2))

    assert both.summary.twins == alone.summary.twins
    first = both.summary.models[0].step
    assert all(
        field.growth == [0.0] * 3
        for window in both.summary.twins
        if window.step + 3 <= first
        for field in window.fields.values()
    )
    last = both.summary.twins[-1]
    assert all(0.0 < field.growth[0] < field.rms_over_range < 0.05 for field in last.fields.values())
    assert (both.path / "twins.png").is_file()


@pytest.mark.ray
def test_where_the_surrogate_is_only_watched_nothing_moves(couple: "Couple") -> None:
    run = couple("bz.toml", 2, *FAST, *TWINS, "controller.mode=shadow", "output.pictures=false")

    assert run.summary.models
    assert len(run.summary.twins) == 7
    assert not any(distances(run))


def test_physics_is_at_no_distance_from_itself_and_draws_nothing(couple: "Couple") -> None:
    run = couple("bz.toml", 2, "grid.shape=[31,22]", "run.steps=20", *TWINS, PHYSICS)
    bare = couple("bz.toml", 2, "grid.shape=[31,22]", "run.steps=20", PHYSICS)

    assert [(window.step, window.steps) for window in run.summary.twins] == [(9, 3), (17, 3)]
    assert distances(run) == [0.0] * 2 * 3 * 3
    assert decided(run) == decided(bare)
    assert not (run.path / "twins.png").exists()


def test_a_window_ends_with_the_run_and_may_never_begin(couple: "Couple") -> None:
    cut, too_short, none = (
        couple("heat.toml", 2, *TWINS, PHYSICS, f"run.steps={steps}").summary for steps in (10, 8, 0)
    )

    assert [(window.step, window.steps) for window in cut.twins] == [(9, 2)]
    assert too_short.twins == none.twins == []
    assert too_short.seconds.twin < 0.1


@pytest.mark.usefixtures("nothing_left_behind")
def test_the_screen_has_a_line_per_window_and_one_sentence_at_the_end(mpirun: "MpiRun", tmp_path: Path) -> None:
    finished = mpirun(2, *arguments("heat.toml", tmp_path / "run", ("run.steps=20", *TWINS, PHYSICS)))

    assert finished.returncode == 0, finished.stdout
    lines = re.findall(r"step +(\d+)  away from physics after 3 steps run twice", finished.stdout)
    assert lines == ["11", "19"]
    said = " ".join(finished.stdout.split())
    assert "Run twice over 2 windows of 3 steps, the state did not move away from physics in any cell." in said
