"""A lock on a folder that is let go when its owner ends, however it ends.

A POSIX record lock: it belongs to the process, not to what it started, and on network file systems that have locks it
holds between hosts as well.
"""

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from coupler.errors import ConfigError

_log = logging.getLogger("coupler.lock")
_TAKEN = (errno.EACCES, errno.EAGAIN)
_LOOK_SECONDS = 0.05


class FolderLock:
    """Says of a run folder that a run is going on in it; two runs never share one.

    Parameters
    ----------
    path : Path
        The file to lock, made if missing. It stays: removing it would let two runs hold "the" lock.

    Raises
    ------
    ConfigError
        If somebody else holds it, who is named.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                owner = os.pread(self._descriptor, 1000, 0).decode(errors="replace").strip()
                self.release()
                raise ConfigError(
                    f"A run is going on in {path.parent} ({owner or 'of an unknown process'}), and two would write "
                    "over each other: wait for its end, or end it."
                ) from None
            # Some file systems of clusters have no locks: then the files made exclusively are all there is.
            _log.warning("%s cannot be locked (%s): see to it that no second run uses the folder.", path, error)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def await_free(path: Path, seconds: float) -> None:
    """Wait until nobody holds a lock: whoever is about to be ended may still write.

    Parameters
    ----------
    path : Path
        The lock's file.
    seconds : float
        Longest wait [s].

    Raises
    ------
    ConfigError
        If somebody still holds it, who is named.

    Collective: no.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            FolderLock(path).release()
        except ConfigError:
            if time.monotonic() > ends:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return
