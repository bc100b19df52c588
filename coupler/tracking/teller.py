"""The teller: passes on to a tracker what happens in a run, in a thread, so that the run never waits for it."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from coupler.progress import Progress
from coupler.records import Event
from coupler.summary import Summary
from coupler.tracking.tracker import Start, Tracker

_log = logging.getLogger("coupler.tracking")
# What a tracker has not taken in yet; beyond that, steps are left out [messages].
_ROOM = 256
# Longest wait for a tracker at the end of a run [s].
_PATIENCE_SECONDS = 10.0


class Teller:
    """Tells one tracker.

    A tracker that raises is told no more, which the log says once. One that is slow misses steps; one that hangs is
    left behind when the run ends.

    Parameters
    ----------
    tracker : Tracker
        Who is told.
    start : Start
        What it is told first, here and now.

    Raises
    ------
    CouplerError
        If the tracker cannot begin.
    """

    def __init__(self, tracker: Tracker, start: Start) -> None:
        tracker.begin(start)
        self._tracker = tracker
        self._messages: queue.Queue[Callable[[], None] | None] = queue.Queue(_ROOM)
        self._thread = threading.Thread(target=self._tell, name="coupler-tracker", daemon=True)
        self._thread.start()

    def steps(self, steps: Sequence[Progress]) -> None:
        """Pass on some steps. Collective: no."""
        self._put(lambda: self._tracker.steps(steps))

    def event(self, event: Event) -> None:
        """Pass on an event. Collective: no."""
        self._put(lambda: self._tracker.event(event))

    def end(self, summary: Summary) -> None:
        """Pass on how the run ended. Collective: no."""
        self._put(lambda: self._tracker.end(summary), wait=_PATIENCE_SECONDS)

    def close(self) -> None:
        """Have the tracker let go, and wait for that, but not for ever. Collective: no."""
        if not self._thread.is_alive():
            return
        self._put(None, wait=_PATIENCE_SECONDS)
        self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            _log.warning("the tracker did not come to an end within %.0f s and is left behind", _PATIENCE_SECONDS)

    def _put(self, message: Callable[[], None] | None, *, wait: float = 0.0) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._messages.put(message, block=wait > 0, timeout=wait or None)
        except queue.Full:
            _log.debug("the tracker is slow: something is left out")

    def _tell(self) -> None:
        # A tracker is somebody else's, and no reason to end a run of hours.
        try:
            while (message := self._messages.get()) is not None:
                message()
        except Exception as error:  # noqa: BLE001
            _log.warning("the tracker failed and is told no more: %s: %s", type(error).__name__, error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        try:
            self._tracker.close()
        except Exception as error:  # noqa: BLE001, as above
            _log.warning("the tracker could not be closed: %s: %s", type(error).__name__, error)
