"""Starting and stopping what the ranks of a node share: arena, server, trainer, and each rank's lines to them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.config import Case
from coupler.coupling.nodes import Nodes, on_first, together
from coupler.coupling.route import Route
from coupler.errors import ConfigError
from coupler.exchange import (
    Arena,
    ArenaAddress,
    ArenaLayout,
    InProcessTransport,
    Predict,
    SharedTransport,
    SlotShape,
    Transport,
)
from coupler.learning.registry import ModelCard, Registry
from coupler.serving.placement import all_cores, plan
from coupler.serving.predictor import Predictor, choose_device
from coupler.serving.service import Service, ServicePlan


class NodeServices:
    """This rank's share of the services of its node.

    Parameters
    ----------
    case : Case
        The effective case.
    nodes : Nodes
        The ranks.
    routes : mapping of operator name to Route
        They get their transports here.
    elements : int
        Elements this rank asks about at once, at most.
    models : Path
        Folder of the registry.

    Raises
    ------
    CouplerError
        If something does not start, on every rank alike.

    Collective: yes, as :meth:`close`.
    """

    def __init__(self, case: Case, nodes: Nodes, routes: Mapping[str, Route], elements: int, models: Path) -> None:
        if nodes.count > 1 and not (case.ray.address or os.environ.get("RAY_ADDRESS")):
            raise ConfigError(
                f"The ranks are on {nodes.count} nodes, and an embedded Ray lives on one: start a cluster over all of "
                "them and set ray.address or RAY_ADDRESS, or use --set controller.mode=physics."
            )
        self._nodes, self._routes = nodes, list(routes.values())
        self._registry = Registry(models)
        self._arena: Arena | None = None
        self._predictors: list[Predictor] = []
        self.service: Service | None = None
        try:
            self._start(case, tuple(routes), elements, models)
        except BaseException:
            self.close()
            raise

    def _start(self, case: Case, names: tuple[str, ...], elements: int, models: Path) -> None:
        shapes = [_slot_shape(index, route, elements) for index, route in enumerate(self._routes)]
        address = None if case.exchange.transport == "inprocess" else self._make_arena(shapes)
        bound = self._nodes.core_sets()
        with all_cores() as reachable:
            cores = plan(bound, reachable)
        service_plan = ServicePlan(
            address=case.ray.address,
            arena=address,
            operators=names,
            models=str(models),
            device=case.surrogate.device,
            threads=case.surrogate.threads,
            cores=cores,
        )
        nodes = self._nodes
        self.service = together(nodes.job, lambda: Service(service_plan) if nodes.leads else None)
        transports = self._transports(case, shapes, address)
        for transport, route in zip(transports, self._routes, strict=True):
            route.transport = transport

    def promote(self, index: int, card: ModelCard) -> None:
        """Make a version ready to be asked: nothing to do where the server has it loaded already."""
        if self._predictors:
            self._predictors[index].load(card.version, self._registry.load(card))

    def close(self) -> None:
        """Stop server and trainer, let go of the arena."""
        for route in self._routes:
            if route.transport is not None:
                route.transport.close()
        if self.service is not None:
            self.service.close()
        if self._arena is not None:
            self._arena.close()

    def _make_arena(self, shapes: Sequence[SlotShape]) -> ArenaAddress:
        """Make the node's arena on its leading rank: slots by rank, then by operator."""
        everyone = self._nodes.node.gather(list(shapes))

        def create() -> ArenaAddress:
            assert everyone is not None
            self._arena = Arena.create(ArenaLayout(tuple(shape for rank in everyone for shape in rank)))
            return self._arena.address

        return on_first(self._nodes.node, create)

    def _transports(self, case: Case, shapes: Sequence[SlotShape], address: ArenaAddress | None) -> list[Transport]:
        if address is None:
            device = choose_device(case.surrogate.device)
            self._predictors = [Predictor(shape.n_in, shape.n_out, device) for shape in shapes]
            return [
                InProcessTransport(shape, _predict_with(one))
                for shape, one in zip(shapes, self._predictors, strict=True)
            ]
        if self._arena is None:
            self._arena = Arena.attach(address)
        first = self._nodes.node.rank * len(shapes)
        return [SharedTransport(self._arena, first + index) for index in range(len(shapes))]


def _slot_shape(index: int, route: Route, elements: int) -> SlotShape:
    signature = route.operator.signature
    return SlotShape(index, max(elements, 1), len(signature.inputs), len(signature.outputs))


def _predict_with(predictor: Predictor) -> Predict:
    def predict(
        inputs: NDArray[np.float64], dt: float, version: int, mean: NDArray[np.float64], score: NDArray[np.float64]
    ) -> None:
        predictor.predict(inputs, np.full(len(inputs), dt), version, mean, score)

    return predict
