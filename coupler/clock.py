"""Where the seconds go: wall-clock time per activity on this rank."""

import time
from types import TracebackType

ACTIVITIES = ("setup", "truth", "wait", "gather", "gate", "scatter", "halo", "io", "sync", "learn", "twin")


class Stopwatch:
    """Adds up wall-clock seconds per activity; activities do not nest."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self._timings = {activity: _Timing(self.seconds, activity) for activity in ACTIVITIES}
        self._started = time.perf_counter()

    def timing(self, activity: str) -> "_Timing":
        """Give a context that charges the time spent inside to an activity."""
        return self._timings[activity]

    def charge(self, activity: str, seconds: float) -> None:
        """Charge time that was taken elsewhere to an activity."""
        self.seconds[activity] += seconds

    @property
    def total(self) -> float:
        """Seconds since this stopwatch was made."""
        return time.perf_counter() - self._started


class _Timing:
    """One activity's context, made once: a generator would cost more than many of the things it times."""

    __slots__ = ("_activity", "_seconds", "_started")

    def __init__(self, seconds: dict[str, float], activity: str) -> None:
        self._seconds, self._activity = seconds, activity
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds[self._activity] += time.perf_counter() - self._started
