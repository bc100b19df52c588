"""Being asked to stop: batch systems send a signal before they end a job, and the run ends with a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

RESUME_ME = os.EX_TEMPFAIL
"""Exit code of a run that was asked to stop and can be resumed: 75, "try again later" in sysexits.h."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to stop: what batch systems send at the end of the time, and what they can be told to send."""

# Launchers send SIGTERM twice in a row; whoever sends it again so much later means it [s].
_PATIENCE_SECONDS = 5.0


class StopSignals:
    """While it is entered, a signal asks instead of ending the process; SIGTERM some seconds later ends it.

    Parameters
    ----------
    ask : callable
        Called at the first signal.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._before: dict[int, Any] = {}
        self._asked_at: float | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # nobody else is told of signals
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        elif number == signal.SIGTERM and time.monotonic() - self._asked_at > _PATIENCE_SECONDS:
            before = self._before.get(number, signal.SIG_DFL)
            if callable(before):
                before(number, frame)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._ask()
