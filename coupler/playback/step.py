"""One step before a gate whose truth is known in full: who is accepted, whose truth is seen, what is lost."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.limits import Floats
from coupler.records import Reason

Whole = NDArray[np.int64]

_ACCEPTED, _SCORE, _BUDGET = int(Reason.ACCEPTED), int(Reason.SCORE), int(Reason.BUDGET)


# The counts are those of AuditedSums, in their order; the last two are of all accepted elements, audited or not.
@njit(cache=True, nogil=True)
def settle(
    score: Floats,
    error: Floats,
    loss: Whole,
    fell: NDArray[np.bool_],
    threshold: float,
    passed: int,
    rows: Whole,
    verdicts: NDArray[np.uint8],
    counts: Whole,
    true: Whole,
) -> int:
    """Gate a step, count it, list the elements whose truth a run would know, and say how many these are.

    Parameters
    ----------
    score, error, loss : ndarray (n,)
        Score by which the policy judges, error [tolerances], quantised loss [2**-32].
    fell : ndarray (n,) of bool
        The audit coins.
    threshold : float
        Scores strictly below it pass, negative ones as 0; what is not a number does not.
    passed : int
        What becomes of those: accepted, or withheld by the hard stop.
    rows, verdicts : ndarray (n or more,)
        Receive position and reason of the elements whose truth is known.
    counts : ndarray (8,) of int64
        Is added to.
    true : ndarray (3,) of int64
        True loss and exceedances of the accepted, and their audits; is added to.
    """
    known, lowest = 0, (threshold > 0.0)
    counts[0] += score.size
    for i in range(score.size):
        passes = lowest and score[i] < threshold and score[i] > -np.inf
        outside = not error[i] <= 1.0
        counts[1] += fell[i]
        if not passes:
            reason = _SCORE
            counts[7] += 1
        elif passed == _ACCEPTED:
            reason = _ACCEPTED
            counts[2] += 1
            true[0] += loss[i]
            true[1] += outside
            if fell[i]:
                counts[3] += loss[i]
                counts[4] += outside
                true[2] += 1
        else:
            reason = _BUDGET
            counts[5] += 1
            if fell[i]:
                counts[6] += loss[i]
        rows[known] = i
        verdicts[known] = reason
        known += fell[i] or reason != _ACCEPTED
    return known
