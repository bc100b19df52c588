"""A trial: one run with one fault in it, and everything that is wrong afterwards."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness.chaos.faults import Fault
from benchmarks.harness.chaos.inspection import unreadable
from benchmarks.harness.chaos.job import Job

ROOT = Path(__file__).parents[3]
_SMALL = ("output.pictures=false", "surrogate.params={members=1,width=8,depth=1,epochs=2}")
CASES = {
    "bz": (ROOT / "tests/e2e/bz.toml", (*_SMALL, "grid.shape=[32,32]", "learning.first=3000")),
    "heat": (ROOT / "tests/e2e/heat.toml", (*_SMALL, "run.steps=200")),
}
# So that a run that lost something is not longer in finding out than a trial may take.
_QUICK = ("ray.silence=4", "exchange.deadline=1", "exchange.patience=90", "learning.budget=1")
_NAP_SECONDS = 0.05


@dataclass(frozen=True)
class Undisturbed:
    """A run without any fault.

    Parameters
    ----------
    seconds : float
        How long it took, set-up included.
    state_sha256 : str
        Of its final fields.
    """

    seconds: float
    state_sha256: str


@dataclass
class Outcome:
    """What became of a trial.

    Attributes
    ----------
    fault : Fault
        What was done.
    ending : str
        ``finished``, ``resumed``, ``ended``, or ``hung``.
    hit : bool
        Whether the victim was there when its moment came.
    seconds : float
        How long all of it took.
    wrong : list of str
        What must not be.
    """

    fault: Fault
    ending: str = ""
    hit: bool = False
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Give it as plain data."""
        lasts = self.fault.lasts if self.fault.lasts != float("inf") else "for good"
        fault = {**asdict(self.fault), "lasts": lasts, "victim": self.fault.victim.name.lower()}
        return {**asdict(self), "fault": fault}


def undisturbed(case: str, *, deterministic: bool, folder: Path, deadline: float) -> Undisturbed:
    """Make a run without any fault, on two ranks: on others its bits are the same."""
    started = time.monotonic()
    job = _start(case, deterministic, 2, folder, folder.with_suffix(".txt"))
    try:
        if not job.wait(deadline) or job.code != 0:
            raise RuntimeError(f"the undisturbed run of {case} did not end well; it said:\n{job.output.read_text()}")
    finally:
        job.close()
    return Undisturbed(time.monotonic() - started, _summary(folder)["state_sha256"])


def attempt(fault: Fault, compared: Undisturbed, folder: Path, deadline: float) -> Outcome:
    """Make a run with a fault in it.

    Parameters
    ----------
    fault : Fault
        What is done to it.
    compared : Undisturbed
        The same without it.
    folder : Path
        The run folder; must not exist.
    deadline : float
        What takes longer hangs [s].
    """
    outcome, started = Outcome(fault), time.monotonic()
    job = _start(fault.case, fault.deterministic, fault.ranks, folder, folder.with_suffix(".txt"))
    try:
        outcome.hit = _strike(job, fault, fault.moment * compared.seconds)
        ended = job.wait(deadline)
        outcome.ending = "hung" if not ended else "finished" if job.code == 0 else "ended"
        outcome.wrong += [f"left: {what}" for what in (job.leftovers() if ended else [])]
    finally:
        job.close()
    outcome.wrong += unreadable(folder) if folder.exists() else []
    if outcome.ending == "ended" and resumable(folder):
        _resume(outcome, folder, deadline)
    outcome.wrong += _judge(outcome, compared, folder)
    outcome.seconds = time.monotonic() - started
    return outcome


@functools.cache
def can_resume() -> bool:
    """Whether this coupler has a command to resume a run."""
    asked = [sys.executable, "-m", "coupler", "resume", "--help"]
    return subprocess.run(asked, capture_output=True, check=False, cwd=ROOT).returncode == 0


def resumable(folder: Path) -> bool:
    """Whether there is something to resume, and a command that does it."""
    return can_resume() and any((folder / "checkpoints").glob("*"))


def _resume(outcome: Outcome, folder: Path, deadline: float) -> None:
    """Go on with a run that has ended before its time; all that is to know of ``coupler resume`` is here."""
    job = Job(outcome.fault.ranks, ["-m", "coupler", "resume", str(folder)], folder.with_suffix(".resumed.txt"))
    try:
        if not job.wait(deadline):
            outcome.ending = "hung"
        elif job.code == 0:
            outcome.ending = "resumed"
        else:
            outcome.wrong.append(f"coupler resume gave {job.code}: {_last_line(job.output)}")
        outcome.wrong += [f"left: {what}" for what in job.leftovers()]
    finally:
        job.close()
    outcome.wrong += unreadable(folder)


def _judge(outcome: Outcome, compared: Undisturbed, folder: Path) -> list[str]:
    fault = outcome.fault
    if outcome.ending == "hung":
        return [f"it hangs; it said: {_last_line(folder.with_suffix('.txt'))}"]
    if outcome.ending == "ended":
        unharmed = not fault.fatal or not outcome.hit
        return [f"it ended, and need not have: {_last_line(folder.with_suffix('.txt'))}"] if unharmed else []
    if fault.deterministic and _summary(folder)["state_sha256"] != compared.state_sha256:
        return ["other bits than the undisturbed run"]
    return []


def _start(case: str, deterministic: bool, ranks: int, folder: Path, output: Path) -> Job:
    file, settings = CASES[case]
    mode = f"learning.mode={'deterministic' if deterministic else 'asynchronous'}"
    every = ("run.checkpoint_every=10",) if can_resume() else ()
    return Job(ranks, _arguments(file, [*settings, *_QUICK, mode, *every], folder), output)


def _arguments(file: Path, settings: Sequence[str], folder: Path) -> list[str]:
    words = [word for setting in settings for word in ("--set", setting)]
    return ["-m", "coupler", "run", str(file), *words, "--out", str(folder)]


def _strike(job: Job, fault: Fault, after: float) -> bool:
    """Do it at its moment, or as soon after that as the victim is there; say whether it was."""
    due = time.monotonic() + after
    while job.code is None:
        number = fault.number % fault.ranks
        if time.monotonic() >= due and (pid := job.find(fault.victim, number)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, fault.sent)
                if fault.signal == "STOP" and fault.lasts != float("inf"):
                    job.wait(fault.lasts)
                    os.kill(pid, signal.SIGCONT)
                return True
        job.wait(_NAP_SECONDS)
    return False


def _summary(folder: Path) -> dict[str, str]:
    return json.loads((folder / "summary.json").read_text())


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "coupler:" in line or "Error" in line] or lines
    return said[-1] if said else "nothing"
