"""The truth of one operator on one rank: who computes it, and what it costs."""

import time

import numpy as np
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.coupling.worker import Alone, Worker
from coupler.operator import Operator

Floats = NDArray[np.float64]

# Share of what was known of the cost that is forgotten with every call.
_FORGETTING = 0.05
# Fewer elements at a time say more of what a call costs than of what they do.
# Elements of long rows, as tiles are, do more each: so many numbers will do.
_BULK_ELEMENTS, _BULK_NUMBERS = 64, 2**14


class Truth:
    """Computes an operator's truth, and keeps account of the time that takes.

    Attributes
    ----------
    worker : Worker
        Computes it; this rank alone, unless somebody else is put in its place.
    seconds : float
        Wall-clock time of all of it [s].
    typical_elements, typical_seconds : int, float
        Elements not chosen for being difficult, and the processor time of their truth [s].

    Parameters
    ----------
    operator : Operator
        Whose.
    stopwatch : Stopwatch
        Has the timeline, if there is one.
    """

    def __init__(self, operator: Operator, stopwatch: Stopwatch) -> None:
        self.worker: Worker = Alone(operator)
        self.seconds = self.typical_seconds = 0.0
        self.typical_elements = 0
        self._stopwatch = stopwatch
        self._bulk = max(1, min(_BULK_ELEMENTS, _BULK_NUMBERS // len(operator.signature.inputs)))
        self._bulk_elements = self._bulk_seconds = 0.0
        self._called = False

    @property
    def bulk_cost(self) -> float:
        """Processor time of the truth of one element lately, of elements not chosen for being difficult [s].

        0 if there were none, or only a few at a time.
        """
        return self._bulk_seconds / self._bulk_elements if self._bulk_elements else 0.0

    def of(self, inputs: Floats, dt: float) -> Floats:
        """Compute the truth (n, n_out) of some elements (n, n_in); it is good until the next is computed."""
        started = time.perf_counter()
        outputs = np.ascontiguousarray(self.worker.evaluate(inputs, dt))
        stopped = time.perf_counter()
        self.seconds += stopped - started
        if (spans := self._stopwatch.spans) is not None:
            spans.span("truth", started, stopped)
        return outputs

    def of_typical(self, inputs: Floats, dt: float) -> Floats:
        """Compute the truth of elements that were not chosen for being difficult, and note what that costs.

        In processor time: on a full node server and trainer share the cores, and a run of physics alone would not.
        """
        borrowed, started = self.worker.borrowed_seconds, time.thread_time()
        outputs = self.of(inputs, dt)
        seconds = time.thread_time() - started + self.worker.borrowed_seconds - borrowed
        self.typical_seconds += seconds
        self.typical_elements += len(inputs)
        # The first call may have compiled something; in small ones what a call costs would count as the elements' own.
        if self._called and len(inputs) >= self._bulk:
            self._bulk_seconds += seconds - _FORGETTING * self._bulk_seconds
            self._bulk_elements += len(inputs) - _FORGETTING * self._bulk_elements
        self._called = True
        return outputs
