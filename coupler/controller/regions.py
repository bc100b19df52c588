"""Regions of the input space, and alarms: where a version was found wrong, the truth is used until it learns better.

A region is what lies nearest to one of the centres of the samples a version was trained on. For each an e-detector
(Shin, Ramdas and Rinaldo, E-detectors, arXiv:2203.03532) watches the audited losses of accepted answers: while their
mean is at most the level, M = max(M, 1) e stays below 1 / a for at least 1 / a steps on average; where it is above, M
grows without end.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.certificate import UNIT
from coupler.controller.limits import Floats
from coupler.controller.loss import quantised_loss, scaled_error
from coupler.controller.wealth import mean_wealth
from coupler.records import Reason

Integers = NDArray[np.int64]

# Bets on the mean loss of a region being above the level, as shares of the largest that cannot lose everything.
_BETS = (0.1, 0.5)
# Per region: audited and accepted, their loss, and the logarithm of what each bet made of them [2**-32].
REGION_NUMBERS = 2 + len(_BETS)
_ACCEPTED = int(Reason.ACCEPTED)


class Regions(NamedTuple):
    """A division of the input space.

    Attributes
    ----------
    centres : ndarray (regions, n_in)
        One point of each, in units of ``scale``; no region at all is a division, too.
    scale : ndarray (n_in,)
        What inputs are divided by before distances are taken.
    """

    centres: Floats
    scale: Floats

    @staticmethod
    def none(n_in: int) -> "Regions":
        """Give the division into no regions."""
        return Regions(np.empty((0, n_in)), np.ones(n_in))

    def find(self, inputs: Floats) -> NDArray[np.int64]:
        """Say in which region each element lies.

        Parameters
        ----------
        inputs : ndarray (n, n_in)
            Operator inputs.

        Returns
        -------
        ndarray (n,) of int64

        Collective: no. Releases the GIL.
        """
        found = np.empty(len(inputs), np.int64)
        _find(inputs, *self, found)
        return found


@dataclass(frozen=True)
class Alarms:
    """The detectors of all regions; the same on every rank.

    Parameters
    ----------
    level : float
        Mean loss of accepted answers up to which a region is in order.
    rate : float
        a: false alarms come at most once in 1 / a steps per region, on average.
    wealth : tuple of tuple of float
        Logarithm of M per region and bet, not below 0.
    raised : tuple of bool
        Which regions are under alarm.
    """

    level: float
    rate: float
    wealth: tuple[tuple[float, ...], ...] = ()
    raised: tuple[bool, ...] = ()

    def renewed(self, regions: int) -> "Alarms":
        """Give the detectors of another version: no alarm, nothing seen."""
        return Alarms(self.level, self.rate, ((0.0,) * len(_BETS),) * regions, (False,) * regions)

    @property
    def any(self) -> bool:
        """Whether a region is under alarm."""
        return any(self.raised)

    def after(self, numbers: Integers) -> "Alarms":
        """Take in a step.

        Parameters
        ----------
        numbers : ndarray (regions, REGION_NUMBERS) of int64
            What :func:`watch` added up, of all ranks; rows beyond the regions of this version are not looked at, and
            no row at all says nothing.
        """
        if not len(numbers):
            return self
        rows = numbers[: len(self.wealth)].tolist()
        wealth = tuple(
            tuple(max(known, 0.0) + new / UNIT for known, new in zip(before, row[2:], strict=True))
            for before, row in zip(self.wealth, rows, strict=True)
        )
        limit = -math.log(self.rate)
        raised = tuple(was or mean_wealth(logs) >= limit for was, logs in zip(self.raised, wealth, strict=True))
        return Alarms(self.level, self.rate, wealth, raised)


def watch(
    inputs: Floats,
    mean: Floats,
    verdicts: NDArray[np.uint8],
    truth: Floats,
    regions: Regions,
    atol: Floats,
    rtol: Floats,
    cap: float,
    level: float,
    numbers: Integers,
) -> None:
    """Add audited answers to what is known of their regions.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Of audited elements.
    mean : ndarray (n, n_out)
        The surrogate's answers to them.
    verdicts : ndarray (n,) of uint8
        What the gate said; only accepted answers count.
    truth : ndarray (n, n_out)
        What is right.
    regions : Regions
        The division.
    atol, rtol, cap
        As for the gate.
    level : float
        As in :class:`Alarms`.
    numbers : ndarray (regions, REGION_NUMBERS) of int64
        Are added to; integers, so that sums over ranks are exact.

    Collective: no. Releases the GIL.
    """
    assert numbers.shape == (len(regions.centres), REGION_NUMBERS), numbers.shape
    bets = np.array(_BETS) / level
    _watch(inputs, mean, verdicts, truth, *regions, atol, rtol, cap, level, bets, numbers)


@njit(cache=True, nogil=True, error_model="numpy")
def _region(inputs: Floats, i: int, centres: Floats, scale: Floats) -> int:
    nearest, least = 0, np.inf
    for region in range(centres.shape[0]):
        distance = 0.0
        for j in range(inputs.shape[1]):
            distance += (inputs[i, j] / scale[j] - centres[region, j]) ** 2
        if distance < least:
            nearest, least = region, distance
    return nearest


@njit(cache=True, nogil=True, error_model="numpy")
def _find(inputs: Floats, centres: Floats, scale: Floats, found: Integers) -> None:
    for i in range(inputs.shape[0]):
        found[i] = _region(inputs, i, centres, scale)


# Rounded down: a detector may be late by that, never early.
@njit(cache=True, nogil=True, error_model="numpy")
def _watch(
    inputs: Floats,
    mean: Floats,
    verdicts: NDArray[np.uint8],
    truth: Floats,
    centres: Floats,
    scale: Floats,
    atol: Floats,
    rtol: Floats,
    cap: float,
    level: float,
    bets: Floats,
    numbers: Integers,
) -> None:
    for i in range(inputs.shape[0]):
        if verdicts[i] != _ACCEPTED:
            continue
        error = scaled_error(mean, i, truth, i, atol, rtol)
        worst = min(error / cap, 1.0)
        region = _region(inputs, i, centres, scale)
        numbers[region, 0] += 1
        numbers[region, 1] += quantised_loss(error, cap)
        for k in range(bets.size):
            numbers[region, 2 + k] += np.int64(np.floor(np.log1p(bets[k] * (worst - level)) * UNIT))
