"""The guard at the edge of the user's model: whatever it raises, there is an answer, and no gate takes it."""

import logging
from collections.abc import Sequence

import numpy as np

from coupler.exchange.transport import Predict
from coupler.records import Rows

_log = logging.getLogger("coupler.model")


class Guard:
    """Turns a failure of a model into answers that are not finite; the first one of each version is logged."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    def answer(self, predict: Predict, parts: Sequence[Rows], version: int) -> None:
        """Let a version answer; if it fails, fill mean and score with NaN, and the truth is used instead.

        Parameters
        ----------
        predict : callable
            The model.
        parts : sequence of Rows
            What is asked.
        version : int
            Which version of it.

        Collective: no.
        """
        try:
            predict(parts, version)
        except Exception as error:  # noqa: BLE001, a user's model may raise anything
            if version not in self._failed:
                self._failed.add(version)
                _log.error("version %d of the model cannot answer: %s: %s", version, type(error).__name__, error)
            for part in parts:
                part.mean[...], part.score[...] = np.nan, np.nan
