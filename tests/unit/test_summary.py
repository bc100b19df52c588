"""``summary.json``: exactly the keys that scripts rely on, and the same after reading it back."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coupler.records import Decision
from coupler.summary import (
    CertificateSummary,
    ConservedSum,
    Decisions,
    ModelSummary,
    Seconds,
    Summary,
    TwinDistance,
    TwinWindow,
    read_summary,
)

DECISIONS = {"accepted", "fallback", "audited", "vetoed", "timeout", "disabled"}
SECONDS = {"total", "setup", "truth", "wait", "gather", "gate", "scatter", "halo", "io", "sync"}
SECONDS_OURS = {"learn", "twin"}
# The contract, then what is ours: it may grow, the contract may not change.
CONTRACT = {
    "status", "steps", "ranks", "seed", "elements", "decisions", "certificate", "seconds", "truth_seconds_per_element",
    "surrogate_seconds_per_element", "speedup_estimate", "models", "retrainings", "rollbacks", "server_restarts",
    "state_sha256", "mass",
}  # fmt: skip
OURS = {"coin_seed", "events", "mode", "shared", "reasons", "wait_hidden_share", "twins"}
CERTIFICATE = {
    "delta", "cap", "target", "loss_bound_per_decision", "loss_estimate_per_decision", "exceedance_bound", "audits",
}  # fmt: skip
CERTIFICATE_OURS = {"families", "loss_bound_per_accepted", "exceedance_estimate", "sentence"}
MODEL, MODEL_OURS = {"version", "step", "sha256"}, {"operator"}


def _summary(**changes: Any) -> Summary:
    certificate = CertificateSummary(
        delta=0.05,
        cap=2.0,
        target=0.02,
        loss_bound_per_decision=0.0119,
        loss_estimate_per_decision=0.01,
        exceedance_bound=0.03,
        audits=12,
        loss_bound_per_accepted=0.02,
        exceedance_estimate=0.01,
        sentence="With probability ≥ 0.95 …",
    )
    values: dict[str, Any] = {
        "status": "finished",
        "steps": 10,
        "ranks": 2,
        "seed": 2**62,
        "coin_seed": 2**51 + 1,
        "mode": "certified",
        "elements": 100,
        "decisions": Decisions(accepted=60, fallback=20, audited=10, vetoed=5, timeout=3, disabled=2),
        "certificate": certificate,
        "seconds": Seconds(total=0.1 + 0.2),
        "truth_seconds_per_element": 1e-5,
        "surrogate_seconds_per_element": 1e-7,
        "speedup_estimate": 2.5,
        "models": [ModelSummary(operator="reaction", version=1, step=3, sha256="ab")],
        "state_sha256": "cd",
        "mass": {"heat": ConservedSum(start=1 / 3, end=1e-300)},
        "reasons": {"accepted": 60},
        "twins": [
            TwinWindow(
                step=4, steps=2, fields={"u": TwinDistance(rms_over_range=0.1, largest=1 / 3, growth=[0.0, 0.1])}
            )
        ],
    }
    return Summary(**(values | changes))


def _written(summary: Summary, folder: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    summary.write(folder / "summary.json")
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_keys_are_the_contract_and_ours(tmp_path: Path) -> None:
    written = _written(_summary(), tmp_path)

    assert written.keys() == CONTRACT | OURS
    assert written["decisions"].keys() == DECISIONS == {decision.name.lower() for decision in Decision}
    assert written["certificate"].keys() == CERTIFICATE | CERTIFICATE_OURS
    assert written["seconds"].keys() == SECONDS | SECONDS_OURS
    assert written["models"][0].keys() == MODEL | MODEL_OURS
    assert written["mass"]["heat"].keys() == {"start", "end"}
    assert written["twins"][0].keys() == {"step", "steps", "fields"}
    assert written["twins"][0]["fields"]["u"].keys() == {"rms_over_range", "largest", "growth"}


def test_every_key_is_there_when_there_is_nothing_to_say(tmp_path: Path) -> None:
    written = _written(_summary(models=[], mass={}, reasons={}, state_sha256=None), tmp_path)

    assert written.keys() == CONTRACT | OURS
    assert (written["models"], written["mass"], written["state_sha256"]) == ([], {}, None)


def test_what_is_written_is_what_is_read_to_the_last_bit(tmp_path: Path) -> None:
    _summary().write(tmp_path / "summary.json")

    assert read_summary(tmp_path / "summary.json") == _summary()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_field_that_blew_up_leaves_a_summary_that_can_be_read(tmp_path: Path, value: float) -> None:
    summary = _summary(mass={"heat": ConservedSum(start=1.0, end=value)}, speedup_estimate=value)

    _written(summary, tmp_path)

    again = read_summary(tmp_path / "summary.json")
    assert str((again.mass["heat"].end, again.speedup_estimate)) == str((value, value))


def test_a_summary_is_whole_or_not_there(tmp_path: Path) -> None:
    _summary().write(tmp_path / "summary.json")
    _summary(steps=11).write(tmp_path / "summary.json")

    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert read_summary(tmp_path / "summary.json").steps == 11


def test_an_unknown_key_is_no_part_of_a_summary(tmp_path: Path) -> None:
    _summary().write(tmp_path / "summary.json")
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "elementz": 3}))

    with pytest.raises(ValidationError, match="elementz"):
        read_summary(path)


def test_a_summary_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _summary().steps = 3  # type: ignore[misc]
