"""A trial: one run with faults in it, and everything that is wrong afterwards."""

import json
import os
import shutil
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness.chaos.faults import Fault, Trial
from benchmarks.harness.chaos.inspection import unreadable
from benchmarks.harness.chaos.job import Job

ROOT = Path(__file__).parents[3]
_SMALL = ("output.pictures=false", "surrogate.params={members=1,width=8,depth=1,epochs=2}")
# As many steps as take about as long as the set-up: else most faults would hit that.
CASES = {
    "bz": (ROOT / "tests/e2e/bz.toml", (*_SMALL, "run.steps=200", "grid.shape=[32,32]", "learning.first=3000")),
    "heat": (ROOT / "tests/e2e/heat.toml", (*_SMALL, "run.steps=400")),
}
# So that a run that lost something is not longer in finding out than a trial may take.
_QUICK = (
    "ray.silence=4",
    "exchange.deadline=1",
    "exchange.patience=150",
    "learning.budget=1",
    "run.checkpoint_every=10",
)
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
    trial : Trial
        What was done.
    ending : str
        ``finished``, ``resumed``, ``begun again`` where it ended before its first checkpoint, ``ended``, or ``hung``.
    hits : int
        How many of its faults met their victim.
    lives : int
        How many jobs it took.
    seconds : float
        How long all of it took.
    wrong : list of str
        What must not be.
    """

    trial: Trial
    ending: str = "finished"
    hits: int = 0
    lives: int = 1
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Give it as plain data."""
        faults = list(map(str, self.trial.faults))
        return {**asdict(self), "trial": {**asdict(self.trial), "faults": faults}}


def undisturbed(case: str, deterministic: bool, *, folder: Path, deadline: float) -> Undisturbed:
    """Make a run without any fault, on two ranks: on others its bits are the same. One that was made is taken."""
    known = folder.with_suffix(".json")
    if known.exists():
        return Undisturbed(**json.loads(known.read_text()))
    started = time.monotonic()
    job = _start(Trial(0, case, deterministic, 2, ()), folder)
    try:
        if not job.wait(deadline) or job.code != 0:
            raise RuntimeError(f"the undisturbed run of {case} did not end well; it said:\n{job.output.read_text()}")
    finally:
        job.close()
    made = Undisturbed(time.monotonic() - started, _summary(folder)["state_sha256"])
    known.write_text(json.dumps(asdict(made)))
    return made


def attempt(trial: Trial, compared: Undisturbed, folder: Path, deadline: float) -> Outcome:
    """Make a run with faults in it, and go on with it as often as it is ended by one.

    Parameters
    ----------
    trial : Trial
        What is done to it.
    compared : Undisturbed
        The same without it.
    folder : Path
        The run folder; must not exist.
    deadline : float
        What takes longer hangs [s].
    """
    outcome, started, faults = Outcome(trial), time.monotonic(), deque(trial.faults)
    job = _start(trial, folder)
    while _must_go_on(job, outcome, faults, compared.seconds, deadline) and not _finished(folder):
        outcome.wrong += unreadable(folder)
        outcome.lives += 1
        job = _go_on(outcome, folder)
    outcome.wrong += unreadable(folder)
    if trial.deterministic and _finished(folder) and _summary(folder)["state_sha256"] != compared.state_sha256:
        outcome.wrong.append("other bits than the undisturbed run")
    outcome.seconds = time.monotonic() - started
    return outcome


def _must_go_on(job: Job, outcome: Outcome, faults: deque[Fault], unit: float, deadline: float) -> bool:
    """Strike a run as long as there is one; say whether a fault has ended it, as some faults may."""
    fatal = False
    try:
        while faults and _strike(job, faults[0], faults[0].after * unit, deadline):
            outcome.hits += 1
            fatal |= faults.popleft().fatal
        ended = job.wait(deadline)
        outcome.wrong += [f"left: {what}" for what in (job.leftovers() if ended else [])]
    finally:
        job.close()
    if not ended:
        outcome.ending = "hung"
        outcome.wrong.append(f"it hangs; it said: {_last_line(job.output)}")
    elif job.code != 0 and not fatal:
        outcome.ending = "ended"
        outcome.wrong.append(f"it ended with {job.code}, and need not have: {_last_line(job.output)}")
    return ended and job.code != 0 and fatal


def _go_on(outcome: Outcome, folder: Path) -> Job:
    """Go on with a run that a fault has ended; all that is to know of ``coupler resume`` is here."""
    if any((folder / "checkpoints").glob("*")):
        outcome.ending = "resumed"
        resume = ["-m", "coupler", "resume", str(folder)]
        return Job(outcome.trial.ranks, resume, folder.with_suffix(f".{outcome.lives}.txt"))
    if (metrics := folder / "metrics.jsonl").exists() and metrics.stat().st_size:
        outcome.wrong.append("it had made steps, and there is no checkpoint")
    shutil.rmtree(folder, ignore_errors=True)
    outcome.ending = "begun again"
    return _start(outcome.trial, folder, outcome.lives)


def _start(trial: Trial, folder: Path, life: int = 1) -> Job:
    file, settings = CASES[trial.case]
    mode = f"learning.mode={'deterministic' if trial.deterministic else 'asynchronous'}"
    words = [word for setting in (*settings, *_QUICK, mode) for word in ("--set", setting)]
    run = ["-m", "coupler", "run", str(file), *words, "--out", str(folder)]
    return Job(trial.ranks, run, folder.with_suffix(f".{life}.txt"))


def _strike(job: Job, fault: Fault, after: float, deadline: float) -> bool:
    """Do it at its moment, or as soon after that as the victim is there; say whether it was."""
    due = time.monotonic() + after
    while not job.wait(_NAP_SECONDS) and time.monotonic() < due + deadline:
        if time.monotonic() >= due and (pid := job.find(fault.victim, fault.rank)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, fault.sent)
                if fault.signal == "STOP" and fault.lasts != float("inf"):
                    threading.Timer(fault.lasts, _let_go_on, [pid]).start()
                return True
    return False


def _let_go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _finished(folder: Path) -> bool:
    return (folder / "summary.json").exists() and _summary(folder)["status"] == "finished"


def _summary(folder: Path) -> dict[str, str]:
    return json.loads((folder / "summary.json").read_text())


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "coupler:" in line or "Error" in line] or lines
    return said[-1] if said else "nothing"
