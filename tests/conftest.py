"""Shared fixtures: real processes under a time limit, and the proof that nothing of them stays behind."""

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
MARK = "COUPLER_TEST_MARK"
MPI_FOLDER = Path(__file__).parent / "mpi"
# Open MPI refuses root unless told twice, and spins where there are fewer cores than ranks.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
# What a process may need to end by itself once it was asked to.
GRACE_SECONDS = 15.0


def pytest_report_header() -> str:
    """Say where the tests of tests/mpi are run, as a plain pytest passes them over."""
    return "tests/mpi: run under mpirun by tests/test_mpi.py"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave tests/mpi to the ranks."""
    return True if collection_path == MPI_FOLDER and not config.getoption("--with-mpi") else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the other ranks when a test failed on this one: they may be waiting for it in a collective call."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if config.getoption("--with-mpi") and reporter is not None and (reporter.stats.keys() & {"failed", "error"}):
        from mpi4py import MPI

        sys.stdout.flush()
        MPI.COMM_WORLD.Abort(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, saying so."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none")


class Processes:
    """Everything one test starts, found again by a mark in its environment or by its session."""

    def __init__(self, mark: str, folder: Path) -> None:
        self.mark = f"{MARK}={mark}".encode()
        self.folder = folder
        self.sessions: set[int] = set()

    def run(
        self, command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; when its time is up, end all of it and fail with what it had said.

        Parameters
        ----------
        command : sequence of str
            What to run, from this test's own folder.
        timeout : float
            Longest it may take [s].
        environment : mapping, optional
            Variables on top of this process's own.
        """
        said = self.folder / f"output-{uuid.uuid4().hex[:8]}.txt"  # a file: a pipe stays open as long as any grandchild
        with said.open("w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.sessions.add(process.pid)
        _wait_for_end(process.pid, timeout)
        late = process.poll() is None
        if late:
            self.kill()
        process.wait()
        output_text = said.read_text(errors="replace")
        assert not late, f"{' '.join(command)}\ndid not end within {timeout} s; it said:\n{output_text}"
        return subprocess.CompletedProcess(command, process.returncode, stdout=output_text)

    def alive(self) -> dict[int, str]:
        """Give what still runs: command lines by process id."""
        return {
            int(entry.name): _command_line(entry)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) != os.getpid() and self._owns(entry)
        }

    def wait(self, seconds: float) -> dict[int, str]:
        """Wait until all have ended, at most this long; give those that have not."""
        deadline = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < deadline:
            _wait_for_end(next(iter(left)), deadline - time.monotonic())
        return left

    def kill(self) -> None:
        """End whatever is left, first politely."""
        for way, seconds in ((signal.SIGTERM, GRACE_SECONDS / 3), (signal.SIGKILL, GRACE_SECONDS)):
            for pid in self.alive():
                with suppress(ProcessLookupError):
                    os.kill(pid, way)
            self.wait(seconds)

    def _owns(self, process: Path) -> bool:
        try:
            state, _, _, session, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if state == "Z":
                return False
            # Ray's agents overwrite their environment when they name themselves; their session tells.
            return int(session) in self.sessions or self.mark in (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked, or belongs to somebody else
            return False


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return "(ended)"


def _wait_for_end(pid: int, seconds: float) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)


def _shared_memory() -> set[Path]:
    return {path for path in Path("/dev/shm").iterdir() if path.stat().st_uid == os.getuid()}


def _abandoned(entries: set[Path]) -> list[str]:
    """Those entries that no living process maps: other people's runs come and go in the same folder."""
    maps = ""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                maps += (process / "maps").read_text(errors="replace")
            except OSError:
                continue
    return sorted(str(path) for path in entries if str(path) not in maps)


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Start processes, with the surroundings they need; whatever is left of them is ended after the test."""
    mark = uuid.uuid4().hex
    for name, value in {**OPEN_MPI, MARK: mark}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    started = Processes(mark, tmp_path)
    yield started
    started.kill()


class MpiRun:
    """Call it as ``mpirun(ranks, *arguments)``: ``mpirun -n ranks python *arguments``, in this test's own folder."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def __call__(
        self, ranks: int, *arguments: str, timeout: float = 120.0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python on so many ranks and give the exit status with all they said in ``stdout``."""
        command = [str(BIN / "mpirun"), "--oversubscribe", "-n", str(ranks), sys.executable, *arguments]
        return self._processes.run(command, timeout=timeout, environment=environment)


@pytest.fixture
def mpirun(processes: Processes) -> MpiRun:
    """Give a function that runs Python under mpirun; see :class:`MpiRun`."""
    return MpiRun(processes)


@pytest.fixture
def nothing_left_behind(processes: Processes) -> Iterator[None]:
    """Fail the test if a process or a shared-memory entry of it is still there some seconds after its end."""
    before = _shared_memory()
    yield
    left = processes.wait(GRACE_SECONDS)
    assert not left, f"still running: {left}"
    abandoned = _abandoned(_shared_memory() - before)
    assert not abandoned, f"left in shared memory: {abandoned}"
