"""Run folders: one run each, never overwritten, whoever comes first has it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coupler.case import Case
from coupler.config import case_from, read_case
from coupler.errors import ConfigError
from coupler.runfolder import RunFolder, claim, describe_environment

FILES = ["case.toml", "environment.json", "fields.h5", "ledger.h5", "metrics.jsonl", "summary.json"]
NAMES = [*FILES, "ledger", "samples", "models", "tape", "fields", "checkpoints", "trace"]

CLAIM = """
import sys
from pathlib import Path
from coupler.case import Case
from coupler.errors import ConfigError
from coupler.runfolder import claim
print("ready", flush=True)
input()
try:
    print(claim({out}, "bz", Case()).path.name)
except ConfigError as error:
    print(error)
"""


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _claim_at_once(folder: Path, out: str, count: int) -> list[str]:
    """Let processes claim a folder as nearly at the same time as can be; give what each of them says."""
    command = [sys.executable, "-c", CLAIM.format(out=out)]
    claimants = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)
        for _ in range(count)
    ]
    for claimant in claimants:
        assert claimant.stdout is not None
        assert claimant.stdout.readline() == "ready\n"
    for claimant in claimants:
        assert claimant.stdin is not None
        claimant.stdin.write("\n")
        claimant.stdin.flush()
    return [claimant.communicate(timeout=60)[0].strip() for claimant in claimants]


def test_a_claimed_folder_has_the_case_the_environment_and_room_for_the_rest(tmp_path: Path) -> None:
    case = case_from({"run": {"steps": 7, "seed": 11}, "kernel": {"params": {"rate": 2.0}}}, folder=tmp_path)

    folder = claim(tmp_path / "deep" / "run", "bz", case)

    assert folder.path == (tmp_path / "deep" / "run").resolve()
    assert read_case(folder.case) == case
    assert json.loads(folder.environment.read_text())["seed"] == 11
    assert folder.samples.is_dir()
    assert folder.models.is_dir()
    assert sorted(path.name for path in folder.places) == sorted(NAMES)


def test_an_empty_folder_and_one_with_other_peoples_files_can_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("started")

    claim(tmp_path, "bz", Case())

    assert _contents(tmp_path)["log.txt"] == "started"


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_that_holds_a_run_is_never_touched(tmp_path: Path, finished: bool) -> None:
    folder = claim(tmp_path / "run", "bz", case_from({"run": {"steps": 7}}, folder=tmp_path))
    if finished:
        folder.summary.write_text("{}")
    before = _contents(tmp_path)

    said = "a finished run" if finished else "a run that is going on or was cut short"
    with pytest.raises(ConfigError, match=f"run already holds {said}, which is never overwritten: give another --out"):
        claim(tmp_path / "run", "bz", Case())

    assert _contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_where_a_run_would_write_over_something_is_never_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious") if name in FILES else (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*")), _contents(tmp_path)

    with pytest.raises(ConfigError, match="already holds"):
        claim(tmp_path, "bz", Case())

    assert (sorted(tmp_path.rglob("*")), _contents(tmp_path)) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")

    with pytest.raises(ConfigError, match=r"--out .*/file is a file: give a folder"):
        claim(tmp_path / "file", "bz", Case())
    with pytest.raises(ConfigError, match=r"The run folder .* cannot be written \(Not a directory\)\. Give another"):
        claim(tmp_path / "file" / "run", "bz", Case())

    assert _contents(tmp_path) == {"file": "precious"}


@pytest.mark.parametrize("out", ["x" * 300, "/proc/run"])
def test_a_folder_that_cannot_be_made_is_a_sentence(out: str) -> None:
    with pytest.raises(ConfigError, match=r"The run folder .* cannot be written \(.+\)\. Give another one with --out"):
        claim(Path(out), "bz", Case())


def test_default_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bz-002").mkdir(parents=True)

    taken = [claim(None, name, Case()).path for name in ("bz", "bz", "heat")]

    runs = tmp_path.resolve() / "runs"
    assert taken == [runs / "bz-001", runs / "bz-003", runs / "heat-001"]


def test_a_default_folder_below_a_file_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("precious")

    with pytest.raises(ConfigError, match="The run folder runs cannot be written"):
        claim(None, "bz", Case())


def test_of_two_that_want_the_same_folder_exactly_one_gets_it(tmp_path: Path) -> None:
    said = _claim_at_once(tmp_path, out="Path('run')", count=2)

    winner, loser = sorted(said)
    assert winner == "run"
    assert loser.startswith("run already holds a run that is going on or was cut short")


def test_two_that_let_us_choose_get_a_folder_each(tmp_path: Path) -> None:
    assert sorted(_claim_at_once(tmp_path, out="None", count=2)) == ["bz-001", "bz-002"]


def test_an_abandoned_claim_leaves_nothing_of_ours_and_everything_of_others(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "log.txt").write_text("started")

    for name in ("gone", "kept"):
        folder = claim(tmp_path / name, "bz", Case())
        folder.ledger.touch()
        folder.segments.mkdir()
        folder.abandon()

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["kept", "kept/log.txt"]


def test_a_run_folder_names_its_files_without_making_them(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")

    assert {path.parent for path in folder.places} == {tmp_path / "run"}
    assert not folder.path.exists()


def test_the_environment_says_what_a_repetition_needs() -> None:
    environment = describe_environment(5)

    assert environment["seed"] == 5
    assert environment["command"] == sys.argv
    packages = environment["packages"]
    assert isinstance(packages, dict)
    assert all(packages[name] for name in ("numpy", "numba", "torch", "ray", "mpi4py", "h5py", "pydantic"))
    assert json.loads(json.dumps(environment)) == environment
