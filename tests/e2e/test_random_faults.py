"""A few of the faults of ``make chaos``: no hang, nothing unreadable, nothing left, no other bits."""

from pathlib import Path

import pytest

from benchmarks.harness.chaos.faults import FATAL, Fault, Victim, draw
from benchmarks.harness.chaos.inspection import unreadable
from benchmarks.harness.chaos.trial import Undisturbed, attempt, undisturbed

CASE, SEED = "heat", 6
DEADLINE = 200.0


def test_the_same_seed_draws_the_same_faults_however_many_are_drawn() -> None:
    few, many = list(draw(SEED, 10, ("bz", "heat"))), list(draw(SEED, 400, ("bz", "heat")))

    assert many[:10] == few
    assert {fault.victim for fault in many} == set(Victim)
    assert {fault.signal for fault in many} == {"KILL", "STOP", "TERM"}
    assert {fault.case for fault in many} == {"bz", "heat"}
    # A rank that never moves again is a run that never ends, by whatever means.
    assert all(fault.lasts < 60 for fault in many if fault.victim in FATAL)
    assert list(draw(SEED + 1, 10, ("bz", "heat"))) != few


def test_files_that_cannot_be_read_are_found(tmp_path: Path) -> None:
    (tmp_path / "case.toml").write_text("[run]\n")
    (tmp_path / "fields.h5").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')  # as it is for a moment in every run
    (tmp_path / "summary.json").write_text('{"status":')
    (tmp_path / ".summary.json.tmp").write_text("{")

    found = [line.partition(":")[0] for line in unreadable(tmp_path)]

    assert found == ["fields.h5", "summary.json", "environment.json"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(CASE, deterministic=True, folder=tmp_path_factory.mktemp("chaos") / "run", deadline=DEADLINE)


@pytest.mark.e2e
@pytest.mark.ray
@pytest.mark.parametrize("victim", [Victim.SERVER, Victim.RAYLET, Victim.RANK])
def test_nothing_is_wrong_after_a_fault(victim: Victim, compared: Undisturbed, tmp_path: Path) -> None:
    fault = Fault(1, CASE, deterministic=True, ranks=2, victim=victim, signal="KILL", lasts=0.0, moment=0.7)

    outcome = attempt(fault, compared, tmp_path / "run", DEADLINE)

    assert outcome.wrong == []
    assert outcome.ending == ("finished" if not fault.fatal else outcome.ending)
