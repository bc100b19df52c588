"""Foresight: whether any model could save time in a run, found out on elements of its start before anything is started.

No model saves time where the truth takes no longer than asking, or, where ranks and server have to share the cores,
than asking and answering together. What answering takes is known before anything is learned: a model that has learned
nothing does the same arithmetic.
"""

from collections.abc import Mapping

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.case import Case
from coupler.coupling.nodes import crowded, on_first
from coupler.coupling.preview import PreviewCosts, preview
from coupler.operator import Operator

Floats = NDArray[np.float64]


class Foresight:
    """Collects previews of a run's operators, and concludes from those of all ranks.

    Parameters
    ----------
    case : Case
        The effective case.
    operators : mapping of name to Operator
        All of the run.
    """

    def __init__(self, case: Case, operators: Mapping[str, Operator]) -> None:
        self._case, self._operators = case, operators
        self._previews: dict[str, PreviewCosts] = {}

    def show(self, name: str, inputs: Floats, dt: float) -> None:
        """Measure truth and asking on some elements of an operator. Collective: no."""
        self._previews[name] = preview(self._operators[name], inputs, dt)

    def hopeless(self, comm: MPI.Intracomm) -> str:
        """Say why no model could save time, for any operator on any rank; nothing if one could, or nobody knows.

        Collective: yes.
        """
        mine = [self._previews[name] for name in self._operators if name in self._previews]
        cheap = len(mine) == len(self._operators) and not any(costs.dear for costs in mine)
        if not comm.allreduce(cheap, MPI.LAND):
            return ""
        truth, asking = np.array([costs.truth for costs in mine]), np.array([costs.asking for costs in mine])
        answering = np.zeros_like(truth)
        if comm.allreduce(bool((truth > asking).any()), MPI.LOR):
            answering = np.array([costs.elements for costs in mine]) * self._answering(comm)
        if comm.allreduce(bool((truth > asking + answering).any()), MPI.LOR):
            return ""
        return _sentence(*comm.allreduce(np.array([truth.sum(), asking.sum(), answering.sum()])))

    def _answering(self, comm: MPI.Intracomm) -> Floats:
        """Measure what an answer takes of the ranks' own cores [s], per operator; 0 where it takes nothing of them."""
        if self._case.exchange.transport != "inprocess" and not _crowded(comm):
            return np.zeros(len(self._operators))
        seconds = on_first(comm, lambda: [self._answer_seconds(one) for one in self._operators.values()])
        return np.nan_to_num(
            seconds
        )  # what could not be measured, as the model does not answer, is not held against it

    def _answer_seconds(self, operator: Operator) -> float:
        # Imported here: only a run that may have a model has torch.
        from coupler.plugin import build, load
        from coupler.serving.predictor import Predictor, choose_device
        from coupler.surrogate import Surrogate

        wanted, signature = self._case.surrogate, operator.signature
        device = choose_device(wanted.device)
        if device.type != "cpu":
            return 0.0
        predictor = Predictor(len(signature.inputs), len(signature.outputs), device, form=wanted.form)
        predictor.load(0, build(load(wanted.name, Surrogate), wanted.params, signature, key="surrogate.params"))
        return predictor.choices[0].seconds_per_element


def _crowded(comm: MPI.Intracomm) -> bool:
    """Whether any node is crowded. Collective: yes."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = crowded(node)
    node.Free()
    return bool(comm.allreduce(mine, MPI.LOR))


def _sentence(truth: float, asking: float, answering: float) -> str:
    if not truth:
        return ""  # nobody had an element yet
    said = (
        f"never switched on: for the elements at the start the truth takes {truth * 1e6:.3g} µs in all, and "
        f"asking alone {asking * 1e6:.3g} µs"
    )
    if not answering:
        return said
    return f"{said}, answering another {answering * 1e6:.3g} µs of the same cores"
