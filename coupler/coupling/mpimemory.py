"""Open MPI's shared memory of a job: files of 16 MiB per rank that nobody removes when ``mpirun`` is killed.

A process of its own, started by a node's leading rank, outlives it just long enough to do that. It is this file, run as
a script: it needs nothing but Python, and is there before the rank imports torch.
"""

import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

# Open MPI removes what a job has whose ranks end by themselves, within a moment [s].
_MOMENT_SECONDS, _LOOK_SECONDS = 2.0, 0.02


def guard_memory(comm: "MPI.Intracomm | None") -> None:
    """Have a job's memory on every node removed if it is still there a moment after the node's first rank has ended.

    Parameters
    ----------
    comm : MPI.Intracomm or None
        The ranks; None is the world. Where they have a guard already, it stays.

    Collective: yes.
    """
    from mpi4py import MPI  # here, as the guard itself is this file and knows nothing of MPI

    node = (comm or MPI.COMM_WORLD).Split_type(MPI.COMM_TYPE_SHARED)
    if node.rank == 0:
        guard()
    node.Free()


@cache
def guard() -> "subprocess.Popen[bytes] | None":
    """Start this process's guard, which waits at a pipe that ends with it; None where there is no such memory."""
    names = _names()
    if not names:
        return None
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *sorted(names)],
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
    """Wait for the pipe to close, then for Open MPI; remove what it leaves of the memory named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    ends = time.monotonic() + _MOMENT_SECONDS
    while (left := _segments()) and time.monotonic() < ends:
        time.sleep(_LOOK_SECONDS)
    for segment in left:
        segment.unlink(missing_ok=True)


def _segments() -> list[Path]:
    return [segment for name in map(Path, sys.argv[1:]) for segment in name.parent.glob(f"{name.name}.*")]


if __name__ == "__main__":
    main()
