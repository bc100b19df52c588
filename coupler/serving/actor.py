"""What all actors of a run have in common: they say how they are, stay until they are ended, and can be ended."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ActorReport:
    """How an actor is.

    Parameters
    ----------
    pid : int
        Its process.
    busy_seconds : float
        How long it has been at one piece of work that should be short [s]; 0 if it is at none.
    """

    pid: int
    busy_seconds: float


class Actor:
    """The part of an actor that its supervisor deals with; Ray runs it beside the work, in threads of its own."""

    _since: float | None = None

    def report(self) -> ActorReport:
        """Say how it is; the first call returns once the actor exists."""
        since = self._since
        return ActorReport(os.getpid(), 0.0 if since is None else time.monotonic() - since)

    def stay(self) -> None:
        """Never return: whoever waits for that sees at once when the process ends, however it came about."""
        threading.Event().wait()

    def leave(self) -> None:
        """End the process. Whoever asked for it sees the actor die, and by then the process is gone."""
        os._exit(0)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Be at a piece of work that should be short."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None
