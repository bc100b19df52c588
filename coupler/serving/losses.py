"""Losses: when something that is started again was lost lately, and what follows: a pause, or giving it up."""

from dataclasses import dataclass

from coupler.errors import CouplerError


class LostAtStartError(CouplerError):
    """A process that was being started was lost before it was there: it is started again like others that are lost."""


@dataclass(frozen=True)
class RestartRule:
    """How often something is started again, and how soon.

    Parameters
    ----------
    limit : int
        Restarts within a window; what is lost once more is given up.
    window : float
        The window [s].
    first, longest : float
        Pause before the second restart, which doubles with every further one, up to the longest [s].
    """

    limit: int = 5
    window: float = 600.0
    first: float = 1.0
    longest: float = 30.0


@dataclass(frozen=True)
class Losses:
    """When something was lost, a restart that failed included.

    Parameters
    ----------
    times : tuple of float
        Those that count, ascending [s].
    """

    times: tuple[float, ...] = ()

    def after(self, now: float, rule: RestartRule) -> "Losses":
        """Give the losses after one more; those that the window has left are forgotten."""
        return Losses((*(time for time in self.times if now - time < rule.window), now))

    def too_many(self, rule: RestartRule) -> bool:
        """Whether to give up: the circuit breaker."""
        return len(self.times) > rule.limit

    def pause(self, rule: RestartRule) -> float:
        """How long to wait before the restart that comes next [s]: after the first loss not at all."""
        if len(self.times) < 2:
            return 0.0
        # More doublings than that are infinite.
        return min(rule.longest, rule.first * 2.0 ** min(len(self.times) - 2, 60))
