"""Which elements a redraw audits: honest coins, tossed one by one or skipped over, and coins that leave some out."""

from typing import Literal

import numpy as np
from numba import njit

from coupler.controller.coins import Stream, uniform
from coupler.redraw.arithmetic import Floats, Word
from coupler.redraw.streams import LossStream, Whole

Coins = Literal["gaps", "tosses"]

# What the numbers of redraws are for, in the call's place of the counter.
_GAP, _THINNING = 0, 1


def audited_rows(stream: LossStream, number: int, *, coins: Coins = "gaps") -> Whole:
    """Say which of the listed elements one redraw audits.

    Parameters
    ----------
    stream : LossStream
        Of m listed elements.
    number : int
        Of the redraw.
    coins : {"gaps", "tosses"}
        As for :func:`redraw`; "tosses" are the coins of :func:`coupler.controller.tosses` with the redraw's number as
        seed and the element's place in its step as id.

    Returns
    -------
    ndarray of int64
        Rows, ascending.

    Collective: no.
    """
    rows = np.empty(stream.loss.size + 1, np.int64)  # tosses write before they look
    if coins == "gaps":
        return rows[: by_gaps(number, stream.first, stream.rate, rows)]
    return rows[: by_tosses(number, stream.first, stream.rate, stream.step, stream.place, rows)]


# A coin that falls with probability p falls again after a geometrically distributed number of others; where the rate
# changes one starts anew, as coins remember nothing.
@njit(cache=True, nogil=True)
def by_gaps(number: int, first: Whole, rate: Floats, rows: Whole) -> int:
    """Put the audited rows of a redraw into ``rows`` by skipping to them, and count them."""
    k0, k1 = Word(number & 0xFFFFFFFF), Word(number >> 32)
    found, draws, at, scale = 0, 0, np.int64(0), 0.0
    for group in range(rate.size):
        start, end = first[group], first[group + 1]
        if group == 0 or rate[group] != rate[group - 1]:
            scale = 1.0 / np.log1p(-rate[group]) if rate[group] < 1.0 else 0.0
            at = start + gap(draws, scale, k0, k1)
            draws += 1
        while at < end:
            rows[found] = at
            found += 1
            at += 1 + gap(draws, scale, k0, k1)
            draws += 1
    return found


@njit(cache=True, nogil=True, inline="always")
def gap(draw: int, scale: float, k0: np.uint64, k1: np.uint64) -> np.int64:
    """Draw how many coins fail before the next falls; ``scale`` is 1 / ln(1 - p), 0 where p is 1."""
    c3 = Word(_GAP << 4 | Stream.REDRAW.value)
    return np.int64(np.log(1.0 - uniform(np.int64(draw), Word(0), c3, k0, k1)) * scale)


@njit(cache=True, nogil=True)
def by_tosses(number: int, first: Whole, rate: Floats, step: Whole, place: Whole, rows: Whole) -> int:
    """Put the audited rows of a redraw into ``rows`` by the coins of a run, and count them."""
    k0, k1, found = Word(number & 0xFFFFFFFF), Word(number >> 32), 0
    for group in range(rate.size):
        c2 = Word(step[group])
        for at in range(first[group], first[group + 1]):
            rows[found] = at
            found += uniform(place[at], c2, Word(0), k0, k1) < rate[group]
    return found


@njit(cache=True, nogil=True)
def thinned(number: int, caught: Floats, rows: Whole, count: int) -> int:
    """Leave out of the first ``count`` rows those that a dishonest coin skips, and count the rest."""
    k0, k1, found = Word(number & 0xFFFFFFFF), Word(number >> 32), 0
    c3 = Word(_THINNING << 4 | Stream.REDRAW.value)
    for i in range(count):
        at = rows[i]
        rows[found] = at
        found += uniform(at, Word(0), c3, k0, k1) < caught[at]
    return found
