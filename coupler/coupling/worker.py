"""Workers: whoever computes the truth of a route's elements; a rank itself, or its node together."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coupler.operator import Operator

Floats = NDArray[np.float64]


class Worker(Protocol):
    """Whoever computes the truth of a route's elements.

    Attributes
    ----------
    borrowed_seconds : float
        Processor time others have spent on this rank's elements so far [s].
    """

    borrowed_seconds: float

    def evaluate(self, inputs: Floats, dt: float) -> Floats:
        """Give the truth (n, n_out) of inputs (n, n_in), good until the next call. Collective: no."""


class Alone:
    """A rank that computes its truth itself.

    Parameters
    ----------
    operator : Operator
        Whose truth.
    """

    def __init__(self, operator: Operator) -> None:
        self.borrowed_seconds = 0.0
        self._operator = operator

    def evaluate(self, inputs: Floats, dt: float) -> Floats:
        """Compute the truth here and now. Collective: no."""
        return self._operator.evaluate_truth(inputs, dt)
