"""Where the seconds go: wall-clock time per activity on this rank."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

ACTIVITIES = ("setup", "truth", "wait", "gather", "gate", "scatter", "halo", "io", "sync", "learn")


class Stopwatch:
    """Adds up wall-clock seconds per activity; activities do not nest."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self._started = time.perf_counter()

    @contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        """Charge the time spent inside to an activity."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - started

    @property
    def total(self) -> float:
        """Seconds since this stopwatch was made."""
        return time.perf_counter() - self._started
