"""Replay: whatever happened to a run, it can be done again bit by bit from its ledger, on any number of ranks."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.ledger import TABLES, Ledger, LedgerFile
from coupler.records import Reason
from coupler.replay import compare
from coupler.summary import read_summary

if TYPE_CHECKING:
    from tests.conftest import MpiRun, Processes
    from tests.e2e.conftest import Couple, RunFiles, Start

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

PLUGINS = Path(__file__).parent / "plugins"
ASYNCHRONOUS = "learning.mode=asynchronous"
STEPS = 2000


def again(mpirun: "MpiRun", folder: Path, ranks: int) -> str:
    """Replay a run and give what was said; it must have ended well."""
    finished = mpirun(ranks, "-m", "coupler", "replay", str(folder), "--out", f"again-{folder.name}-{ranks}")
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def test_a_run_to_which_everything_happened_is_the_same_bits_again(
    processes: "Processes", mpirun: "MpiRun", start: "Start", tmp_path: Path
) -> None:
    hurry = tmp_path / "hurry"
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Patient"', f'kernel.params={{file = "{hurry}"}}')
    learning = (ASYNCHRONOUS, "learning.growth=0.1", "controller.audit_rate=0.1", "controller.economics=off")
    run = start("heat.toml", 2, *kernel, *learning, "exchange.deadline=0.5", f"run.steps={STEPS}")
    run.until(lambda last: last["version"] > 1)
    server = next(pid for pid, command in processes.alive().items() if command.split(" ")[0].endswith("ray::Server"))
    os.kill(server, signal.SIGSTOP)
    run.until(lambda last: last["decisions"]["timeout"] > 0)
    os.kill(server, signal.SIGCONT)
    run.until(lambda last: last["decisions"]["timeout"] == 0)
    os.kill(server, signal.SIGKILL)
    run.until(lambda last: last["decisions"]["disabled"] > 0)
    hurry.touch()
    finished = run.running.end(timeout=90)
    assert finished.returncode == 0, finished.stdout

    said = [again(mpirun, run.files.path, ranks) for ranks in (1, 2, 4)]

    assert len(run.files.summary.models) >= 2
    assert {Reason.TIMEOUT, Reason.SERVER_LOST, Reason.AUDIT, Reason.NO_MODEL} <= run.files.reasons().keys()
    for text, ranks in zip(said, (1, 2, 4), strict=True):
        assert f"bitwise the same: {STEPS} steps, 2 ranks then, {ranks} now" in text
        assert "✗" not in text
    promoted = [event["version"] for event in Ledger(run.files.path).events if event["kind"] == b"promoted"]
    assert promoted == [model.version for model in run.files.summary.models]
    # What was not answered is the same group of elements in every call after the server's end: it is written once.
    ledger = Ledger(run.files.path)
    assert len(ledger.unanswered) > 100
    assert len(ledger.unanswered_ids) < 50


def test_calls_that_lost_their_patience_halfway_are_the_same_bits_again(mpirun: "MpiRun", start: "Start") -> None:
    slots = ("exchange.slot_elements=100", "exchange.deadline=2e-5", "controller.mode=surrogate")
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Patient"', 'kernel.params={file = "hurry"}')
    run = start("heat.toml", 2, *kernel, *slots, ASYNCHRONOUS, "run.steps=600", 'output.ledger="audits"')
    finished = run.running.end(timeout=120)
    assert finished.returncode == 0, finished.stdout

    said = [again(mpirun, run.files.path, ranks) for ranks in (1, 3)]

    rows = run.files.ledger["reasons"]
    answered = rows[:, Reason.ACCEPTED] + rows[:, Reason.AUDIT]
    assert (answered * rows[:, Reason.TIMEOUT] > 0).any()  # a part of a call came, the rest did not
    assert all("bitwise the same: 600 steps, 2 ranks then" in text for text in said)
    # Every audit is there by itself, and they add up to what the calls counted.
    assert len(Ledger(run.files.path).audits) == run.files.ledger["audits"].sum() > 0


@pytest.mark.parametrize("mode", ["certified", "shadow", "physics"])
def test_a_deterministic_run_is_replayed_without_its_server(
    couple: "Couple", processes: "Processes", mode: str
) -> None:
    run = couple("heat.toml", 2, f"controller.mode={mode}")
    command = [sys.executable, "-m", "coupler", "replay", str(run.path), "--out", "again", "--ranks", "4"]

    finished = processes.run(command, timeout=120)

    assert finished.returncode == 0, finished.stdout
    assert "bitwise the same: 60 steps, 2 ranks then, 4 now" in finished.stdout
    assert not (processes.folder / "again" / "server.log").exists()


def test_a_surrogate_that_was_never_worth_starting_is_not_started_again(couple: "Couple", mpirun: "MpiRun") -> None:
    run = couple("heat.toml", 2, "controller.economics=auto", ASYNCHRONOUS)
    assert run.reasons().keys() == {Reason.SWITCHED_OFF}

    said = again(mpirun, run.path, 1)

    assert "bitwise the same: 60 steps, 2 ranks then, 1 now" in said


def test_a_replay_can_be_replayed_and_the_run_is_left_alone(couple: "Couple", mpirun: "MpiRun", tmp_path: Path) -> None:
    run = couple("heat.toml", 2)
    before = run.bytes()

    again(mpirun, run.path, 1)
    said = again(mpirun, tmp_path / f"again-{run.path.name}-1", 2)

    assert "bitwise the same: 60 steps, 1 rank then, 2 now" in said
    assert run.bytes() == before


def test_a_ledger_that_was_tampered_with_is_found_out(couple: "Couple", mpirun: "MpiRun", tmp_path: Path) -> None:
    folder = copied(couple("heat.toml", 2), tmp_path / "copy")
    tables = {name: getattr(Ledger(folder), name) for name in TABLES}
    row = tables["records"][(tables["records"]["step"] == 31) & (tables["records"]["rank"] == 1)]
    where = tables["records"]["step"] == 31
    where &= tables["records"]["rank"] == 1
    tables["records"]["acceptable"][where] += 1
    rewrite(folder, tables)

    finished = mpirun(2, "-m", "coupler", "replay", str(folder), "--out", "again")

    assert finished.returncode == 1, finished.stdout
    was, is_now = row["acceptable"][0] + 1, row["acceptable"][0]
    place = f"step 31, call 0, rank 1, operator exchange: acceptable was {was} and is {is_now}"
    assert f"not the same: {place}" in finished.stdout


@pytest.mark.parametrize("lost", ["exchange-v0001.json", "exchange-v0001.safetensors"])
def test_a_run_that_lost_a_model_is_one_sentence(couple: "Couple", mpirun: "MpiRun", tmp_path: Path, lost: str) -> None:
    folder = copied(couple("heat.toml", 2), tmp_path / "copy")
    (folder / "models" / lost).unlink()

    finished = mpirun(2, "-m", "coupler", "replay", str(folder), "--out", "again")

    assert finished.returncode == 2, finished.stdout
    assert finished.stdout.count("coupler: ") == 1
    assert lost in finished.stdout
    assert not (tmp_path / "again").exists()


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_loop_of_ones_own_is_replayed_by_its_script(mpirun: "MpiRun", tmp_path: Path) -> None:
    script = (str(PLUGINS / "own_loop.py"), str(PLUGINS.parent / "own_loop.toml"))
    assert mpirun(2, *script).returncode == 0

    finished = mpirun(2, *script, "again")
    asked = mpirun(1, "-m", "coupler", "replay", "run")

    assert finished.returncode == 0, finished.stdout
    comparison = compare(tmp_path / "run", tmp_path / "again")
    assert comparison.same, str(comparison)
    assert read_summary(tmp_path / "again" / "summary.json").decisions.accepted > 0
    assert asked.returncode == 2
    assert 'Coupling(..., replay="run", out="DIR2")' in asked.stdout


def copied(run: "RunFiles", folder: Path) -> Path:
    shutil.copytree(run.path, folder)
    return folder


def rewrite(folder: Path, tables: dict) -> None:
    """Put other numbers into a ledger."""
    operators = Ledger(folder).operators
    (folder / "ledger.h5").unlink()
    shutil.rmtree(folder / "ledger")
    LedgerFile(folder / "ledger.h5", operators).append(tables.pop("records"), tables)
