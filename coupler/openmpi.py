"""What Open MPI leaves of a job whose ``mpirun`` is killed: 16 MiB of shared memory per rank, and a session folder.

The folder is named after the number of ``mpirun``'s process, and no later one with that number can start while it is
there ("The PMIx server's listener thread failed to start"). A process of its own, started by a node's leading rank,
outlives it just long enough to remove both. It is this file, run as a script: it needs nothing but Python, and is there
before the rank imports torch.
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


@cache
def guard() -> "subprocess.Popen[bytes] | None":
    """Start this process's guard, which waits at a pipe that ends with it; None where there is nothing to guard."""
    names, session = _names(), os.environ.get("PMIX_SERVER_TMPDIR", "")
    if not names and not launcher_of(Path(session)):
        return None
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, session, *sorted(names)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _names() -> set[str]:
    """Give what the names of Open MPI's shared memory begin with in this process's job; none where there is none."""
    mapped = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/sm_segment." in line)
    return {name.rpartition(".")[0] for name in mapped}  # without the rank


def main() -> None:
    """Wait for the pipe to close, then for Open MPI; remove what it leaves of what is named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    session, *names = sys.argv[1:]
    launcher = -1
    with suppress(OSError):  # it has ended already, or is in a container that this process does not see into
        launcher = os.pidfd_open(launcher_of(Path(session)))
    sys.stdin.buffer.read()
    _remove_memory(names)
    if launcher >= 0 and select.select([launcher], [], [], _LAUNCHER_SECONDS)[0]:
        shutil.rmtree(session, ignore_errors=True)


def _remove_memory(names: list[str]) -> None:
    ends = time.monotonic() + _MOMENT_SECONDS
    while (left := _segments(names)) and time.monotonic() < ends:
        time.sleep(_LOOK_SECONDS)
    for segment in left:
        segment.unlink(missing_ok=True)


def _segments(names: list[str]) -> list[Path]:
    return [segment for name in map(Path, names) for segment in name.parent.glob(f"{name.name}.*")]


if __name__ == "__main__":
    main()
