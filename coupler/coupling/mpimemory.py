"""Open MPI's shared memory of a job: files of 16 MiB per rank that nobody removes when ``mpirun`` is killed.

A process of its own, started by a node's leading rank, outlives that just long enough to do it. It is this file, run as
a script: it needs nothing but Python, and is there before the rank imports torch.
"""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

# What it may need to notice that it is not needed any more [s].
_LEAVE_SECONDS = 10.0
_GOOD_BYE = b"."


class MpiMemory:
    """The leading rank's end of the pipe; nothing is started where the job has no such memory."""

    def __init__(self) -> None:
        self._guard = None
        if names := _names():
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *sorted(names)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """Leave it to Open MPI, which removes it when the job ends. Collective: no."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.write(_GOOD_BYE)
            self._guard.stdin.close()
        try:
            self._guard.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:  # somebody has stopped it
            self._guard.kill()
            self._guard.wait()


def _names() -> set[str]:
    """Give what the names of Open MPI's shared memory begin with in this process's job; none where there is none."""
    mapped = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/sm_segment." in line)
    return {name.rpartition(".")[0] for name in mapped}  # without the rank


def main() -> None:
    """Wait for the pipe to close, then remove the memory named on the command line, unless nobody was killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() == _GOOD_BYE:
        return
    for name in map(Path, sys.argv[1:]):
        for segment in name.parent.glob(f"{name.name}.*"):
            segment.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
