"""Taking an arena over: whoever is to answer it ends whoever did before, then says that it is there."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

from coupler.errors import CouplerError
from coupler.exchange.arena import Arena

# How long a killed process may take to be gone [s].
_END_SECONDS = 20.0


def take_over(arena: Arena) -> None:
    """Answer an arena from now on, alone.

    A server that only stood still might go on one day, in the midst of a question that was given up long ago, and
    write into another one: so it is ended first.

    Parameters
    ----------
    arena : Arena
        Which one; ranks ask this process as soon as they look.

    Raises
    ------
    CouplerError
        If the one before cannot be ended.

    Collective: no.
    """
    before = int(arena.server_pid[0])
    if before and before != os.getpid() and _maps(before, arena):
        _end(before)
    arena.server_pid[0] = os.getpid()


def _maps(process: int, arena: Arena) -> bool:
    """Whether a process holds the arena: its number may have been given out again."""
    try:
        theirs = Path(f"/proc/{process}/maps").read_text(errors="replace")
    except OSError:
        return False
    return arena.inode in {int(line.split()[4]) for line in theirs.splitlines() if "memfd:" in line}


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(process)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not select.select([handle], [], [], _END_SECONDS)[0]:
                raise CouplerError(
                    f"The server before, process {process}, stands still and cannot be ended: kill -9 had no effect "
                    f"within {_END_SECONDS:.0f} s. Its node needs a look."
                )
        finally:
            os.close(handle)
