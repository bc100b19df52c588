"""The guard at the edge of the user's model: whatever it raises, there is an answer, and no gate takes it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger("coupler.model")


class Guard:
    """Turns a failure of a model into answers that are not finite; the first one of each version is logged."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    @contextmanager
    def over(self, version: int, mean: NDArray[np.float64], score: NDArray[np.float64]) -> Iterator[None]:
        """Let a version answer inside; if it fails, fill mean and score with NaN, and the truth is used instead.

        Parameters
        ----------
        version : int
            Which version answers.
        mean, score : ndarray (n, n_out) and (n,)
            Where its answer goes.

        Collective: no.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001, a user's model may raise anything
            if version not in self._failed:
                self._failed.add(version)
                _log.error("version %d of the model cannot answer: %s: %s", version, type(error).__name__, error)
            mean[...], score[...] = np.nan, np.nan
