"""The certified mode on spirals, its run folder, and the two modes that do not gate."""

import hashlib
import json
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from coupler.config import read_case
from coupler.records import Decision, Reason
from coupler.report import compare
from coupler.report.recording import read_recording

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple, RunFiles

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

STEPS, CELLS = 60, 64 * 64
PHYSICS = "controller.mode=physics"
# Few elements and a small model: enough to see what a mode does.
QUICK = (
    "grid.shape=[31,22]",
    "run.steps=20",
    "output.pictures=false",
    "learning.first=2000",
    "surrogate.params.epochs=2",
)


@pytest.fixture(scope="module")
def certified(couple: "Couple") -> "RunFiles":
    return couple("bz.toml", 2)


@pytest.fixture(scope="module")
def physics(couple: "Couple") -> "RunFiles":
    return couple("bz.toml", 2, PHYSICS)


def test_every_element_is_decided_once(certified: "RunFiles") -> None:
    summary = certified.summary

    assert (summary.status, summary.steps, summary.ranks, summary.mode) == ("finished", STEPS, 2, "certified")
    assert sum(dict(summary.decisions).values()) == summary.elements == STEPS * CELLS
    assert summary.decisions.timeout == 0
    assert len(certified.ledger) == 2 * STEPS
    assert (certified.ledger["reasons"].sum(axis=1) == CELLS / 2).all()
    assert summary.reasons == {reason.name.lower(): count for reason, count in certified.reasons().items()}


def test_more_than_half_is_accepted_once_the_model_has_learned(certified: "RunFiles") -> None:
    late = certified.reasons(after=STEPS // 2)

    assert late[Reason.ACCEPTED] > sum(late.values()) / 2


def test_what_was_certified_is_below_the_target_and_above_the_estimate(certified: "RunFiles") -> None:
    certificate = certified.summary.certificate

    assert (
        0 < certificate.loss_estimate_per_decision <= certificate.loss_bound_per_decision < certificate.target == 0.02
    )
    assert certificate.audits == certified.ledger["audits"].sum()
    assert certificate.exceedance_bound < 1
    assert "0.95" in certificate.sentence


def test_the_fields_stay_near_the_physics(certified: "RunFiles", physics: "RunFiles") -> None:
    comparison = compare(certified.path, physics.path)

    assert comparison.steps == (0, 30, 60)
    assert 0 < comparison.worst_difference < 0.02
    # The waves have moved on much further than that meanwhile.
    recording = read_recording(physics.path / "fields.h5")
    for field in "xyz":
        start, end = recording.frame(field, 0), recording.frame(field, 2)
        assert np.sqrt(np.mean((end - start) ** 2)) > 0.2 * np.ptp(end)
    assert certified.summary.state_sha256 != physics.summary.state_sha256


def test_the_models_of_the_summary_are_the_files(certified: "RunFiles") -> None:
    models = certified.summary.models

    assert [model.version for model in models] == list(range(1, len(models) + 1))
    for model in models:
        weights = certified.path / "models" / f"reaction-v{model.version:04d}.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == model.sha256
    first, *_ = models
    versions = certified.ledger["version"]
    assert (versions[certified.ledger["step"] < first.step] == 0).all()
    assert versions[certified.ledger["step"] == first.step].tolist() == [1, 1]


def test_metrics_have_a_line_for_every_step(certified: "RunFiles") -> None:
    lines = certified.metrics

    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(sum(line["decisions"].values()) == line["elements"] == CELLS for line in lines)
    assert all(before["seconds"] <= after["seconds"] for before, after in pairwise(lines))
    for decision in Decision:
        name = decision.name.lower()
        assert sum(line["decisions"][name] for line in lines) == getattr(certified.summary.decisions, name)


def test_the_summary_keeps_its_promised_keys(certified: "RunFiles") -> None:
    summary = json.loads((certified.path / "summary.json").read_text())

    assert summary.keys() >= {
        "status", "steps", "ranks", "seed", "elements", "decisions", "certificate", "seconds", "models", "retrainings",
        "truth_seconds_per_element", "surrogate_seconds_per_element", "speedup_estimate", "rollbacks",
        "server_restarts", "state_sha256", "mass",
    }  # fmt: skip
    assert summary["decisions"].keys() == {decision.name.lower() for decision in Decision}
    assert summary["seconds"].keys() >= {
        "total", "setup", "truth", "wait", "gather", "gate", "scatter", "halo", "io", "sync"
    }  # fmt: skip
    assert all(seconds >= 0 for seconds in summary["seconds"].values())
    assert summary["retrainings"] >= len(summary["models"])


def test_the_run_folder_holds_all_of_the_run_and_nothing_else(certified: "RunFiles") -> None:
    environment = json.loads((certified.path / "environment.json").read_text())
    pictures = [certified.path / name for name in ("fields.png", "budget.png")]

    assert environment["seed"] == 1
    assert environment["packages"]["ray"]
    assert read_case(certified.path / "case.toml").run.steps == STEPS
    assert all(picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for picture in pictures)
    assert {path.name for path in certified.path.iterdir()} == {
        "case.toml", "environment.json", "fields", "fields.h5", "fields.xdmf", "ledger", "ledger.h5", "metrics.jsonl",
        "models", "samples", "server.log", "summary.json", *(picture.name for picture in pictures),
    }  # fmt: skip
    assert not [name for name in certified.bytes() if name.endswith((".tmp", ".pickle", ".pt"))]


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_finished_run_is_never_overwritten(certified: "RunFiles", mpirun: "MpiRun") -> None:
    before = certified.bytes()

    finished = mpirun(2, "-m", "coupler", "run", str(certified.path / "case.toml"), "--out", str(certified.path))

    assert finished.returncode == 2, finished.stdout
    assert f"coupler: {certified.path} already holds a finished run, which is never overwritten" in finished.stdout
    assert certified.bytes() == before


def test_shadow_watches_the_model_and_changes_nothing(couple: "Couple") -> None:
    reference = couple("bz.toml", 2, *QUICK, PHYSICS)

    run = couple("bz.toml", 2, *QUICK, "controller.mode=shadow")

    assert run.summary.state_sha256 == reference.summary.state_sha256
    first = run.summary.models[0].step
    assert run.reasons(after=first - 1).keys() == {Reason.AUDIT}
    assert run.summary.decisions.audited + run.summary.decisions.disabled == run.summary.elements


def test_surrogate_never_falls_back_once_there_is_a_model(couple: "Couple") -> None:
    run = couple("bz.toml", 2, *QUICK, "controller.mode=surrogate", "exchange.transport=inprocess")

    first = run.summary.models[0].step
    assert run.reasons(after=first - 1).keys() == {Reason.ACCEPTED, Reason.AUDIT}
    assert run.summary.decisions.fallback == run.summary.decisions.vetoed == 0
