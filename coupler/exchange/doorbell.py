"""The doorbell: waiting on a word of shared memory, first by yielding the core, then asleep in the kernel.

Pure spinning ruins a node with more processes than cores, and pure sleeping costs tens of microseconds. Where a waiter
has its core to itself, a run of ``sched_yield`` about as long as the wait spares the sleep, so every waiter remembers
how long it waited lately. Where it shares the core, a yield hands over whole milliseconds (newer schedulers take a
slice of whoever yields), so a waiter that has seen this sleeps at once, and tries again ever more seldom. It is not
always seen: between control groups or sessions a yield gives nothing away, and is as bad as spinning. Where there are
more processes than cores, which is known beforehand, waiters never yield. A bell is two
words: what is watched, and how many sleep on it, so that ringing is free where nobody does.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.exchange.atomics import (
    fetch_add,
    futex_wait,
    futex_wake,
    load_acquire,
    monotonic_ns,
    store_release,
    yield_core,
)

Bell = NDArray[np.uint32]

_NANOSECONDS = 1e9
# Yielding lasts at least so long [ns]: it catches an answer that is nearly there and leaves the core to whoever works.
_LEAST_WINDOW = 50_000.0
# Waits that are usually longer than this [ns] are not worth yielding through, and only the least is tried.
_MOST_EXPECTED = 300_000.0
# The window over the expected wait, and how much one wait changes the expectation.
_MARGIN, _LEARNING = 1.5, 0.25
# A yield that takes longer than this [ns] let somebody else run.
_SHARED_YIELD = 20_000
# Waits that sleep at once after that: at first, and at most, as they double whenever it is seen again.
_FIRST_SLEEPS, _MOST_SLEEPS = 16.0, 65536.0
# Places in a waiter's memory.
_EXPECTED, _SLEEPS_LEFT, _SLEEPS = 0, 1, 2


class Patience:
    """What a waiter remembers of its waits on one bell; each has its own.

    Parameters
    ----------
    crowded : bool
        Whether there are more processes than cores: every wait sleeps at once.

    Attributes
    ----------
    memory : ndarray (3,)
        The wait that is expected [ns]; waits left that sleep at once; how many it will be next time.
    """

    def __init__(self, *, crowded: bool = False) -> None:
        self.memory = np.zeros(3)
        if crowded:
            self.memory[_SLEEPS_LEFT] = np.inf

    @property
    def expected(self) -> float:
        """The wait that is expected [s]."""
        return float(self.memory[_EXPECTED]) / _NANOSECONDS

    @property
    def yields(self) -> bool:
        """Whether the next wait begins with yielding: not if the core was seen to be shared."""
        return bool(self.memory[_SLEEPS_LEFT] == 0)


def wait_for_change(bell: Bell, seen: int, timeout: float, patience: Patience) -> bool:
    """Wait until a bell's word is no longer what it was.

    Parameters
    ----------
    bell : ndarray (2,) of uint32
        Word and sleepers, in memory both sides map.
    seen : int
        The word when last looked at.
    timeout : float
        Longest wait [s]. A signal ends the wait early, so that Ctrl-C answers at once.
    patience : Patience
        The waiter's memory.

    Returns
    -------
    bool
        Whether the word has changed.

    Collective: no. Releases the GIL.
    """
    return bool(await_change(bell, np.uint32(seen), int(timeout * _NANOSECONDS), patience.memory))


@njit(nogil=True, cache=True)
def ring(bell):  # type: ignore[no-untyped-def]
    """Wake everybody who sleeps on a bell; change its word first. Collective: no."""
    if load_acquire(bell, 1):
        futex_wake(bell, 0)


@njit(nogil=True, cache=True)
def count_up(bell):  # type: ignore[no-untyped-def]
    """Add 1 to a bell's word, modulo 2^32, and ring. Collective: no."""
    fetch_add(bell, 0, 1)
    ring(bell)


@njit(nogil=True, cache=True)
def announce(bell, value):  # type: ignore[no-untyped-def]
    """Write a bell's word and ring. Collective: no."""
    store_release(bell, 0, value)
    ring(bell)


@njit(nogil=True, cache=True)
def await_change(bell, seen, timeout, memory):  # type: ignore[no-untyped-def]
    """Wait like :func:`wait_for_change`, from compiled code; times in nanoseconds. Collective: no."""
    started = monotonic_ns()
    now = _yield_until_changed(bell, seen, started, timeout, memory)
    rest = timeout - (now - started)
    if rest > 0 and load_acquire(bell, 0) == seen:
        fetch_add(bell, 1, 1)
        if load_acquire(bell, 0) == seen:  # whoever has changed it before we were counted does not wake us
            futex_wait(bell, 0, seen, rest)
        fetch_add(bell, 1, np.uint32(0xFFFFFFFF))
        now = monotonic_ns()
    # A long silence must not be remembered for long.
    waited = min(float(now - started), 2.0 * _MOST_EXPECTED)
    memory[_EXPECTED] += _LEARNING * (waited - memory[_EXPECTED])
    return load_acquire(bell, 0) != seen


@njit(nogil=True, cache=True)
def _yield_until_changed(bell, seen, started, timeout, memory):  # type: ignore[no-untyped-def]
    """Yield until the word changes, the window is over or the core turns out to be shared; give the time."""
    if memory[_SLEEPS_LEFT] > 0:
        memory[_SLEEPS_LEFT] -= 1
        return started
    window = _LEAST_WINDOW
    if memory[_EXPECTED] <= _MOST_EXPECTED:
        window = max(window, _MARGIN * memory[_EXPECTED])
    now, ends = started, started + min(np.int64(window), timeout)
    while load_acquire(bell, 0) == seen and now < ends:
        before = now
        yield_core()
        now = monotonic_ns()
        if now - before > _SHARED_YIELD:
            memory[_SLEEPS] = min(max(2.0 * memory[_SLEEPS], _FIRST_SLEEPS), _MOST_SLEEPS)
            memory[_SLEEPS_LEFT] = memory[_SLEEPS]
            return now
    memory[_SLEEPS] *= 0.5
    return now
