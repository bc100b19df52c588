"""Climates: long-time means of a chaotic run, and whether two runs agree in them within their sampling error.

Trajectories of chaotic systems part whatever computes them; what two sound runs share is their statistics. Members are
independent systems, so the spread of their time means gives the sampling error, however long a member remembers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError


@dataclass(frozen=True)
class Agreement:
    """Two climates side by side, quantity by quantity.

    Parameters
    ----------
    names : tuple of str
        The quantities.
    first, second : tuple of float
        Their means over members and time.
    first_error, second_error : tuple of float
        Standard errors of these means.
    limit : float
        Largest score that is still sampling error.
    """

    names: tuple[str, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]
    first_error: tuple[float, ...]
    second_error: tuple[float, ...]
    limit: float

    @property
    def scores(self) -> tuple[float, ...]:
        """Difference of every quantity in units of its own standard error; standard normal for equal climates."""
        quantities = zip(self.first, self.second, self.first_error, self.second_error, strict=True)
        return tuple((one - other) / math.hypot(error, beside) for one, other, error, beside in quantities)

    def table(self, first: str, second: str) -> str:
        """Give mean ± standard error of every quantity in both runs, their scores and the verdict, as lines of text.

        Parameters
        ----------
        first, second : str
            What to call the runs.
        """
        width = max(map(len, self.names))
        lines = [f"{'':{width}}{first:>23}{second:>23}{'score':>8}"]
        for name, one, one_error, other, other_error, score in zip(
            self.names, self.first, self.first_error, self.second, self.second_error, self.scores, strict=True
        ):
            lines.append(f"{name:{width}}{one:13.4e} ± {one_error:.1e}{other:13.4e} ± {other_error:.1e}{score:+8.2f}")
        verdict = "They agree" if self.agree else "They do not agree"
        return "\n".join([*lines, f"{verdict}: scores up to {self.limit:.2f} are sampling error."])

    @property
    def agree(self) -> bool:
        """Whether no quantity differs by more than sampling explains."""
        return all(abs(score) <= self.limit for score in self.scores)


def compare_climates(
    names: Sequence[str], first: NDArray[np.float64], second: NDArray[np.float64], *, false_alarm: float = 0.01
) -> Agreement:
    """Test whether two runs have the same means.

    Parameters
    ----------
    names : sequence of str
        The quantities.
    first, second : ndarray (members, quantities)
        Time means of every member; the numbers of members may differ, and members must not know of each other.
    false_alarm : float
        Probability that runs of one and the same climate are told apart, all quantities together.

    Returns
    -------
    Agreement
        Scores are Welch's statistic; the limit is that of the normal distribution, shared out evenly (Bonferroni).

    Raises
    ------
    CouplerError
        If there are not two members or more in each, or a mean is missing, not finite or the same in all members.

    Collective: no.
    """
    for rows in (first, second):
        _check(names, rows)
    return Agreement(
        names=tuple(names),
        first=tuple(first.mean(axis=0).tolist()),
        second=tuple(second.mean(axis=0).tolist()),
        first_error=_standard_error(first),
        second_error=_standard_error(second),
        limit=NormalDist().inv_cdf(1.0 - false_alarm / (2.0 * len(names))),
    )


def mean_and_deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what a member adds to the mean and the standard deviation of all: their averages are exactly these two.

    Parameters
    ----------
    values : ndarray (times, members, cells)
        A field at many moments.

    Returns
    -------
    ndarray (members, 2)
        The member's mean, and the deviation of all plus the first-order influence of this member on it.

    Collective: no.
    """
    mean, square = values.mean(axis=(0, 2)), (values**2).mean(axis=(0, 2))
    centre = mean.mean()
    deviation = np.sqrt(square.mean() - centre**2)
    variance = square - 2.0 * centre * mean + centre**2
    return np.column_stack([mean, (variance + deviation**2) / (2.0 * deviation)])


def _standard_error(rows: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple((rows.std(axis=0, ddof=1) / math.sqrt(len(rows))).tolist())


def _check(names: Sequence[str], rows: NDArray[np.float64]) -> None:
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != len(names) or not names:
        raise CouplerError(
            f"Means of shape {rows.shape} for {len(names)} quantities: the sampling error is that between members, so "
            "give two rows or more, one per member, and one column per quantity."
        )
    if not np.isfinite(rows).all() or (np.ptp(rows, axis=0) == 0.0).any():
        raise CouplerError(
            "A quantity is not finite, or the same in all members, so it has no sampling error to compare with: leave "
            "it out, or look at what the run did."
        )
