"""Ranks under mpirun for a benchmark: started once, told what to do next, ended in any case.

Between calls the ranks sleep on a socket, so that they do not disturb what is measured elsewhere meanwhile. A
call's arguments and results travel as JSON.
"""

import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from coupler import plugin
from coupler.plugin import load_object

ROOT = Path(__file__).resolve().parents[2]
# Longest a rank may need to come up: interpreters, MPI, torch and Ray on two busy cores [s].
START_SECONDS = 120.0
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_MPI_FOLDER = "OMPI_MCA_btl_sm_backing_directory"
# A rank that was started by another MPI job would take itself for a part of it.
_JOB_PREFIXES = ("PMIX_", "PRTE_", "PMI_", "OMPI_COMM_", "OMPI_UNIVERSE_")


class Worker:
    """What a rank of a :class:`Crew` holds; derive from it, and add the methods that are called.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm

    def close(self) -> None:
        """Let go of what this rank holds, once nothing more will be asked."""


class RanksFailed(Exception):
    """A rank failed, ended or did not answer in time; the message says which, and what it said."""


class Crew:
    """Ranks that hold one object each and call its methods when told to.

    Parameters
    ----------
    worker : str
        A :class:`Worker` by its name, ``package.module:Class`` or ``path/to/file.py:Class``; every rank makes one as
        ``Class(comm, **params)``.
    ranks : int
        How many.
    bound : bool
        Whether mpirun may bind ranks to cores, as it does by itself where there are enough of them.
    environment : mapping, optional
        Variables on top of this process's own.
    params
        Arguments of the class; JSON.

    Raises
    ------
    RanksFailed
        If a rank does not come up; nothing is left behind.
    """

    def __init__(
        self,
        worker: str,
        ranks: int,
        *,
        bound: bool = False,
        environment: Mapping[str, str] | None = None,
        **params: object,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="coupler-bench-", dir="/tmp"))  # short: sockets allow 107 bytes
        # Open MPI's own segments, in a folder that can be removed whatever becomes of the ranks.
        where = os.environ.get(_MPI_FOLDER, "/dev/shm")
        self._shared_memory = Path(where) / f"coupler-bench-{secrets.token_hex(8)}"
        self._shared_memory.mkdir(mode=0o700)
        self._lines: list[socket.socket] = []
        self._files: list[BinaryIO] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._grace = _GRACE_SECONDS
        try:
            self._start(worker, ranks, bound, environment or {}, params)
        except BaseException:
            self.close()
            raise

    def call(
        self, method: str, *, within: float = 60.0, only: Sequence[int] | None = None, **arguments: object
    ) -> list[Any]:
        """Call a method of every rank's object at the same time and give the results in the order of ranks.

        Parameters
        ----------
        method : str
            Which.
        within : float
            Longest it may take [s].
        only : sequence of int, optional
            The ranks that take part; all if None.
        arguments
            Arguments of the method; JSON.

        Raises
        ------
        RanksFailed
            If one raised, ended or did not answer in time.
        """
        asked = range(len(self._lines)) if only is None else only
        grace, self._grace = self._grace, 0.0  # if this fails, others may wait in it for ever
        message = json.dumps({"method": method, "arguments": arguments}).encode() + b"\n"
        try:
            for rank in asked:
                self._lines[rank].sendall(message)
        except OSError:
            raise RanksFailed(f"Rank {rank} has ended. {self._said()}") from None
        found = self._results(asked, time.monotonic() + within)
        self._grace = grace
        return [found[rank] for rank in asked]

    def close(self) -> None:
        """End the ranks and remove what they left."""
        for line in self._lines:
            line.close()  # a rank that waits for its next call ends with that
        for file in self._files:
            file.close()
        if self._process is not None:
            _end(self._process, self._grace)
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._shared_memory, ignore_errors=True)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(
        self, worker: str, ranks: int, bound: bool, environment: Mapping[str, str], params: Mapping[str, object]
    ) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._folder / "line"))
            listener.listen(ranks)
            binding = [] if bound else ["--bind-to", "none"]
            command = [str(Path(sys.executable).parent / "mpirun"), "--oversubscribe", *binding, "-n", str(ranks)]
            start = f"from {__name__} import main; main()"  # not -m, or Worker would be two classes
            job = [sys.executable, "-c", start, str(self._folder / "line"), worker, json.dumps(params)]
            with (self._folder / "output").open("wb") as output:
                self._process = subprocess.Popen(
                    [*command, *job],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**rank_environment(), _MPI_FOLDER: str(self._shared_memory)} | dict(environment),
                    start_new_session=True,
                )
            ends = time.monotonic() + START_SECONDS
            lines: dict[int, tuple[socket.socket, BinaryIO]] = {}
            while len(lines) < ranks:
                line = self._accept(listener, ends)
                self._lines.append(line)  # so that it is closed if the next one does not come
                file = line.makefile("rb")
                self._files.append(file)
                lines[int(file.readline())] = (line, file)
        self._lines = [lines[rank][0] for rank in range(ranks)]
        self._files = [lines[rank][1] for rank in range(ranks)]
        for line in self._lines:
            line.sendall(b"make\n")
        self._results(range(ranks), ends)

    def _accept(self, listener: socket.socket, ends: float) -> socket.socket:
        assert self._process is not None
        listener.settimeout(0.2)
        while self._process.poll() is None and time.monotonic() < ends:
            with suppress(TimeoutError):
                line, _ = listener.accept()
                line.settimeout(max(ends - time.monotonic(), 0.001))
                return line
        raise RanksFailed(f"The ranks did not come up. {self._said()}")

    def _results(self, asked: Sequence[int], ends: float) -> dict[int, Any]:
        """Take one answer of each; the first failure ends it, as the others may be waiting for that rank."""
        found: dict[int, Any] = {}
        with selectors.DefaultSelector() as waiting:
            for rank in asked:
                waiting.register(self._lines[rank], selectors.EVENT_READ, rank)
            while waiting.get_map():
                ready = waiting.select(max(ends - time.monotonic(), 0.0))
                if not ready:
                    late = sorted(key.data for key in waiting.get_map().values())
                    raise RanksFailed(f"Ranks {late} did not answer in time. {self._said()}")
                for key, _ in ready:
                    found[key.data] = self._result(key.data, ends)
                    waiting.unregister(key.fileobj)
        return found

    def _result(self, rank: int, ends: float) -> Any:
        self._lines[rank].settimeout(max(ends - time.monotonic(), 0.001))
        try:
            answer = self._files[rank].readline()
        except OSError:
            answer = b""
        if not answer:
            raise RanksFailed(f"Rank {rank} has ended. {self._said()}")
        outcome = json.loads(answer)
        if "failure" in outcome:
            raise RanksFailed(f"Rank {rank} failed:\n{outcome['failure']}")
        return outcome["result"]

    def _said(self) -> str:
        output = (self._folder / "output").read_text(errors="replace").strip() if self._folder.is_dir() else ""
        return f"It said:\n{output[-4000:]}" if output else "It said nothing."


def on_ranks(
    function: str,
    ranks: int,
    *,
    within: float = 120.0,
    bound: bool = False,
    environment: Mapping[str, str] | None = None,
    **arguments: object,
) -> list[Any]:
    """Call a function on so many ranks under mpirun and give what each returned.

    Parameters
    ----------
    function : str
        ``package.module:function`` or ``path/to/file.py:function``, called as ``function(comm, **arguments)``.
    ranks : int
        How many.
    within : float
        Longest the call may take, the start not counted [s].
    bound, environment
        As for :class:`Crew`.
    arguments
        Its arguments; JSON, as its result must be.

    Raises
    ------
    RanksFailed
        If a rank raised, ended or did not answer in time; nothing is left behind.
    """
    with Crew(f"{__name__}:Caller", ranks, bound=bound, environment=environment, function=function) as crew:
        return crew.call("call", within=within, arguments=arguments)


class Caller(Worker):
    """The worker of :func:`on_ranks`."""

    def __init__(self, comm: Any, function: str) -> None:
        super().__init__(comm)
        self._function: Any = load_object(function)

    def call(self, arguments: dict[str, object]) -> object:
        return self._function(self.comm, **arguments)


def rank_environment() -> dict[str, str]:
    """Give this process's variables, with what ranks on few cores need: no spinning, one thread, our packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_JOB_PREFIXES)}
    # A process that only makes singletons may have been told to use no shared memory.
    kept.pop("OMPI_MCA_btl", None)
    path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, **one_thread(), "PYTHONPATH": os.pathsep.join(path)} | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }


def one_thread() -> dict[str, str]:
    """Give the variables that keep numerical libraries to one thread."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait for the end of mpirun and its ranks, then end them, first politely; they have a session of their own."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    ends = time.monotonic() + _GRACE_SECONDS
    while _session(process.pid) and time.monotonic() < ends:
        time.sleep(_LOOK_SECONDS)


def _session(leader: int) -> list[int]:
    """Find the living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):  # it ended while we looked
                state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(session) == leader and state != "Z":
                    found.append(int(entry.name))
    return found


def _work(line: socket.socket, worker: str, params: Mapping[str, Any]) -> None:
    """Live as a rank: make the object, then do as told until the line is closed."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    file = line.makefile("rb")
    line.sendall(f"{comm.rank}\n".encode())
    held: list[Worker] = []

    def make() -> None:
        held.append(plugin.load(worker, Worker)(comm, **params))

    def call(method: str, arguments: Mapping[str, Any]) -> object:
        return getattr(held[0], method)(**arguments)

    if file.readline():
        _reply(line, make)
    while request := file.readline():
        _reply(line, partial(call, **json.loads(request)))
    for worker_made in held:
        worker_made.close()


def _reply(line: socket.socket, work: Callable[[], object]) -> None:
    try:
        outcome = {"result": work()}
    except Exception:  # noqa: BLE001, the edge of the process: whatever it is, the other side must hear of it
        outcome = {"failure": traceback.format_exc()}
    with suppress(BrokenPipeError):  # nobody listens any more; the next look at the line ends this rank
        line.sendall(json.dumps(outcome).encode() + b"\n")


def main() -> None:
    """Be one rank; its arguments are socket, worker and parameters."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(sys.argv[1])
        _work(line, sys.argv[2], json.loads(sys.argv[3]))
