"""Random choices that every process makes alike: uniform numbers that belong to an element, not to a generator."""

import numpy as np
from numpy.typing import NDArray

# Odd constants of splitmix64 (Steele, Lea & Flood, OOPSLA 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def element_draws(
    step: NDArray[np.int64], call: NDArray[np.int64], ids: NDArray[np.int64], *, purpose: int
) -> NDArray[np.float64]:
    """Draw one number in [0, 1) per element, always the same for the same element.

    Parameters
    ----------
    step, call, ids : ndarray (n,)
        Time step, call within the step and global id: what names an element.
    purpose : int
        What the draw decides; draws for different purposes are independent.

    Returns
    -------
    ndarray (n,)

    Collective: no; every rank gets the same number for the same element.
    """
    state = np.full(len(ids), np.uint64(purpose), dtype=np.uint64)
    for key in (step, call, ids):
        state = _mix(state + _GOLDEN + key.astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
