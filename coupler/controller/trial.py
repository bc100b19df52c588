"""Trials: two versions of a model judged on the same audits, by betting on which of them errs less.

For an audited element both versions' capped errors are known, and D = defender's - challenger's. If the challenger is
no better, a wealth that grows by 1 + bet D per audit is a nonnegative supermartingale (Waudby-Smith and Ramdas,
Estimating means of bounded random variables by betting, JRSS B 2023), so it ever reaches 20 with a probability of at
most 1/20, however long one looks. The mean over several bets is one, too. Audits are drawn by coins that nobody
foresees, so nothing is assumed about the elements. What the gate says does not matter here: it is the raw answers to
all decisions that are compared, or a version that refuses everything would win.
"""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.certificate import UNIT
from coupler.controller.limits import Floats
from coupler.controller.loss import quantised_loss, scaled_error
from coupler.controller.wealth import mean_wealth

Integers = NDArray[np.int64]

_BETS = (0.1, 0.3, 0.9)
# Audits, loss of defender and challenger, then the logarithms of both wealths for each bet [2**-32].
TRIAL_NUMBERS = 3 + 2 * len(_BETS)
_NEEDED = math.log(20.0)


class Verdict(Enum):
    """What a trial has come to."""

    OPEN = "not decided yet"
    CHALLENGER = "the challenger errs less"
    DEFENDER = "the defender errs less"
    DRAW = "no difference was found"


@dataclass(frozen=True)
class Trial:
    """The evidence on two versions so far; integers, the same on every rank.

    Parameters
    ----------
    challenger, defender : int
        The version that does not answer now, and the one that does.
    numbers : tuple of int
        Audits, losses and wealths, as :func:`compare` adds them up.
    """

    challenger: int
    defender: int
    numbers: tuple[int, ...] = (0,) * TRIAL_NUMBERS

    @property
    def audits(self) -> int:
        """Audits that both versions answered."""
        return self.numbers[0]

    @property
    def defender_loss(self) -> float:
        """Mean capped error of the version that answers; 0 before the first audit."""
        return self._mean(1)

    @property
    def challenger_loss(self) -> float:
        """Mean capped error of the other one."""
        return self._mean(2)

    def after(self, numbers: Integers) -> "Trial":
        """Add a step's numbers, of all ranks."""
        added = zip(self.numbers, numbers.tolist(), strict=True)
        return Trial(self.challenger, self.defender, tuple(known + new for known, new in added))

    def verdict(self, most: int) -> Verdict:
        """Say what the trial has come to.

        Parameters
        ----------
        most : int
            Audits after which it ends in a draw.
        """
        for wealth, verdict in ((self._wealth(0), Verdict.CHALLENGER), (self._wealth(1), Verdict.DEFENDER)):
            if wealth >= _NEEDED:
                return verdict
        return Verdict.DRAW if self.audits >= most else Verdict.OPEN

    @property
    def sentence(self) -> str:
        """The trial in words."""
        return (
            f"on {self.audits} audits that both answered, version {self.challenger} had a mean capped error of "
            f"{self.challenger_loss:.3g} and version {self.defender} one of {self.defender_loss:.3g}"
        )

    def _mean(self, place: int) -> float:
        return self.numbers[place] / (UNIT * self.audits) if self.audits else 0.0

    def _wealth(self, side: int) -> float:
        """Logarithm of the mean wealth over the bets."""
        first = 3 + side * len(_BETS)
        return mean_wealth([number / UNIT for number in self.numbers[first : first + len(_BETS)]])


def compare(
    defender: Floats, challenger: Floats, truth: Floats, atol: Floats, rtol: Floats, cap: float, numbers: Integers
) -> None:
    """Add audits that both versions answered.

    Parameters
    ----------
    defender, challenger : ndarray (n, n_out)
        The two answers; what is not finite is a loss of 1.
    truth : ndarray (n, n_out)
        What is right.
    atol, rtol : ndarray (n_out,)
        Tolerance per output.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    numbers : ndarray (TRIAL_NUMBERS,) of int64
        Are added to; integers, so that sums over ranks are exact.

    Collective: no. Releases the GIL.
    """
    assert defender.shape == challenger.shape == truth.shape, (defender.shape, challenger.shape, truth.shape)
    assert numbers.shape == (TRIAL_NUMBERS,), numbers.shape
    _compare(defender, challenger, truth, atol, rtol, cap, np.array(_BETS), numbers)


# Logarithms are rounded down: less wealth on either side never makes a verdict easier.
@njit(cache=True, nogil=True, error_model="numpy")
def _compare(
    defender: Floats,
    challenger: Floats,
    truth: Floats,
    atol: Floats,
    rtol: Floats,
    cap: float,
    bets: Floats,
    numbers: Integers,
) -> None:
    for i in range(truth.shape[0]):
        old, new = scaled_error(defender, i, truth, i, atol, rtol), scaled_error(challenger, i, truth, i, atol, rtol)
        before, after = min(old / cap, 1.0), min(new / cap, 1.0)
        numbers[0] += 1
        numbers[1] += quantised_loss(old, cap)
        numbers[2] += quantised_loss(new, cap)
        for k in range(bets.size):
            numbers[3 + k] += np.int64(np.floor(np.log1p(bets[k] * (before - after)) * UNIT))
            numbers[3 + bets.size + k] += np.int64(np.floor(np.log1p(bets[k] * (after - before)) * UNIT))
