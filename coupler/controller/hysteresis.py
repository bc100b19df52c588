"""Hysteresis: an element that was accepted last time may be a little more doubtful, so that routes do not flicker.

Where neighbours change between answer and truth from step to step, the seam between the two travels through the field.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.controller.limits import Floats


class _Remembered(NamedTuple):
    """What the gate said of some elements the last time."""

    ids: NDArray[np.int64]
    accepted: NDArray[np.bool_]


class Hysteresis:
    """Remembers, call by call, which elements the gate accepted; by id, so elements may come in another order.

    It looks at past steps only, so the certificate does not notice. Of a call that is asked in several rounds the last
    one is remembered. What an element was told on another rank is not known here: bits depend on the ranks where
    elements move between them.

    Parameters
    ----------
    share : float
        By this share a score may be higher than the threshold if the element was accepted last time; 0 remembers
        nothing.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._before: dict[int, _Remembered] = {}

    def eased(self, score: Floats, ids: NDArray[np.int64], call: int) -> Floats:
        """Give the scores to judge by.

        Parameters
        ----------
        score : ndarray (n,)
            The surrogate's.
        ids : ndarray (n,) of int64
            Global ids.
        call : int
            Number of the call within the step.
        """
        before = self._before.get(call) if self._share else None
        if before is None:
            return score
        if before.ids.shape == ids.shape and (before.ids == ids).all():
            taken = before.accepted
        else:
            taken = np.isin(ids, before.ids[before.accepted])
        return np.where(taken, score / (1.0 + self._share), score)

    def remember(self, accepted: NDArray[np.bool_], ids: NDArray[np.int64], call: int) -> None:
        """Take in what the gate said of the same elements; audited ones included."""
        if self._share:
            self._before[call] = _Remembered(ids.copy(), accepted)
