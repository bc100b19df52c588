"""Wishes: what a single rank wants and all ranks do at the end of the same step, a checkpoint or an early end.

They travel with the sum of a step, so all agree a step later and nobody asks anybody else.
"""

import time

import numpy as np
from numpy.typing import NDArray

from coupler.case import RunSection

NUMBERS = 2
"""Numbers they add to the sum of a step."""
# A checkpoint that takes long makes the next one rarer: together they take at most this share of the time.
_SHARE = 0.01


class Wishes:
    """Whether to write a checkpoint at the end of this step, and whether to end the run with it.

    Attributes
    ----------
    checkpoint, stop : bool
        What all ranks have agreed on; the same on every rank.

    Parameters
    ----------
    run : RunSection
        When checkpoints are wanted.
    first : bool
        Whether this is the rank whose clock counts.
    """

    def __init__(self, run: RunSection, *, first: bool) -> None:
        self.checkpoint = self.stop = False
        self._run, self._timed = run, first and run.checkpoints > 0 and run.checkpoint_seconds > 0
        self._wished = self._asked = False
        self._written, self._cost = time.monotonic(), 0.0

    def ask_to_stop(self) -> None:
        """Wish that the run ends soon, with a checkpoint; may be called from a signal handler. Collective: no."""
        self._asked = True

    def numbers(self) -> NDArray[np.int64]:
        """Give this rank's wishes (NUMBERS,), to be added up over the ranks; a checkpoint is wished for once.

        Collective: no.
        """
        due = False
        if self._timed and not (self._wished or self.checkpoint):
            pause = max(self._run.checkpoint_seconds, self._cost / _SHARE)
            self._wished = due = time.monotonic() - self._written >= pause
        return np.array([due, self._asked], np.int64)

    def agree(self, step: int, total: NDArray[np.int64] | None) -> None:
        """Take in the wishes of all ranks; what is agreed on stays so until it is done.

        Parameters
        ----------
        step : int
            The step that ends now.
        total : ndarray (NUMBERS,) of int64, or None
            The sum of the step before; None if there was none.

        Collective: no; every rank passes the same.
        """
        if total is not None:
            self.checkpoint |= bool(total[0])
            self.stop |= bool(total[1])
        every = self._run.checkpoint_every
        self.checkpoint |= self.stop or bool(every and step % every == 0)
        self.checkpoint &= self._run.checkpoints > 0

    def done(self, seconds: float) -> None:
        """Note that a checkpoint was written, and how long that took on this rank [s]. Collective: no."""
        self.checkpoint = self._wished = False
        self._written, self._cost = time.monotonic(), seconds
