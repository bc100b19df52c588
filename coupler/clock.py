"""Where the seconds go: wall-clock time per activity on this rank."""

import time
from types import TracebackType
from typing import Protocol

ACTIVITIES = ("setup", "truth", "wait", "gather", "gate", "scatter", "halo", "io", "sync", "learn", "twin")


class SpanTaker(Protocol):
    """Takes down from when to when something was done."""

    def span(self, name: str, started: float, stopped: float, step: int = 0) -> None:
        """Take a span, by ``time.perf_counter`` [s]."""


class Stopwatch:
    """Adds up wall-clock seconds per activity; activities do not nest.

    Attributes
    ----------
    spans : SpanTaker or None
        Told of every timing, where the run keeps a timeline.
    started : float
        When this stopwatch was made, by ``time.perf_counter`` [s].
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self.spans: SpanTaker | None = None
        self._timings = {activity: _Timing(self, activity) for activity in ACTIVITIES}
        self.started = time.perf_counter()

    def timing(self, activity: str) -> "_Timing":
        """Give a context that charges the time spent inside to an activity."""
        return self._timings[activity]

    def charge(self, activity: str, seconds: float) -> None:
        """Charge time that was taken elsewhere to an activity."""
        self.seconds[activity] += seconds

    def since(self, activity: str, started: float, step: int) -> float:
        """Give the seconds since then, and put them on the timeline, if there is one; nothing is charged.

        Parameters
        ----------
        activity : str
            What was done.
        started : float
            When it began, by ``time.perf_counter`` [s].
        step : int
            The time step it belongs to.
        """
        stopped = time.perf_counter()
        if self.spans is not None:
            self.spans.span(activity, started, stopped, step)
        return stopped - started

    @property
    def total(self) -> float:
        """Seconds since this stopwatch was made."""
        return time.perf_counter() - self.started


class _Timing:
    """One activity's context, made once: a generator would cost more than many of the things it times."""

    __slots__ = ("_activity", "_seconds", "_started", "_stopwatch")

    def __init__(self, stopwatch: Stopwatch, activity: str) -> None:
        self._stopwatch, self._seconds, self._activity = stopwatch, stopwatch.seconds, activity
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = time.perf_counter()
        self._seconds[self._activity] += stopped - self._started
        if (spans := self._stopwatch.spans) is not None:
            spans.span(self._activity, self._started, stopped)
