"""Redraws of a settled stream: thousands of runs that differ by nothing but their coins.

For each redraw the audited elements are found, and the certificate is carried from group to group in its own integers
(:mod:`coupler.redraw.arithmetic`). Beside it goes what people would use without it: a normal interval, looked at
whenever one likes.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from statistics import NormalDist

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller import Certificate
from coupler.redraw.arithmetic import Floats, add_product, least_bound, next_ceiling
from coupler.redraw.audits import Coins, by_gaps, by_tosses, thinned
from coupler.redraw.crossings import Crossings, Spread
from coupler.redraw.streams import LossStream, Whole

# Audited losses that a normal interval waits for before anybody looks at it: fewer would be an easy target.
LEAST_SEEN = 30
_PORTION = 50


class Statement(IntEnum):
    """What is bounded; each per decision and per accepted decision.

    Both denominators are known and the same on both sides, so a bound per decision is crossed exactly where the bound
    per accepted decision is, and where the bound on the sum is.
    """

    LOSS = 0
    EXCEEDANCE = 1


@dataclass(frozen=True)
class Moments:
    """When bounds are kept; whether they are crossed is asked after every step.

    Parameters
    ----------
    steps : tuple of int
        The steps, from 0, after which they are, ascending.
    """

    steps: tuple[int, ...]

    @staticmethod
    def at(stream: LossStream, decisions: Sequence[float]) -> "Moments":
        """Choose the first steps by which so many decisions were taken; what the stream does not reach is left out."""
        decided = stream.decided
        found = {int(np.searchsorted(decided, count)) for count in decisions if decided.size and count <= decided[-1]}
        return Moments(tuple(sorted(found)))

    @staticmethod
    def spread(stream: LossStream, count: int) -> "Moments":
        """Choose moments at about equal ratios of the number of decisions, from the first step to the last."""
        decided = stream.decided
        if decided.size == 0 or decided[-1] == 0:
            return Moments(())
        return Moments.at(stream, np.geomspace(max(decided[0], 1), decided[-1], count).round().tolist())


@dataclass(frozen=True, eq=False)
class Redraws:
    """What became of every redraw.

    Parameters
    ----------
    deltas : tuple of float
        Probabilities that were allowed.
    decided, accepted : ndarray (moments,) of int64
        Decisions and accepted decisions up to each moment.
    true : ndarray (2, moments)
        True sum of every :class:`Statement`.
    crossed, peeked : ndarray (redraws, deltas, 2) of bool
        Whether the certificate, and the normal interval, was ever below the true sum, at any step.
    bound, limit : ndarray (redraws, deltas, 2, moments)
        Their values [decisions].
    """

    deltas: tuple[float, ...]
    decided: Whole
    accepted: Whole
    true: Floats
    crossed: NDArray[np.bool_]
    peeked: NDArray[np.bool_]
    bound: Floats
    limit: Floats

    def crossings(self, delta: float, statement: Statement = Statement.LOSS) -> Crossings:
        """Count the redraws in which the certificate failed."""
        return self._count(self.crossed, delta, statement)

    def peekings(self, delta: float, statement: Statement = Statement.LOSS) -> Crossings:
        """Count the redraws in which the normal interval failed."""
        return self._count(self.peeked, delta, statement)

    def tightness(self, delta: float, moment: int = -1, statement: Statement = Statement.LOSS) -> Spread:
        """Say how large bound over true sum was at a moment; the same for either denominator."""
        if self.decided.size == 0 or self.true[statement, moment] == 0:
            return Spread.of(np.empty(0))
        bounds = self.bound[:, self.deltas.index(delta), statement, moment]
        return Spread.of(bounds / self.true[statement, moment])

    def _count(self, happened: NDArray[np.bool_], delta: float, statement: Statement) -> Crossings:
        found = happened[:, self.deltas.index(delta), statement]
        return Crossings(int(found.sum()), found.size)


def redraw(
    stream: LossStream,
    certificate: Certificate,
    redraws: int,
    *,
    deltas: Sequence[float] | None = None,
    moments: Moments | None = None,
    caught: Floats | None = None,
    coins: Coins = "gaps",
    threads: int | None = None,
) -> Redraws:
    """Toss the coins of a settled stream anew, again and again.

    Parameters
    ----------
    stream : LossStream
        What is settled before the coins.
    certificate : Certificate
        Whose bound is watched.
    redraws : int
        How many times; their numbers from 0 are the seeds of their coins.
    deltas : sequence of float, optional
        Ask the same coins for several delta; that of the certificate if None.
    moments : Moments, optional
        When to keep the bounds; after the last step if None.
    caught : ndarray (m,), optional
        A coin that is *not* honest: the probability that an audit of each listed element is not left out.
    coins : {"gaps", "tosses"}
        How: by drawing how far it is to the next audit, or coin by coin as a run does it. The same in distribution;
        the first takes time in proportion to the audits, the second to the decisions.
    threads : int, optional
        As many as there are cores if None.

    Returns
    -------
    Redraws

    Collective: no. Releases the GIL.
    """
    allowed = (certificate.delta,) if deltas is None else tuple(deltas)
    decided = stream.decided
    kept = Moments((decided.size - 1,) if decided.size else ()) if moments is None else moments
    at, totals = np.array(kept.steps, np.int64), stream.true_sums()
    found = Redraws(
        deltas=allowed,
        decided=decided[at],
        accepted=np.cumsum(stream.accepted)[stream.closes][at],
        true=totals[:, at] / 2**32,
        crossed=np.zeros((redraws, len(allowed), 2), np.bool_),
        peeked=np.zeros((redraws, len(allowed), 2), np.bool_),
        bound=np.zeros((redraws, len(allowed), 2, at.size)),
        limit=np.zeros((redraws, len(allowed), 2, at.size)),
    )
    rules = _rules(stream, certificate, allowed)
    skips = np.empty(0) if caught is None else np.ascontiguousarray(caught, dtype=np.float64)
    assert skips.size in (0, stream.loss.size) or caught is None, (skips.size, stream.loss.size)

    def portion(start: int) -> None:
        _redraw_portion(
            start, min(start + _PORTION, redraws), coins == "gaps", skips,
            stream.loss, stream.exceeded, stream.place, stream.first, stream.rate, stream.step, stream.accepted,
            stream.closes, totals, *rules, at, found.crossed, found.peeked, found.bound, found.limit,
        )  # fmt: skip

    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        list(pool.map(portion, range(0, redraws, _PORTION)))
    return found


def _rules(
    stream: LossStream, certificate: Certificate, deltas: tuple[float, ...]
) -> tuple[Floats, NDArray[np.int64], Floats, Floats]:
    """Prepare the constants, their weights in each group, the price of each delta, and its normal deviations."""
    weights = np.zeros((stream.rate.size, certificate.constants), np.int64)
    for rate in np.unique(stream.rate[stream.accepted > 0]):
        weights[stream.rate == rate] = certificate.weights(float(rate))
    prices = np.array([math.log(certificate.constants / delta) for delta in deltas])
    deviations = np.array([NormalDist().inv_cdf(1 - delta) for delta in deltas])
    return np.array(certificate.grid), weights, prices, deviations


@njit(cache=True, nogil=True)
def _redraw_portion(
    start: int,
    end: int,
    gaps: bool,
    caught: Floats,
    loss: Whole,
    exceeded: NDArray[np.bool_],
    place: Whole,
    first: Whole,
    rate: Floats,
    step: Whole,
    accepted: Whole,
    closes: NDArray[np.bool_],
    true: Whole,
    grid: Floats,
    weights: Whole,
    prices: Floats,
    deviations: Floats,
    at: Whole,
    crossed: NDArray[np.bool_],
    peeked: NDArray[np.bool_],
    bound: Floats,
    limit: Floats,
) -> None:
    rows = np.empty(loss.size + 1, np.int64)
    for number in range(start, end):
        count = by_gaps(number, first, rate, rows) if gaps else by_tosses(number, first, rate, step, place, rows)
        if caught.size > 0:
            count = thinned(number, caught, rows, count)
        _follow(
            rows[:count], loss, exceeded, first, rate, accepted, closes, true, grid, weights, prices, deviations, at,
            crossed[number], peeked[number], bound[number], limit[number],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _follow(
    rows: Whole,
    loss: Whole,
    exceeded: NDArray[np.bool_],
    first: Whole,
    rate: Floats,
    accepted: Whole,
    closes: NDArray[np.bool_],
    true: Whole,
    grid: Floats,
    weights: Whole,
    prices: Floats,
    deviations: Floats,
    at: Whole,
    crossed: NDArray[np.bool_],
    peeked: NDArray[np.bool_],
    bound: Floats,
    limit: Floats,
) -> None:
    totals = np.zeros((2, grid.size, 2), np.uint64)
    least = np.empty((prices.size, 2))
    ceiling = np.zeros((prices.size, 2), np.int64)
    estimate, variance, seen, audited = np.zeros(2), np.zeros(2), np.zeros(2, np.int64), np.zeros(2, np.int64)
    met, steps, moment = 0, 0, 0
    for delta in range(prices.size):
        least[delta] = least_bound(totals[0], grid, prices[delta])
    for group in range(rate.size):
        audited[:], squares, hits = 0, 0.0, 0
        while met < rows.size and rows[met] < first[group + 1]:
            i = rows[met]
            audited[0] += loss[i]
            squares += (loss[i] * 2.0**-32) ** 2
            audited[1] += np.int64(exceeded[i]) << np.int64(32)
            hits += 1
            met += 1
        spread = (1.0 - rate[group]) / rate[group] ** 2
        for kind in range(2):
            share = audited[kind] * 2.0**-32
            estimate[kind] += share / rate[group]
            variance[kind] += spread * (squares if kind == 0 else share)
            seen[kind] += hits if kind == 0 else audited[kind] >> np.int64(32)
            if audited[kind] > 0:
                for k in range(grid.size):
                    add_product(totals[kind, k], weights[group, k], audited[kind])
                for delta in range(prices.size):
                    least[delta, kind] = least_bound(totals[kind], grid, prices[delta])
            if accepted[group] > 0:  # where nothing was, the certificate leaves everything as it is
                for delta in range(prices.size):
                    ceiling[delta, kind] = next_ceiling(least[delta, kind], ceiling[delta, kind], accepted[group])
        if closes[group]:
            kept = moment < at.size and at[moment] == steps
            for delta in range(prices.size):
                for kind in range(2):
                    reach = estimate[kind] + deviations[delta] * np.sqrt(variance[kind])
                    crossed[delta, kind] |= ceiling[delta, kind] < true[kind, steps]
                    peeked[delta, kind] |= seen[kind] >= LEAST_SEEN and reach < true[kind, steps] * 2.0**-32
                    if kept:
                        bound[delta, kind, moment] = ceiling[delta, kind] * 2.0**-32
                        limit[delta, kind, moment] = reach
            moment += kept
            steps += 1
