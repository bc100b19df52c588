"""Hysteresis: an element that was accepted last time may be a little more doubtful, so that routes do not flicker.

Where neighbours change between answer and truth from step to step, the seam between the two travels through the field.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.controller.limits import Floats


class Remembered(NamedTuple):
    """What the gate said of the elements of a call.

    Attributes
    ----------
    step : int
        When.
    ids, accepted : ndarray (n,) of int64 and bool
        Global ids, and whether each was accepted.
    """

    step: int
    ids: NDArray[np.int64]
    accepted: NDArray[np.bool_]


class Hysteresis:
    """Remembers, call by call, which elements the gate accepted in the step before; by id, so in any order and pieces.

    It looks at past steps only, so the certificate does not notice. What an element was told on another rank is not
    known here: bits depend on the ranks where elements move between them.

    Parameters
    ----------
    share : float
        By this share a score may be higher than the threshold if the element was accepted last time; 0 remembers
        nothing.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._now: dict[int, Remembered] = {}
        self._before: dict[int, Remembered] = {}

    def accepted(self) -> dict[int, "Remembered"]:
        """Give by call what was accepted last, to go on from. Collective: no."""
        return {
            call: Remembered(one.step, one.ids[one.accepted], np.ones(int(one.accepted.sum()), np.bool_))
            for call, one in self._now.items()
        }

    def resume(self, accepted: "dict[int, Remembered]") -> None:
        """Go on from what was accepted last, on whichever ranks. Collective: no."""
        self._now = dict(accepted)

    def eased(self, score: Floats, ids: NDArray[np.int64], step: int, call: int) -> Floats:
        """Give the scores to judge by.

        Parameters
        ----------
        score : ndarray (n,)
            The surrogate's.
        ids : ndarray (n,) of int64
            Global ids of a call's elements, or of a piece of them.
        step, call : int
            The step, and the number of the call within it.
        """
        latest = self._now.get(call) if self._share else None
        before = self._before.get(call) if latest is not None and latest.step == step else latest
        if before is None:
            return score
        if before.ids.shape == ids.shape and (before.ids == ids).all():
            taken = before.accepted
        else:
            taken = np.isin(ids, before.ids[before.accepted])
        return np.where(taken, score / (1.0 + self._share), score)

    def remember(self, accepted: NDArray[np.bool_], ids: NDArray[np.int64], step: int, call: int) -> None:
        """Take in what the gate said of a call's elements, or of one more piece of them; audited ones included."""
        if not self._share:
            return
        latest = self._now.get(call)
        if latest is not None and latest.step == step:
            ids, accepted = np.concatenate([latest.ids, ids]), np.concatenate([latest.accepted, accepted])
        elif latest is not None:
            self._before[call] = latest
        self._now[call] = Remembered(step, ids.copy(), accepted)
