"""Blending: just below the threshold answer and truth are mixed, so that there is no seam where one ends.

An element in the band gets weight x answer + (1 - weight) x truth, with a weight that falls smoothly from 1 at the
lower end of the band to 0 at the threshold. Its truth must be computed for that, so the band costs what it would cost
to refuse it. It counts as accepted with the whole error of the answer, which is more than what the mixture has.
"""

import numpy as np
from numpy.typing import NDArray

from coupler.controller.limits import Floats


def band(score: Floats, accepted: NDArray[np.bool_], threshold: float, share: float) -> NDArray[np.int64]:
    """List the elements that are mixed.

    Parameters
    ----------
    score : ndarray (n,)
        Scores that were judged by.
    accepted : ndarray (n,) of bool
        Who is taken.
    threshold : float
        Scores strictly below it are.
    share : float
        Width of the band, as a share of the threshold; 0 mixes nothing.

    Returns
    -------
    ndarray of int64
        Positions.
    """
    if not share or not np.isfinite(threshold):
        return np.empty(0, np.int64)
    return np.flatnonzero(accepted & (score >= (1.0 - share) * threshold))


def mixed(answer: Floats, truth: Floats, score: Floats, threshold: float, share: float) -> Floats:
    """Mix answers and truth of the elements in the band.

    Parameters
    ----------
    answer, truth : ndarray (m, n_out)
        Of these elements.
    score : ndarray (m,)
        Theirs.
    threshold, share : float
        As for :func:`band`.

    Returns
    -------
    ndarray (m, n_out)
    """
    depth = np.clip((threshold - score) / (share * threshold), 0.0, 1.0)
    weight = (depth * depth * (3.0 - 2.0 * depth))[:, np.newaxis]
    result: Floats = weight * answer + (1.0 - weight) * truth
    return result
