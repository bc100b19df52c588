"""Redraws where the stream depends on what the coins found: a controller that moves its threshold, an adversary.

Such a run cannot be settled once for all coins. It is made step by step, every redraw with a controller of its own:
the very :class:`~coupler.controller.Controller` of a run, which learns of a step's audits one step later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller import UNIT, AuditedSums, Controller, ControllerState, Findings, quantise
from coupler.redraw.arithmetic import Floats, Word
from coupler.redraw.audits import gap
from coupler.redraw.crossings import Crossings, Spread
from coupler.redraw.engine import LEAST_SEEN, Statement
from coupler.redraw.streams import Whole


class Elements(NamedTuple):
    """All elements of one step as a surrogate might have answered them.

    Attributes
    ----------
    score, error : ndarray (n,)
        Score, and error in tolerances.
    """

    score: Floats
    error: Floats


class View(NamedTuple):
    """What an adversary may know before a step: everything but the coins to come; of every redraw.

    Attributes
    ----------
    step : int
        The one that comes.
    lost, found : ndarray (redraws,)
        True loss so far, and what the audits estimate it to be [decisions].
    stopped : ndarray (redraws,) of bool
        Whether the hard stop holds.
    threshold : ndarray (redraws,)
        Scores below it are accepted.
    """

    step: int
    lost: Floats
    found: Floats
    stopped: NDArray[np.bool_]
    threshold: Floats


Offer = Callable[[int], Sequence[Elements]]
"""``offer(step)`` gives the faces the surrogate may show in a step: the same number in each, all of n elements."""

Choose = Callable[[View], NDArray[np.intp]]
"""``choose(view)`` says which of them each redraw meets (redraws,)."""


@dataclass(frozen=True, eq=False)
class Following:
    """What became of every redraw of a stream that followed its coins.

    Parameters
    ----------
    decisions : int
        Of each redraw.
    accepted : ndarray (redraws,) of int64
        Accepted decisions.
    true, bound : ndarray (redraws, 2)
        True sum and certified sum of each :class:`Statement` at the end [decisions].
    crossed, peeked : ndarray (redraws, 2) of bool
        Whether the certificate, and a normal interval of the same delta, was ever below the true sum.
    """

    decisions: int
    accepted: Whole
    true: Floats
    bound: Floats
    crossed: NDArray[np.bool_]
    peeked: NDArray[np.bool_]

    def crossings(self, statement: Statement = Statement.LOSS) -> Crossings:
        """Count the redraws in which the certificate failed."""
        return Crossings(int(self.crossed[:, statement].sum()), len(self.crossed))

    def peekings(self, statement: Statement = Statement.LOSS) -> Crossings:
        """Count the redraws in which the normal interval failed."""
        return Crossings(int(self.peeked[:, statement].sum()), len(self.peeked))

    def tightness(self, statement: Statement = Statement.LOSS) -> Spread:
        """Say how large bound over true sum was at the end; nan where a redraw lost nothing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return Spread.of(self.bound[:, statement] / self.true[:, statement])


@dataclass(frozen=True, eq=False)
class Face:
    """Elements sorted by score, so that what a threshold accepts is what lies before a place.

    Parameters
    ----------
    score : ndarray (n,)
        Ascending; negative ones count as 0, what is not a number is never accepted.
    loss, exceeded : ndarray (n,) of int64
        Quantised loss [2**-32], and 2**32 where the error is above 1.
    sums : ndarray (2, n + 1) of int64
        Both, added up.
    """

    score: Floats
    loss: Whole
    exceeded: Whole
    sums: Whole

    @staticmethod
    def of(elements: Elements, cap: float) -> "Face":
        """Sort the elements of a step."""
        score = np.maximum(np.nan_to_num(elements.score, nan=np.inf, posinf=np.inf, neginf=np.inf), 0.0)
        order = np.argsort(score, kind="stable")
        loss = quantise(elements.error[order] / cap)
        exceeded = (~(elements.error[order] <= 1.0)).astype(np.int64) * UNIT
        both = np.cumsum(np.stack([loss, exceeded]), axis=1)
        return Face(score[order], loss, exceeded, np.concatenate([np.zeros((2, 1), np.int64), both], axis=1))


def follow(
    offer: Offer,
    choose: Choose | None,
    controller: Controller,
    *,
    steps: int,
    redraws: int,
    threshold: float = 1.0,
    before: int = 0,
) -> Following:
    """Make a run again and again, each time with other coins and all that follows from them.

    Parameters
    ----------
    offer : callable
        The faces of each step.
    choose : callable or None
        Which face each redraw meets; the first if None.
    controller : Controller
        Mode "certified" gates by its threshold and hard stop, mode "surrogate" accepts everything.
    steps, redraws : int
        How long and how often.
    threshold : float
        Of the model when it starts.
    before : int
        Decisions by physics before the first model.

    Returns
    -------
    Following

    Collective: no.
    """
    runs = _Runs(controller, redraws, threshold, before)
    for step in range(steps):
        faces = [Face.of(elements, controller.cap) for elements in offer(step)]
        shown = np.zeros(redraws, np.intp) if choose is None else choose(runs.view(step))
        runs.step(faces, shown)
    runs.learn()
    return runs.outcome()


class _Runs:
    """All redraws of a run at the same step."""

    def __init__(self, controller: Controller, redraws: int, threshold: float, before: int) -> None:
        start = controller.start()
        if before:
            start = controller.advance(start, Findings(AuditedSums(0.0, before)))
        start = controller.promoted(start, 1, threshold)
        self._controller = controller
        self._states: list[ControllerState] = [start] * redraws
        self._late: tuple[Floats, Whole] | None = None
        self._decisions, self._draws = before, np.zeros(redraws, np.int64)
        self._accepted = np.zeros(redraws, np.int64)
        self._true, self._ceiling = np.zeros((redraws, 2), np.int64), np.zeros((redraws, 2), np.int64)
        self._found, self._variance = np.zeros((redraws, 2)), np.zeros((redraws, 2))
        self._seen = np.zeros((redraws, 2), np.int64)
        self._crossed, self._peeked = np.zeros((redraws, 2), np.bool_), np.zeros((redraws, 2), np.bool_)
        self._deviations = NormalDist().inv_cdf(1 - controller.delta)

    def view(self, step: int) -> View:
        return View(
            step,
            self._true[:, 0] / UNIT,
            self._found[:, 0],
            np.array([state.stopped for state in self._states]),
            np.array([state.threshold for state in self._states]),
        )

    def step(self, faces: Sequence[Face], shown: NDArray[np.intp]) -> None:
        """Gate, toss and count; the controllers learn of the step before."""
        states = self._states
        rates = np.array([self._controller.audit_rate_now(state) for state in states])
        thresholds = np.array([state.threshold for state in states])
        stopped = np.array([state.stopped for state in states])
        counts, squares = np.zeros((len(states), 8), np.int64), np.zeros(len(states))
        true = np.zeros_like(self._true)
        for number, face in enumerate(faces):
            _step(
                np.flatnonzero(shown == number), face.score, face.loss, face.exceeded, face.sums,
                rates, thresholds, stopped, self._draws, counts, squares, true,
            )  # fmt: skip
        self.learn()
        self._late = rates, counts
        self._decisions += int(counts[0, 0]) if len(counts) else 0
        self._accepted += counts[:, 2]
        self._true += true
        self._peek(rates, counts, squares)

    def learn(self) -> None:
        """Give the controllers the step that is still on its way, and look whether the certificate holds there."""
        if self._late is None:
            return
        rates, counts = self._late
        advance, states = self._controller.advance, self._states
        for number, (rate, row) in enumerate(zip(rates.tolist(), counts.tolist(), strict=True)):
            states[number] = state = advance(states[number], Findings(AuditedSums(rate, *row)))
            self._ceiling[number] = state.tally.loss.ceiling, state.tally.exceedance.ceiling
        self._crossed |= self._ceiling < self._true
        self._late = None

    def outcome(self) -> Following:
        return Following(
            self._decisions, self._accepted, self._true / UNIT, self._ceiling / UNIT, self._crossed, self._peeked
        )

    def _peek(self, rates: Floats, counts: Whole, squares: Floats) -> None:
        audited = np.stack([counts[:, 3] / UNIT, counts[:, 4].astype(np.float64)], axis=1)
        self._found += audited / rates[:, np.newaxis]
        spread = (1.0 - rates) / rates**2
        self._variance += np.stack([squares * spread, audited[:, 1] * spread], axis=1)
        self._seen += np.stack([np.minimum(counts[:, 1], counts[:, 2]), counts[:, 4]], axis=1)
        reach = self._found + self._deviations * np.sqrt(self._variance)
        self._peeked |= (self._seen >= LEAST_SEEN) & (reach < self._true / UNIT)


# The counts are those of AuditedSums, in their order.
@njit(cache=True, nogil=True)
def _step(
    which: NDArray[np.intp],
    score: Floats,
    loss: Whole,
    exceeded: Whole,
    sums: Whole,
    rates: Floats,
    thresholds: Floats,
    stopped: NDArray[np.bool_],
    draws: Whole,
    counts: Whole,
    squares: Floats,
    true: Whole,
) -> None:
    n = score.size
    for number in which:
        rate = rates[number]
        passed = np.searchsorted(score, thresholds[number])
        count = counts[number]
        count[0], count[7] = n, n - passed
        if stopped[number]:
            count[5] = passed
        else:
            count[2] = passed
            true[number, 0], true[number, 1] = sums[0, passed], sums[1, passed]
        if rate > 0.0:
            k0, k1 = Word(number & 0xFFFFFFFF), Word(number >> 32)
            scale = 1.0 / np.log1p(-rate) if rate < 1.0 else 0.0
            at = gap(draws[number], scale, k0, k1)
            while at < n:
                count[1] += 1
                if at < passed and stopped[number]:
                    count[6] += loss[at]
                elif at < passed:
                    count[3] += loss[at]
                    count[4] += exceeded[at] >> np.int64(32)
                    squares[number] += (loss[at] * 2.0**-32) ** 2
                draws[number] += 1
                at += 1 + gap(draws[number], scale, k0, k1)
            draws[number] += 1
