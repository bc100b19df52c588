"""Waiting on a word of shared memory: yield for a moment, then sleep in the kernel until somebody rings.

Pure spinning ruins a node with more processes than cores and pure sleeping costs tens of microseconds; a short
run of ``sched_yield`` before the futex sleep is good at both.
"""

import ctypes
import os
import platform
import time

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError

_FUTEX_WAIT = 0
_FUTEX_WAKE = 1
_ALL_WAITERS = 2**31 - 1
# Long enough to catch an answer that is nearly there, short enough to leave the core to whoever computes it.
_YIELD_SECONDS = 50e-6

# Only where stores become visible in the order they were made: nothing here fences payload and number apart.
_SYSTEM_CALLS = {"x86_64": 202}
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _futex_number() -> int:
    try:
        return _SYSTEM_CALLS[platform.machine()]
    except KeyError:
        raise CouplerError(
            f"The shared transport does not know this processor ({platform.machine()}). "
            "Use --set exchange.transport=inprocess."
        ) from None


def wait_for_change(word: NDArray[np.uint32], seen: int, timeout: float) -> bool:
    """Wait until a word of shared memory is no longer what it was, at most ``timeout`` seconds.

    Parameters
    ----------
    word : ndarray (1,) of uint32
        The word; 4-byte aligned, in memory both sides map.
    seen : int
        Its value when last looked at.
    timeout : float
        Longest wait [s]. A signal ends the wait early, so that Ctrl-C answers at once.

    Returns
    -------
    bool
        Whether the word has changed.

    Collective: no. Releases the GIL while it sleeps.
    """
    started = time.perf_counter()
    while time.perf_counter() - started < _YIELD_SECONDS:
        if word[0] != seen:
            return True
        os.sched_yield()
    rest = timeout - (time.perf_counter() - started)
    if rest > 0:
        whole = int(rest)
        limit = _Timespec(whole, int((rest - whole) * 1e9))
        _libc.syscall(
            _futex_number(),
            ctypes.c_void_p(word.ctypes.data),
            _FUTEX_WAIT,
            ctypes.c_uint32(seen),
            ctypes.byref(limit),
            None,
            0,
        )
    return bool(word[0] != seen)


def ring(word: NDArray[np.uint32]) -> None:
    """Wake everybody who sleeps on the word; change the word first.

    Collective: no.
    """
    _libc.syscall(_futex_number(), ctypes.c_void_p(word.ctypes.data), _FUTEX_WAKE, _ALL_WAITERS, None, None, 0)
