"""The certificate's arithmetic for compiled loops: integers of 128 bits, number for number :class:`Certificate`.

``tests/unit/test_redraw.py`` compares every ceiling with those of ``Certificate.add``.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Word = np.uint64
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

UNIT = 2**32
_FAR = 2.0**62


# total += weight * audited, where total is a pair of words, the low one second.
@njit(cache=True, nogil=True, inline="always")
def add_product(total: Words, weight: np.int64, audited: np.int64) -> None:
    """Add a weight times an audited sum, both below 2**63, to a total of 128 bits (2,), high word first."""
    low, half = Word(0xFFFFFFFF), Word(32)
    a, b = Word(weight), Word(audited)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    lowest, left, right = a0 * b0, a1 * b0, a0 * b1
    middle = (lowest >> half) + (left & low) + (right & low)
    below = (middle << half) | (lowest & low)
    total[0] += a1 * b1 + (left >> half) + (right >> half) + (middle >> half)
    total[1] += below
    if total[1] < below:
        total[0] += Word(1)


@njit(cache=True, nogil=True, inline="always")
def as_share(total: Words) -> np.float64:
    """Divide a total by 2**64, rounded as Python rounds the quotient of two integers."""
    high, low = total[0], total[1]
    if high == Word(0):
        return np.float64(low) * 2.0**-64
    shift = Word(0)
    while shift < Word(64) and (high >> shift) != Word(0):
        shift += Word(1)
    if shift == Word(64):
        top, lost = high, low
    else:
        top, lost = (high << (Word(64) - shift)) | (low >> shift), low & ((Word(1) << shift) - Word(1))
    if lost != Word(0):
        top |= Word(1)  # enough to say on which side of the middle it is
    return np.float64(top) * 2.0 ** (np.float64(shift) - 64.0)


@njit(cache=True, nogil=True, inline="always")
def least_bound(totals: Words, grid: Floats, price: float) -> np.float64:
    """Give the least of the bounds of all constants, from their totals (constants, 2) [2**-32]."""
    least = np.inf
    for k in range(grid.size):
        least = min(least, (as_share(totals[k]) + price) / grid[k])
    return np.float64(least * UNIT)


@njit(cache=True, nogil=True, inline="always")
def next_ceiling(bound: float, before: np.int64, accepted: np.int64) -> np.int64:
    """Give the ceiling after a group: the bound rounded up, or the last ceiling plus all that was accepted since."""
    trivial = before + accepted * np.int64(UNIT)
    if bound >= _FAR:
        return trivial
    return min(np.int64(np.ceil(bound)), trivial)
