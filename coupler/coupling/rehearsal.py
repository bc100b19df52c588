"""A rehearsal: a question is asked, answered and judged before the run, with everything that can come of it.

What is compiled at its first use would otherwise be compiled in the middle of the run, at the step in which the first
model takes over, while all ranks wait: some seconds on a machine that has never run this before.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coupler.clock import Stopwatch
from coupler.controller import Controller, Limits
from coupler.controller.regions import Regions
from coupler.coupling.route import Route
from coupler.exchange import InProcessTransport, SlotShape
from coupler.operator import Operator, Signature
from coupler.records import Rows

Floats = NDArray[np.float64]

_ELEMENTS = 64


def staged(operator: Operator, controller: Controller, answers: Floats, *, regions: int = 0) -> Route:
    """Make a route to a model whose answers lie ready.

    Parameters
    ----------
    operator : Operator
        Whose truth, and what its answers look like.
    controller : Controller
        The rules.
    answers : ndarray (n, n_out)
        To the elements of every question, by their place in it; every second one is in doubt.
    regions : int
        Regions of the input space that may be watched.

    Collective: no.
    """
    doubt = np.arange(len(answers)) % 2 * 2.0

    def predict(parts: Sequence[Rows], version: int) -> None:
        for rows in parts:
            rows.mean[...], rows.score[...] = answers[: len(rows.mean)], doubt[: len(rows.mean)]

    n_in = len(operator.signature.inputs)
    route = Route(operator, controller, seed=0, deadline=1.0, must_answer=False, stopwatch=Stopwatch(), regions=regions)
    shape = SlotShape(0, len(answers), n_in, answers.shape[1])
    route.line.transport = InProcessTransport(shape, predict, lambda version: None)
    route.limits = Limits.of(operator.signature, np.full(n_in, -np.inf), np.full(n_in, np.inf))
    route.state = controller.promoted(route.state, 1, 1.0)
    return route


def rehearse(signature: Signature) -> None:
    """Ask about some elements that are audited, refused and accepted, watched by region, and tried on two versions.

    Parameters
    ----------
    signature : Signature
        Of the operator, whose truth is not called.

    Collective: no.
    """
    nothing = np.zeros((_ELEMENTS, len(signature.outputs)))
    stand_in = Operator(
        lambda inputs, dt: nothing[: len(inputs)],
        inputs=signature.inputs,
        outputs=signature.outputs,
        atol=signature.atol,
        rtol=signature.rtol,
        conserved=signature.conserved,
    )
    route = staged(stand_in, Controller(audit_rate=0.5), nothing, regions=1)
    n_in = len(signature.inputs)
    route.observer.regions = Regions(np.zeros((1, n_in)), np.ones(n_in))
    route.challenger = 1
    inputs = np.zeros((_ELEMENTS, n_in))
    route.evaluate(inputs, np.empty_like(nothing), np.arange(_ELEMENTS), 1.0, 1, 0)
    route.observer.regions.find(inputs)
