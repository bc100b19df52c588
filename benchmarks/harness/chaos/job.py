"""A job: a run under mpirun, its processes by what they do, and whatever is left of it."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.harness.chaos.faults import Victim
from coupler.openmpi import abandoned_sessions

_MARK = "COUPLER_CHAOS_MARK"
_LOOK_SECONDS = 0.1
# What is left of a job may take so long to end: Open MPI's own patience, and the reaper's [s].
GRACE_SECONDS = 40.0
# Of a command line that is left so much is shown; those of Ray fill pages.
_SHOWN = 100
_SHARED_MEMORY = Path("/dev/shm")
_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class Job:
    """A command under mpirun.

    Parameters
    ----------
    ranks : int
        On how many ranks.
    arguments : sequence of str
        What follows ``python``.
    output : Path
        Where what it says goes.
    """

    def __init__(self, ranks: int, arguments: Sequence[str], output: Path) -> None:
        self.output = output
        self._mark = uuid.uuid4().hex
        # Open MPI's own shared memory in a folder of this job: what is left there is nobody else's.
        self._memory = _SHARED_MEMORY / f"coupler-test-{self._mark}"
        self._memory.mkdir(mode=0o700)
        self._before = _places()
        surroundings: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if name != "OMPI_MCA_btl"},
            **_ENVIRONMENT,
            _MARK: self._mark,
            "OMPI_MCA_btl_sm_backing_directory": str(self._memory),
        }
        command = [str(Path(sys.executable).parent / "mpirun"), "--oversubscribe", "-n", str(ranks), sys.executable]
        with output.open("w") as said:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=dict(surroundings),
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """How it ended; None while it goes on."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; say whether it came."""
        ends = time.monotonic() + seconds
        while self.code is None and time.monotonic() < ends:
            self._pause(min(_LOOK_SECONDS, seconds))
        return self.code is not None

    def find(self, victim: Victim, number: int) -> int | None:
        """Give the process of a victim, the rank of this number where it is one; None if there is none now."""
        if victim is Victim.MPIRUN:
            return self._process.pid
        for pid, command in self.alive().items():
            if victim is Victim.RANK:
                if "-m coupler" in command and _variable(pid, "OMPI_COMM_WORLD_RANK") == str(number):
                    return pid
            elif victim.value in command.split(" ", 4)[0] or f" -m {victim.value} " in command:
                return pid
        return None

    def alive(self) -> dict[int, str]:
        """Give all its processes: command lines by number."""
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return {pid: _command(pid) for pid in numbers if pid != os.getpid() and self._owns(pid)}

    def leftovers(self) -> list[str]:
        """Give what is still there a while after its end, and should not be."""
        ends = time.monotonic() + GRACE_SECONDS
        while (left := self._left()) and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)
        return left

    def _left(self) -> list[str]:
        if working := self.alive():
            return [command[:_SHOWN] for command in working.values()]
        abandoned = {place for place in _places() - self._before if not _used(place)}
        return list(map(str, sorted(abandoned | set(self._memory.iterdir()))))

    def close(self) -> None:
        """End whatever is left, the reapers last: they clear up."""
        for spared in (Victim.REAPER.value, None):
            left = {pid for pid, command in self.alive().items() if spared is None or spared not in command}
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ends = time.monotonic() + GRACE_SECONDS
            while left and self.alive() and time.monotonic() < ends:
                time.sleep(_LOOK_SECONDS)
        self._process.wait()
        shutil.rmtree(self._memory, ignore_errors=True)

    def _pause(self, seconds: float) -> None:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self._process.pid)
            select.select([handle], [], [], seconds)
            os.close(handle)

    def _owns(self, pid: int) -> bool:
        try:
            state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        # Ray's agents overwrite their environment; their session tells.
        return state != "Z" and (int(session) == self._process.pid or _variable(pid, _MARK) == self._mark)


def _variable(pid: int, name: str) -> str:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((word.partition(b"=")[2].decode() for word in words if word.startswith(name.encode() + b"=")), "")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _places() -> set[Path]:
    """Where runs leave something if they do, a job's own folder aside: shared memory, folders of Ray and of mpirun."""
    memory = {path for path in _SHARED_MEMORY.iterdir() if not path.name.startswith(("coupler-", "sm_segment"))}
    return memory | abandoned_sessions(Path("/tmp")) | set(Path("/tmp").glob("coupler-ray-*"))


def _used(place: Path) -> bool:
    """Whether a living process names or maps a place: other people's runs come and go in the same folders."""
    numbers = (entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return any(str(place) in _command(int(pid)) or str(place) in _maps(pid) for pid in numbers)


def _maps(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return ""
