"""A preview: what truth and asking cost for elements like those to come, before anything is started for them."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import Controller, Limits
from coupler.coupling.route import Route
from coupler.exchange import InProcessTransport, SlotShape
from coupler.operator import Operator
from coupler.records import Rows

Floats = NDArray[np.float64]

# More elements than that say no more; the fewest seconds of so many tries count.
_MOST_ELEMENTS, _TRIES = 16384, 5
# No asking takes that long, for a call and for an element [s]; so many elements are tried first.
_CALL_SECONDS, _DEAR_SECONDS, _FEW = 1e-3, 2e-6, (1, 32)


class PreviewCosts(NamedTuple):
    """Seconds for the same elements on this rank.

    Attributes
    ----------
    elements : int
        How many.
    truth : float
        The truth alone [s].
    asking : float
        Handing over, judging and taking answers that cost nothing [s]; 0 where the truth is dear, and nobody asks.
    dear : bool
        Whether the truth takes longer than any asking.
    """

    elements: int
    truth: float
    asking: float
    dear: bool = False


def preview(operator: Operator, inputs: Floats, dt: float) -> PreviewCosts:
    """Measure truth and asking on some elements.

    Parameters
    ----------
    operator : Operator
        Whose truth.
    inputs : ndarray (n, n_in)
        Elements as they will be asked about.
    dt : float
        Time step.

    Collective: no.
    """
    inputs = np.ascontiguousarray(inputs[:_MOST_ELEMENTS])
    if not len(inputs):
        return PreviewCosts(0, 0.0, 0.0)
    for count in _FEW:
        # What is dear is found out with few elements; the first call may compile, and is not timed.
        operator.evaluate_truth(inputs[:count], dt)
        seconds = _timed(partial(operator.evaluate_truth, inputs[:count], dt))
        if seconds > _CALL_SECONDS + _DEAR_SECONDS * min(count, len(inputs)):
            return PreviewCosts(min(count, len(inputs)), seconds, 0.0, dear=True)
    truth = operator.evaluate_truth(inputs, dt)
    asked, outputs, ids = _asked(operator, truth, len(inputs)), np.empty_like(truth), np.arange(len(inputs))
    return PreviewCosts(
        elements=len(inputs),
        truth=min(_timed(lambda: operator.evaluate_truth(inputs, dt)) for _ in range(_TRIES)),
        asking=min(_timed(lambda: asked.evaluate(inputs, outputs, ids, dt, 1, 0)) for _ in range(_TRIES)),
    )


def _asked(operator: Operator, truth: Floats, count: int) -> Route:
    """Make a route whose answers lie ready and are all taken."""

    def predict(parts: Sequence[Rows], version: int) -> None:
        for rows in parts:
            rows.mean[...], rows.score[...] = truth[: len(rows.mean)], 0.0

    controller = Controller(policy="always", audit_rate=1e-9)
    route = Route(operator, controller, seed=0, deadline=1.0, must_answer=False, stopwatch=Stopwatch())
    route.transport = InProcessTransport(
        SlotShape(0, count, len(operator.signature.inputs), truth.shape[1]), predict, lambda version: None
    )
    everywhere = np.full(len(operator.signature.inputs), np.inf)
    route.limits = Limits.of(operator.signature, -everywhere, everywhere)
    route.state = controller.promoted(route.state, 1, 1.0)
    return route


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
