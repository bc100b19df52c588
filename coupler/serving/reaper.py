"""The reaper: a small process that outlives a rank just long enough to clean up after it, ``kill -9`` included.

It holds the reading end of a pipe whose writing end only the rank has. When the pipe closes, however that came
about, it ends every process that still works in the session's folder and removes the folder.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from coupler.serving.environment import surroundings

# How long processes may take to end by themselves before they are killed, and how long killing may take [s].
_GRACE_SECONDS = 2.0
_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.05
# What the reaper needs for all that, and to notice that it has to [s].
_REAPER_SECONDS = _GRACE_SECONDS + _KILL_SECONDS + 5.0


class Reaper:
    """The rank's end of the pipe.

    Parameters
    ----------
    folder : Path
        The session's folder; whoever logs into it or names it on its command line belongs to the session.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coupler.serving.reaper", str(folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=surroundings(),
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        """Whether it is there to do its work, and does not stand still."""
        return self._process.poll() is None and not stopped(self._process.pid)

    def abandon(self) -> None:
        """End it without having the work done: another one does it."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()

    def close(self) -> None:
        """Have the work done now, and wait until it is; here, if the reaper is gone or does not move."""
        assert self._process.stdin is not None
        # Whoever closes it may be killed at any moment, and then it is the only one left to do the work.
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        try:
            done = self._process.wait(_REAPER_SECONDS) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            done = False
        if not done:
            reap(self._folder, os.getpid())


def session_processes(folder: Path, spared: int) -> list[int]:
    """Find the processes of a session: those that name its folder on their command line or hold a file in it open.

    Parameters
    ----------
    folder : Path
        The session's folder.
    spared : int
        The rank that owns the session: it logs there, too, but has work to do after it.
    """
    needle = str(folder)
    mine = (os.getpid(), spared)
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) not in mine)
    return [int(entry.name) for entry in processes if _belongs(entry, needle)]


def stopped(process: int) -> bool:
    """Whether a process was stopped by a signal."""
    return _state(process) == "T"


def _state(process: int) -> str:
    """Give the letter of a process's state; none if there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _belongs(process: Path, needle: str) -> bool:
    try:
        if needle in (process / "cmdline").read_text(errors="replace"):
            return True
        return any(str(link.readlink()).startswith(needle) for link in (process / "fd").iterdir())
    except OSError:  # it ended while we looked, or it is another user's
        return False


def reap(folder: Path, owner: int) -> None:
    """End every process of a session but its owner, politely at first, and remove its folder."""
    _wait_until_gone(folder, owner, _GRACE_SECONDS)
    ends = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < ends and (left := session_processes(folder, owner)):
        for process in left:
            _kill(process)
        time.sleep(_LOOK_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_until_gone(folder: Path, owner: int, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and session_processes(folder, owner):
        time.sleep(_LOOK_SECONDS)


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    """Wait for the pipe to close, then reap the folder named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    folder, owner = sys.argv[1:]
    reap(Path(folder), int(owner))


if __name__ == "__main__":
    main()
