"""The benchmark of time to solution, once and small: what is timed is not looked at here."""

from pathlib import Path

import pytest

from benchmarks import speedup
from benchmarks.speedup import Lesson, Problem

pytestmark = [pytest.mark.e2e, pytest.mark.ray]


def test_a_certified_run_is_compared_with_the_run_of_physics_beside_it() -> None:
    small = ("grid.shape=[16,16]", "run.steps=20", "run.output_every=2")
    problem = Problem("bz/small", "launch/bz/case.toml", small, ignites="z")

    physics, certified = speedup.run([problem], ranks=2, rounds=1)

    assert (physics["case"], physics["system"]) == ("bz/small", "physics")
    assert (certified["case"], certified["system"]) == ("bz/small", "certified")
    assert certified["speedup"] == pytest.approx(float(physics["median_s"]) / float(certified["median_s"]))
    # Twenty steps are too few for a first model, so that both runs are the same.
    assert certified["accepted_share"] == certified["field_error"] == certified["ignition_error"] == 0.0
    assert 0.0 < float(physics["half_s"]) < float(physics["median_s"])


def test_a_case_may_begin_with_a_model_that_was_taught_on_its_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ("grid.shape=[16,16]", "run.steps=20", "learning.mode=off", "exchange.transport=inprocess")
    small = (
        *quick,
        "controller.economics=off",
        "controller.target=0.9",
        "surrogate.params={members=1,width=8,depth=1}",
    )
    problem = Problem("bz/taught", "launch/bz/case.toml", small, lesson=Lesson("spirals", ("run.seed=2",)))
    monkeypatch.setenv("COUPLER_TAUGHT", str(tmp_path))
    monkeypatch.setenv("COUPLER_SECONDS", "3")

    _, certified = speedup.run([problem], ranks=2, rounds=1, overrides=small)

    assert float(certified["taught_s"]) > 0.0
    assert float(certified["loss_bound"]) > 0.0
    assert (tmp_path / "spirals" / "collected-2" / "samples").is_dir()
