"""Shared fixtures: real processes under a time limit, and the proof that nothing of them stays behind."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from coupler.openmpi import abandoned_sessions
from tests.validation.table import print_table

BIN = Path(sys.executable).parent
MARK = "COUPLER_TEST_MARK"
MPI_FOLDER = Path(__file__).parent / "mpi"
WHOLE_RUNS = Path(__file__).parent / "e2e"
# Open MPI refuses root unless told twice, and spins where there are fewer cores than ranks.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
# Open MPI's shared memory gets a folder of its own per test here, so that one run's is not taken for another's.
SHARED_MEMORY = Path("/dev/shm")
OPEN_MPI_TRANSPORTS = "OMPI_MCA_btl"
OPEN_MPI_FOLDER = "OMPI_MCA_btl_sm_backing_directory"
# What a process may need to end by itself once it was asked to.
GRACE_SECONDS = 15.0
# How often a condition is looked at.
_LOOK_SECONDS = 0.05

T = TypeVar("T")

# As in every process of a run: several threads would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "OMPI_COMM_WORLD_RANK" not in os.environ:
    # In a process that mpirun did not start, Open MPI leaves its shared memory behind; this one never needs any.
    os.environ[OPEN_MPI_TRANSPORTS] = "self"


def pytest_report_header() -> str:
    """Say where the tests of tests/mpi are run, as a plain pytest passes them over."""
    return "tests/mpi: run under mpirun by tests/test_mpi.py"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave tests/mpi to the ranks."""
    return True if collection_path == MPI_FOLDER and not config.getoption("--with-mpi") else None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Take two processes for the suite, if there are cores for them; one for some files of it, and under mpirun."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 if whole and not config.getoption("--with-mpi") and len(os.sched_getaffinity(0)) > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole runs, so that what two processes share out at the end is short."""
    items.sort(key=lambda item: WHOLE_RUNS not in item.path.parents)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the other ranks when a test failed on this one: they may be waiting for it in a collective call."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if config.getoption("--with-mpi") and reporter is not None and (reporter.stats.keys() & {"failed", "error"}):
        from mpi4py import MPI

        sys.stdout.flush()
        MPI.COMM_WORLD.Abort(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the validation suite compared: only here does the process that prints look for hooks."""
    print_table(terminalreporter)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, saying so."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none")


class Running:
    """A command that runs; what it says goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], command: Sequence[str], output: Path) -> None:
        self._process, self._command, self._output = process, command, output

    @property
    def pid(self) -> int:
        """Number of its first process."""
        return self._process.pid

    @property
    def said(self) -> str:
        """All it has said so far."""
        return self._output.read_text(errors="replace")

    def until(self, condition: Callable[[], T], *, within: float) -> T:
        """Look until a condition gives something that counts as true, and give that.

        Fails when the time is up or the command has ended. Nothing else in the tests waits for something to happen.
        """
        deadline = time.monotonic() + within
        while not (found := condition()):
            assert self._process.poll() is None, f"{self} ended before it came to that; it said:\n{self.said}"
            assert time.monotonic() < deadline, f"{self} did not come to that in {within} s; it said:\n{self.said}"
            _wait_for_end(self.pid, _LOOK_SECONDS)
        return found

    def end(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for the end and give the exit status with all it said in ``stdout``; fail when the time is up."""
        _wait_for_end(self.pid, timeout)
        assert self._process.poll() is not None, f"{self}\ndid not end within {timeout} s; it said:\n{self.said}"
        return subprocess.CompletedProcess(self._command, self._process.wait(), stdout=self.said)

    def __str__(self) -> str:
        return " ".join(self._command)


class Processes:
    """Everything one test starts, found again by a mark in its environment or by its session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sessions: set[int] = set()
        self._mark = uuid.uuid4().hex
        self._shared_memory = SHARED_MEMORY / f"coupler-test-{self._mark}"
        self._shared_memory.mkdir(mode=0o700)

    def start(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Running:
        """Start a command from this test's own folder, with variables on top of this process's own."""
        # A file: a pipe stays open as long as any grandchild.
        output = self.folder / f"output-{uuid.uuid4().hex[:8]}.txt"
        surroundings = {name: value for name, value in os.environ.items() if name != OPEN_MPI_TRANSPORTS} | OPEN_MPI
        surroundings |= {MARK: self._mark, OPEN_MPI_FOLDER: str(self._shared_memory)}
        surroundings["PATH"] = os.pathsep.join((str(BIN), os.environ.get("PATH", os.defpath)))
        with output.open("w") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**surroundings, **(environment or {})},
                start_new_session=True,
            )
        self.sessions.add(process.pid)
        return Running(process, command, output)

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
        running = self.start(command, environment=environment)
        try:
            return running.end(timeout)
        except AssertionError:
            self.kill()
            raise

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

    @contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """Fail if a process, shared memory or a folder of Ray or mpirun is still there some seconds after the end."""
        before = _places()
        yield
        left = self.wait(GRACE_SECONDS)
        assert not left, f"still running: {left}"
        abandoned = [*_abandoned_for_good(before), *map(str, self._shared_memory.iterdir())]
        assert not abandoned, f"left on this machine: {abandoned}"

    def close(self) -> None:
        """End whatever is left and remove what it may have left."""
        self.kill()
        shutil.rmtree(self._shared_memory)
        for launcher in self.sessions:  # one that was killed before a run began has left its folder
            shutil.rmtree(f"/tmp/ompi.{launcher}", ignore_errors=True)

    def _owns(self, process: Path) -> bool:
        try:
            state, _, _, session, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if state == "Z":
                return False
            # Ray's agents overwrite their environment when they name themselves; their session tells.
            mark = f"{MARK}={self._mark}".encode()
            return int(session) in self.sessions or mark in (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked, or belongs to somebody else
            return False


@cache
def crowding() -> list[str]:
    """What mpirun must be told before it starts more ranks than cores: MPICH's takes no such word."""
    said = subprocess.run([BIN / "mpirun", "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    return ["--oversubscribe"] if "Open MPI" in said else []


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


def _places() -> set[Path]:
    """Shared memory of this user that is not an MPI's own, and the folders of Ray and of an mpirun that is gone."""
    names = ("sm_segment.*", "mpich_shm_*", "coupler-test-*")  # MPICH leaves its own behind when a rank is killed
    theirs = {path for name in names for path in SHARED_MEMORY.glob(name)}
    folders = {*Path("/tmp").glob("coupler-ray-*"), *abandoned_sessions(Path("/tmp"))}
    return {*filter(_is_mine, SHARED_MEMORY.iterdir()), *folders} - theirs


def _is_mine(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.getuid()
    except FileNotFoundError:  # gone while we looked
        return False


def _abandoned_for_good(before: set[Path]) -> list[str]:
    """What was not there before and stays abandoned: whoever begins elsewhere uses what it has made a moment later."""
    found, deadline = _abandoned(_places() - before), time.monotonic() + GRACE_SECONDS
    while found and time.monotonic() < deadline:
        _wait_for_end(os.getpid(), _LOOK_SECONDS)
        found &= _abandoned(_places())
    return sorted(map(str, found))


def _abandoned(places: set[Path]) -> set[Path]:
    """Those that no living process maps or names: other people's runs come and go in the same folders."""
    users = ""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                users += "".join((process / file).read_text(errors="replace") for file in ("maps", "cmdline"))
            except OSError:
                continue
    return {path for path in places if str(path) not in users}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start processes, with the surroundings they need; whatever is left of them is ended after the test."""
    with closing(Processes(tmp_path)) as started:
        yield started


@pytest.fixture(scope="session")
def lasting_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Give what ``processes`` is to one test to fixtures that serve several."""
    with closing(Processes(tmp_path_factory.mktemp("lasting"))) as started:
        yield started


class MpiRun:
    """Call it as ``mpirun(ranks, *arguments)``: ``mpirun -n ranks python *arguments``, in this test's own folder."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def __call__(
        self, ranks: int, *arguments: str, timeout: float = 120.0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python on so many ranks and give the exit status with all they said in ``stdout``."""
        return self.processes.run(self._command(ranks, arguments), timeout=timeout, environment=environment)

    def start(self, ranks: int, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
        """Start Python on so many ranks, for tests that do something to them meanwhile."""
        return self.processes.start(self._command(ranks, arguments), environment=environment)

    def _command(self, ranks: int, arguments: Sequence[str]) -> list[str]:
        return [str(BIN / "mpirun"), *crowding(), "-n", str(ranks), sys.executable, *arguments]


@pytest.fixture
def mpirun(processes: Processes) -> MpiRun:
    """Give a function that runs Python under mpirun; see :class:`MpiRun`."""
    return MpiRun(processes)


@pytest.fixture(scope="session")
def lasting_mpirun(lasting_processes: Processes) -> MpiRun:
    """Give what ``mpirun`` is to one test to fixtures that serve several."""
    return MpiRun(lasting_processes)


@pytest.fixture
def nothing_left_behind(processes: Processes) -> Iterator[None]:
    """Fail the test if anything of it is still there some seconds after its end; see ``leaving_nothing``."""
    with processes.leaving_nothing():
        yield
