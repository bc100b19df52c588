"""The daemons of an embedded cluster, the raylet and Ray's control service: whether they are at work.

Looked at from outside, as processes: whoever asks a daemon that stands still waits for it.
"""

import os
import select
import time
from pathlib import Path

from coupler.serving.reaper import session_processes, stopped

_PROGRAMS = ("raylet", "gcs_server")


class Daemons:
    """The daemons that work in a session's folder.

    Parameters
    ----------
    folder : Path
        The session's folder.
    """

    def __init__(self, folder: Path) -> None:
        found = {pid: _program(pid) for pid in session_processes(folder, os.getpid())}
        self._daemons = [_Daemon(pid, name) for pid, name in found.items() if name in _PROGRAMS]

    def broken(self, silence: float) -> str:
        """Say which daemon has ended, or has stood still for too long; empty if none has.

        Parameters
        ----------
        silence : float
            How long one may stand still [s].
        """
        found = (daemon.broken(silence) for daemon in self._daemons)
        return next(filter(None, found), "")


class _Daemon:
    def __init__(self, pid: int, name: str) -> None:
        self._pid, self._name = pid, name
        self._handle = os.pidfd_open(pid)
        self._stopped_at: float | None = None

    def broken(self, silence: float) -> str:
        if select.select([self._handle], [], [], 0)[0]:
            return f"Ray's {self._name} has ended"
        if not stopped(self._pid):
            self._stopped_at = None
            return ""
        now = time.monotonic()
        self._stopped_at = now if self._stopped_at is None else self._stopped_at
        return f"Ray's {self._name} has stood still for {silence:g} s" if now - self._stopped_at > silence else ""


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace").rpartition("/")[2]
    except OSError:  # it ended while we looked
        return ""
