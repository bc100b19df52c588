"""A few of the faults of ``make chaos``: no hang, nothing unreadable, nothing left, no other bits."""

from itertools import islice
from pathlib import Path

import pytest

from benchmarks.harness.chaos.faults import NEEDED, Fault, Trial, Victim, draw
from benchmarks.harness.chaos.inspection import unreadable
from benchmarks.harness.chaos.trial import Undisturbed, attempt, undisturbed

CASES, SEED = ("bz", "heat"), 6
DEADLINE = 200.0


def test_the_same_seed_draws_the_same_faults_wherever_one_begins() -> None:
    trials = list(islice(draw(SEED, CASES), 200))
    faults = [fault for trial in trials for fault in trial.faults]

    assert list(islice(draw(SEED, CASES, first=190), 10)) == trials[190:]
    assert {len(trial.faults) for trial in trials} == {1, 2, 3, 4}
    assert {trial.case for trial in trials} == set(CASES)
    assert {fault.victim for fault in faults} == set(Victim)
    assert {fault.signal for fault in faults} == {"KILL", "STOP", "TERM"}
    # A rank that never moves again is a run that never ends, by whatever means.
    assert all(fault.lasts < 60 for fault in faults if fault.victim in NEEDED)
    assert list(islice(draw(SEED + 1, CASES), 10)) != trials[:10]


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
    return undisturbed("heat", True, folder=tmp_path_factory.mktemp("chaos") / "run", deadline=DEADLINE)


@pytest.mark.e2e
@pytest.mark.ray
@pytest.mark.parametrize(
    ("victims", "endings"),
    [((Victim.SERVER, Victim.RAYLET), {"finished"}), ((Victim.RANK, Victim.TRAINER), {"resumed", "begun again"})],
)
def test_nothing_is_wrong_after_two_faults(
    victims: tuple[Victim, ...], endings: set[str], compared: Undisturbed, tmp_path: Path
) -> None:
    faults = tuple(Fault(victim, rank=1, signal="KILL", lasts=0.0, after=0.6) for victim in victims)

    outcome = attempt(Trial(0, "heat", True, 2, faults), compared, tmp_path / "run", DEADLINE)

    assert outcome.wrong == []
    assert outcome.ending in endings
