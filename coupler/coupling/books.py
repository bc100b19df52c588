"""The books of a run: sums of every step over the ranks, entered as they come and closed for several steps at once."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.coupling.account import Account, StepTotals
from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.journal import Journal
from coupler.coupling.route import Route
from coupler.coupling.sharing import Sharing

# Books that need not be closed at once are closed this often [s].
_CLOSED_SECONDS = 0.25


class _Entry(NamedTuple):
    """What came of a step: sums over the ranks, what held, and seconds since the start."""

    step: int
    numbers: NDArray[np.int64]
    setting: tuple[StepSetting, ...]
    seconds: float


class Books:
    """Takes the sums of steps to whoever counts decisions: the account, the journal, and whether sharing pays.

    Where nothing hangs on the sums of a step, books are closed for many steps at once: after the truth of a step every
    line of Python has left the caches, and costs five times as much.

    Parameters
    ----------
    account : Account
        Controllers, and the certificate's evidence.
    journal : Journal
        Ledger, metrics and progress.
    sharing : Sharing
        Is told what sharing brought.
    routes : sequence of Route
        One per operator.
    counted : bool
        Whether the journal counts decisions, as it does where there is to be a model.
    """

    def __init__(
        self, account: Account, journal: Journal, sharing: Sharing, routes: Sequence[Route], *, counted: bool
    ) -> None:
        self._account, self._journal, self._sharing, self._routes = account, journal, sharing, routes
        self._counted = counted
        self._shapes = [route.counts.shape for route in routes]
        self._ends = np.cumsum([shape.length for shape in self._shapes])[:-1]
        self._entries: list[_Entry] = []
        self._closed_at = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether they should be closed though nothing hangs on it."""
        return time.monotonic() - self._closed_at > _CLOSED_SECONDS

    def enter(self, step: int, numbers: NDArray[np.int64], setting: tuple[StepSetting, ...], seconds: float) -> None:
        """Enter a step.

        Parameters
        ----------
        step : int
            Its number.
        numbers : ndarray of int64
            Counts of all operators, one after the other, summed over the ranks.
        setting : tuple of StepSetting
            What held in it, one per operator.
        seconds : float
            When its sums came, since the start of the run [s].

        Collective: no.
        """
        self._entries.append(_Entry(step, numbers.copy(), setting, seconds))

    def close(self, last: int, restarts: int) -> tuple[Counts, ...]:
        """Do what is entered; give the counts of the latest entry, none if there is no entry.

        Parameters
        ----------
        last : int
            The last step that has ended; of what was entered beyond it there is something only if it decided anything.
        restarts : int
            How often something was started again so far.

        Collective: no.
        """
        counts: tuple[Counts, ...] = ()
        for step, numbers, setting, seconds in self._entries:
            parts = np.split(numbers, self._ends)
            counts = tuple(Counts(shape, part) for shape, part in zip(self._shapes, parts, strict=True))
            if step > last and not any(one.elements for one in counts):
                continue
            totals = StepTotals(step, counts, setting)
            self._account.add(totals)
            if self._counted:
                self._journal.count(totals, [route.loss_bound for route in self._routes])
            self._journal.note(self._account.moment(seconds, restarts).progress)
            self._sharing.advance(counts)
        self._entries.clear()
        self._closed_at = time.monotonic()
        return counts
