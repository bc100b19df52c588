"""What Open MPI leaves of a job whose ``mpirun`` is killed: 16 MiB of shared memory per rank, and a session folder.

The folder is named after the number of ``mpirun``'s process, and no later one with that number can start while it is
there ("The PMIx server's listener thread failed to start"). A process of its own, started by a node's leading rank,
outlives it just long enough to remove both. It is this file, run as a script: it needs nothing but Python, so it can be
there before the rank has imported anything, MPI included.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

# Open MPI removes what a job has whose ranks end by themselves, within a moment; ``mpirun`` itself ends after all ranks
# of all nodes have [s].
_MOMENT_SECONDS, _LOOK_SECONDS, _LAUNCHER_SECONDS = 2.0, 0.02, 60.0
# A rank that has mapped no shared memory after so long will not; until then it is looked at so often [s].
_START_SECONDS, _GLANCE_SECONDS = 300.0, 0.05
# Where Open MPI tells a process which of the ranks of its node it is.
_LOCAL_RANK = "OMPI_COMM_WORLD_LOCAL_RANK"


def abandoned_sessions(temporary: Path) -> set[Path]:
    """Give the session folders in a folder for temporary files whose ``mpirun`` is gone. Collective: no."""
    named = {path: launcher_of(path) for path in temporary.glob("ompi.*")}
    return {path for path, launcher in named.items() if launcher and not Path(f"/proc/{launcher}").exists()}


def launcher_of(session: Path) -> int:
    """Give the number of the process that a session folder is named after, ``ompi.NUMBER``; 0 where it is no such one.

    Other launchers have folders with other names, ``ompi.HOST.USER`` for one, and see to them themselves.
    """
    kind, _, number = session.name.partition(".")
    return int(number) if kind == "ompi" and number.isdigit() else 0


def guard_early() -> None:
    """Start the guard of a job of Open MPI on the first of this node's ranks, before MPI is there. Collective: no."""
    if os.environ.get(_LOCAL_RANK) == "0":
        guard()


@cache
def guard() -> "subprocess.Popen[bytes] | None":
    """Start this process's guard, which waits at a pipe that ends with it; None where there is nothing to guard."""
    session, names = os.environ.get("PMIX_SERVER_TMPDIR", ""), _names(os.getpid())
    if not (names or _LOCAL_RANK in os.environ or launcher_of(Path(session))):
        return None
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, session, str(os.getpid()), str(os.getppid()), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    """Wait for the rank to end, then for Open MPI; remove what it leaves of what ranks of this node had mapped."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    session, rank, starter, *names = sys.argv[1:]
    launcher = -1
    with suppress(OSError):  # it has ended already, or is in a container that this process does not see into
        launcher = os.pidfd_open(launcher_of(Path(session)))
    _remove_memory(_await_end(int(rank), int(starter), set(names)))
    if launcher >= 0 and select.select([launcher], [], [], _LAUNCHER_SECONDS)[0]:
        shutil.rmtree(session, ignore_errors=True)


def _await_end(rank: int, starter: int, names: set[str]) -> set[str]:
    """Wait for the pipe to close; give what the names of the job's shared memory begin with, once it has any."""
    late = time.monotonic() + _START_SECONDS
    while True:
        if not names:  # one rank may stand still before it has mapped its own
            names = names.union(*map(_names, {rank, *_children(starter)}))
        waits = bool(names) or time.monotonic() > late
        if select.select([sys.stdin], [], [], None if waits else _GLANCE_SECONDS)[0]:
            return names


def _children(process: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except OSError:
        return []


def _names(process: int) -> set[str]:
    """Give what the names of Open MPI's shared memory begin with in a process; none where there is none."""
    try:
        maps = Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return set()
    mapped = (line.split()[-1] for line in maps.splitlines() if "/sm_segment." in line)
    return {name.rpartition(".")[0] for name in mapped}  # without the rank


def _remove_memory(names: set[str]) -> None:
    ends = time.monotonic() + _MOMENT_SECONDS
    while (left := _segments(names)) and time.monotonic() < ends:
        time.sleep(_LOOK_SECONDS)
    for segment in left:
        segment.unlink(missing_ok=True)


def _segments(names: set[str]) -> list[Path]:
    return [segment for name in map(Path, names) for segment in name.parent.glob(f"{name.name}.*")]


if __name__ == "__main__":
    main()
