"""How often something happened in so many redraws, and how far that count may be from its probability."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Coverage of the interval of a share: one in a hundred honest shares lies outside.
_SURE = 0.99


@dataclass(frozen=True)
class Crossings:
    """In how many redraws a bound was ever below what it bounds.

    Parameters
    ----------
    crossed, redraws : int
        Redraws in which it was, and all of them.
    """

    crossed: int
    redraws: int

    @property
    def share(self) -> float:
        """Share of the redraws; 0 where there is none."""
        return self.crossed / self.redraws if self.redraws else 0.0

    @property
    def least(self) -> float:
        """Lower end of the 99 % interval of the probability (Wilson, JASA 22 (1927) 209)."""
        return max(0.0, self._middle - self.margin)

    @property
    def most(self) -> float:
        """Upper end of that interval."""
        return min(1.0, self._middle + self.margin)

    @property
    def margin(self) -> float:
        """Half the width of that interval."""
        if not self.redraws:
            return 0.5
        z, n = _deviations(), self.redraws
        return z / (1 + z * z / n) * math.sqrt(self.share * (1 - self.share) / n + z * z / (4 * n * n))

    def within(self, delta: float) -> bool:
        """Say whether a probability of at most ``delta`` would explain the count."""
        return self.least <= delta

    @property
    def _middle(self) -> float:
        if not self.redraws:
            return 0.5
        z, n = _deviations(), self.redraws
        return (self.share + z * z / (2 * n)) / (1 + z * z / n)


@dataclass(frozen=True)
class Spread:
    """Median and 10 and 90 % quantiles of a number over the redraws."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: NDArray[np.float64]) -> "Spread":
        """Take them of values (n,); all nan where a value is not finite or there is none."""
        if values.size == 0 or not np.isfinite(values).all():
            return Spread(math.nan, math.nan, math.nan)
        low, median, high = (float(value) for value in np.quantile(values, (0.1, 0.5, 0.9)))
        return Spread(low, median, high)


def _deviations() -> float:
    return NormalDist().inv_cdf(0.5 + _SURE / 2)
