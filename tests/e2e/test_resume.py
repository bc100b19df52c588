"""Resume: a run that was killed, stopped or refused goes on to the bits of the undisturbed one, on any ranks."""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from coupler.checkpoint import Shelf
from coupler.ledger import Ledger
from coupler.report.recording import read_recording
from coupler.stopping import RESUME_ME
from coupler.summary import read_summary
from coupler.tape import Tape
from tests.e2e.conftest import LONGEST_SECONDS, RunFiles, arguments

if TYPE_CHECKING:
    from tests.conftest import MpiRun, Processes
    from tests.e2e.conftest import Couple, Start

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

PLUGINS = Path(__file__).parent / "plugins"
PHYSICS = "controller.mode=physics"
MORE = "run.output_every=10"
# A model that answers for everything: what it makes of the fields, and what its audits find, is in the bits.
LEARNING = (MORE, "controller.policy=always")
ENDLESS = "run.steps=100000000"
# Of these nothing is promised across a resumption: they are of the piece since.
CLOCKED = {"seconds", "truth_seconds_per_element", "surrogate_seconds_per_element", "speedup_estimate"}
CLOCKED |= {"wait_hidden_share", "shared", "ranks"}


@dataclass(frozen=True)
class Killed:
    """A run of two ranks of which one was killed, and what became of it."""

    files: RunFiles
    said: str
    returncode: int


def kernel(name: str, **params: object) -> tuple[str, str]:
    words = ", ".join(f"{key} = {json.dumps(value)}" for key, value in params.items())
    return f'kernel.name="{PLUGINS}/kernels.py:{name}"', f"kernel.params={{{words}}}"


def kill(mpirun: "MpiRun", folder: Path, step: int, *settings: str) -> Killed:
    """Run on two ranks until rank 1 is killed in a step."""
    dying = kernel("Dying", file=f"{folder}.killed", rank=1, step=step)
    ended = mpirun(2, *arguments("heat.toml", folder, (*dying, *settings)), timeout=LONGEST_SECONDS)
    return Killed(RunFiles(folder), ended.stdout, ended.returncode)


def resume(mpirun: "MpiRun", folder: Path, ranks: int, *settings: str) -> Any:
    words = [word for setting in settings for word in ("--set", setting)]
    return mpirun(ranks, "-m", "coupler", "resume", str(folder), *words, timeout=LONGEST_SECONDS)


def outcome(folder: Path) -> dict[str, Any]:
    return read_summary(folder / "summary.json").model_dump(exclude=CLOCKED)


@pytest.fixture(scope="module")
def reference(couple: "Couple") -> RunFiles:
    return couple("heat.toml", 2, *LEARNING)


@pytest.fixture(scope="module")
def killed(reference: RunFiles, lasting_mpirun: "MpiRun") -> Killed:
    """A run that dies while its first model is being trained, in a step with a checkpoint before it."""
    folder = lasting_mpirun.processes.folder / "killed"
    step = reference.summary.models[0].step - 1
    return kill(lasting_mpirun, folder, step, *LEARNING, "run.checkpoint_every=1")


def test_a_killed_rank_ends_the_job_and_is_named(killed: Killed) -> None:
    assert killed.returncode == 128 + signal.SIGKILL
    assert "process rank 1 with PID" in killed.said
    assert not (killed.files.path / "summary.json").exists()


def test_what_a_killed_run_left_can_be_read(killed: Killed) -> None:
    folder = killed.files.path

    assert (
        read_recording(folder / "fields.h5").steps == (0, 10)[: 1 + (Shelf(folder / "checkpoints").steps()[-1] >= 10)]
    )
    assert len(Ledger(folder).records) > 0
    assert killed.files.metrics
    assert len(Shelf(folder / "checkpoints").steps()) == 2


@pytest.mark.parametrize(("ranks", "damaged"), [(1, False), (2, False), (3, True), (4, False)])
def test_a_run_killed_in_mid_training_goes_on_to_the_same_bits(
    reference: RunFiles, killed: Killed, lasting_mpirun: "MpiRun", ranks: int, damaged: bool
) -> None:
    folder = killed.files.path.with_name(f"resumed-{ranks}")
    shutil.copytree(killed.files.path, folder)
    before, newest = Shelf(folder / "checkpoints").steps()
    if damaged:
        os.truncate(Shelf(folder / "checkpoints").path(newest), 5000)
    transport = () if ranks == 2 else ("exchange.transport=inprocess",)

    finished = resume(lasting_mpirun, folder, ranks, *transport)

    assert finished.returncode == 0, finished.stdout
    said = f"the run goes on from the checkpoint before it, of step {before}."
    assert (said in " ".join(finished.stdout.split())) == damaged
    assert outcome(folder) == outcome(reference.path)
    assert outcome(folder)["decisions"]["accepted"] > 0
    again = RunFiles(folder)
    for name in ("step", "loss_bound", "threshold", "version"):
        assert [line[name] for line in again.metrics] == [line[name] for line in reference.metrics]
    assert [line["step"] for line in again.metrics] == list(range(1, 61))
    for name in ("step", "version", "threshold", "bound", "scores"):
        np.testing.assert_array_equal(Ledger(folder).steps[name], Ledger(reference.path).steps[name])
    assert again.ledger["reasons"].sum() == reference.ledger["reasons"].sum()
    pictures = [read_recording(path / "fields.h5").steps for path in (folder, reference.path)]
    assert pictures[0] == pictures[1]
    assert not (folder / "checkpoints").exists()


def test_a_resumed_run_is_replayed_as_one(
    reference: RunFiles, killed: Killed, lasting_mpirun: "MpiRun", mpirun: "MpiRun"
) -> None:
    folder = killed.files.path.with_name("resumed-4")
    if not (folder / "summary.json").exists():
        shutil.copytree(killed.files.path, folder, dirs_exist_ok=True)
        assert resume(lasting_mpirun, folder, 4, "exchange.transport=inprocess").returncode == 0

    said = [mpirun(ranks, "-m", "coupler", "replay", str(folder), "--out", f"again-{ranks}") for ranks in (1, 4)]

    for finished in said:
        assert finished.returncode == 0, finished.stdout
        assert "bitwise the same: 60 steps, 4 ranks then" in finished.stdout


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_refused_resumption_touches_nothing(reference: RunFiles, killed: Killed, mpirun: "MpiRun") -> None:
    kept = killed.files.bytes()
    wrong = {
        (): (reference.path, f"The run in {reference.path} is finished: all its 60 steps were made"),
        ("controller.target=0.5",): (killed.files.path, "controller.target is 0.5 now and was 0.02 in the first"),
        ("run.steps=3",): (killed.files.path, "run.steps = 3, and"),
        ("run.stepz=3",): (killed.files.path, 'there is no key "run.stepz". Did you mean "steps"?'),
    }

    for settings, (folder, sentence) in wrong.items():
        finished = resume(mpirun, folder, 1, *settings)
        assert (finished.returncode, finished.stdout.count("coupler: ")) == (2, 1), finished.stdout
        assert sentence in " ".join(finished.stdout.split())
    assert killed.files.bytes() == kept


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["SIGUSR1 to mpirun", "SIGTERM to a rank"])
def test_a_run_that_is_asked_to_stop_can_be_resumed(
    processes: "Processes", mpirun: "MpiRun", start: "Start", tmp_path: Path, number: signal.Signals
) -> None:
    hurry = tmp_path / "hurry"
    run = start("heat.toml", 2, *kernel("Patient", file=str(hurry)), PHYSICS, "run.steps=400")
    run.until(lambda last: last["step"] > 20)

    os.kill(run.running.pid if number == signal.SIGUSR1 else rank(processes, 1), number)
    stopped = run.running.end(timeout=60)
    status, made = run.files.summary.status, run.files.summary.steps
    hurry.touch()
    finished = resume(mpirun, run.files.path, 3)

    assert stopped.returncode == RESUME_ME, stopped.stdout
    assert f"stopped after step {made}, as asked; to go on: coupler resume" in " ".join(stopped.stdout.split())
    assert (status, Shelf(run.files.path / "checkpoints").steps()) == ("stopped", [])
    assert finished.returncode == 0, finished.stdout
    assert read_summary(run.files.path / "summary.json").steps == 400
    undisturbed = tmp_path / "undisturbed"
    same = (*kernel("Patient", file=str(hurry)), PHYSICS, "run.steps=400")
    assert mpirun(1, *arguments("heat.toml", undisturbed, same)).returncode == 0
    assert outcome(run.files.path) == outcome(undisturbed)


@pytest.mark.usefixtures("nothing_left_behind")
def test_two_runs_never_share_a_folder(
    mpirun: "MpiRun", start: "Start", processes: "Processes", tmp_path: Path
) -> None:
    run = start("heat.toml", 2, *kernel("Patient", file=str(tmp_path / "hurry")), PHYSICS, ENDLESS)
    run.until(lambda last: last["step"] > 1)

    resumed = resume(mpirun, run.files.path, 1)
    started = mpirun(1, *arguments("heat.toml", run.files.path, (PHYSICS,)))
    os.kill(run.running.pid, signal.SIGINT)
    run.running.end(timeout=60)

    assert resumed.returncode == started.returncode == 2
    assert f"A run is going on in {run.files.path} (process {rank_said(resumed.stdout)}" in resumed.stdout
    assert "already holds a run that is going on" in started.stdout


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_run_of_no_steps_is_finished_and_leaves_no_checkpoint(mpirun: "MpiRun", tmp_path: Path) -> None:
    finished = mpirun(2, *arguments("heat.toml", tmp_path / "none", (PHYSICS, "run.steps=0")))

    assert finished.returncode == 0, finished.stdout
    assert read_summary(tmp_path / "none" / "summary.json").status == "finished"
    assert not (tmp_path / "none" / "checkpoints").exists()
    assert resume(mpirun, tmp_path / "none", 1).returncode == 2


@pytest.mark.usefixtures("nothing_left_behind")
def test_windows_tapes_and_the_number_of_files_of_a_run_that_was_killed(mpirun: "MpiRun", tmp_path: Path) -> None:
    settings = (
        PHYSICS,
        MORE,
        "controller.twin_every=8",
        "controller.twin_steps=7",
        "output.tape=true",
        "run.checkpoint_every=5",
    )
    killed = kill(mpirun, tmp_path / "run", int(np.random.default_rng(6).integers(20, 60)), *settings)
    stood = Shelf(tmp_path / "run" / "checkpoints").steps()[-1]

    finished = resume(mpirun, killed.files.path, 3)

    assert finished.returncode == 0, finished.stdout
    undisturbed = tmp_path / "undisturbed"
    assert mpirun(2, *arguments("heat.toml", undisturbed, settings)).returncode == 0
    assert outcome(killed.files.path) == outcome(undisturbed)
    tapes = [Tape(folder, "exchange") for folder in (killed.files.path, undisturbed)]
    for before, after in zip(*tapes, strict=True):
        np.testing.assert_array_equal(before.truth, after.truth)
    # One segment each, and one more of ledger and tape for the resumption; nothing hangs on steps or ranks.
    files = {str(file.relative_to(killed.files.path)) for file in killed.files.path.rglob("*") if file.is_file()}
    segments = {"fields/00001.h5", "fields/00002.h5", "ledger/00001.h5", "ledger/00002.h5"}
    segments |= {"tape/exchange-00001.h5", "tape/exchange-00002.h5"}
    whole = {"case.toml", "environment.json", "fields.h5", "fields.xdmf", "ledger.h5", "metrics.jsonl", "summary.json"}
    assert files == segments | whole
    (since,) = json.loads((killed.files.path / "environment.json").read_text())["resumed"]
    assert (since["step"], since["ranks"]) == (stood, 3)


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from coupler.cli import main
sys.argv = ["coupler", *sys.argv[1:]]
main()
"""


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    mpirun: "MpiRun", processes: "Processes", tmp_path: Path
) -> None:
    settings = (PHYSICS, "run.steps=300", "run.checkpoint_every=20")
    words = arguments("heat.toml", tmp_path / "run", settings)[2:]

    full = processes.run([sys.executable, "-c", FULL, *words], timeout=60)
    finished = resume(mpirun, tmp_path / "run", 2)

    assert (full.returncode, full.stdout.count("coupler: "), "Traceback" in full.stdout) == (2, 1, False), full.stdout
    assert "cannot be written (File too large), so the run ends here" in " ".join(full.stdout.split())
    assert finished.returncode == 0, finished.stdout
    assert read_summary(tmp_path / "run" / "summary.json").steps == 300


def rank(processes: "Processes", number: int) -> int:
    mark = f"OMPI_COMM_WORLD_RANK={number}".encode()
    ranks = (pid for pid, command in processes.alive().items() if "-m coupler run" in command)
    return next(pid for pid in ranks if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def rank_said(text: str) -> str:
    return text.partition("(process ")[2].partition(" on ")[0]
