"""The loss of an answer: its error in tolerances, capped; compiled, for all who measure answers element by element."""

import numpy as np
from numba import njit

from coupler.controller.certificate import UNIT
from coupler.controller.limits import Floats


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def scaled_error(answer: Floats, i: int, truth: Floats, k: int, atol: Floats, rtol: Floats) -> float:
    """Give the largest |answer - truth| / (atol + rtol |truth|) of row i against row k; infinite where it is none."""
    worst = 0.0
    for j in range(answer.shape[1]):
        scaled = abs(answer[i, j] - truth[k, j]) / (atol[j] + rtol[j] * abs(truth[k, j]))
        worst = max(worst, scaled) if np.isfinite(scaled) else np.inf
    return worst


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def quantised_loss(error: float, cap: float) -> np.int64:
    """Give min(error / cap, 1) rounded up to a multiple of 2**-32, as :func:`~coupler.controller.quantise` does."""
    return np.int64(np.ceil(min(error / cap, 1.0) * UNIT))
