"""Wealth: what bets against a statement have come to, kept as logarithms; trials and alarms decide by it."""

import math
from collections.abc import Sequence


def mean_wealth(logarithms: Sequence[float]) -> float:
    """Give the logarithm of the mean of some wealths, from theirs.

    The mean of nonnegative supermartingales is one, so several bets may be made at once and none need be chosen.

    Parameters
    ----------
    logarithms : sequence of float
        At least one.
    """
    most = max(logarithms)
    return most + math.log(sum(math.exp(one - most) for one in logarithms) / len(logarithms))
