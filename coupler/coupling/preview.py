"""A preview: what truth and asking cost for elements like those to come, before anything is started for them."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.controller import Controller
from coupler.coupling.rehearsal import staged
from coupler.operator import Operator

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
        if seconds > _most_asking(min(count, len(inputs))):
            return PreviewCosts(min(count, len(inputs)), seconds, 0.0, dear=True)
    truth = operator.evaluate_truth(inputs, dt)
    seconds = _timed(partial(operator.evaluate_truth, inputs, dt))
    # Twice says enough where it is more than asking takes; the few may have been cheap ones, as fresh gas is.
    tries = 2 if seconds > _most_asking(len(inputs)) else _TRIES
    asked = staged(operator, Controller(policy="always", audit_rate=1e-9), truth)
    outputs, ids = np.empty_like(truth), np.arange(len(inputs))
    return PreviewCosts(
        elements=len(inputs),
        truth=min([seconds, *(_timed(lambda: operator.evaluate_truth(inputs, dt)) for _ in range(tries - 1))]),
        asking=min(_timed(lambda: asked.evaluate(inputs, outputs, ids, dt, 1, 0)) for _ in range(_TRIES)),
    )


def _most_asking(count: int) -> float:
    """Give what no asking about so many elements takes [s]."""
    return _CALL_SECONDS + _DEAR_SECONDS * count


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
