"""Starting and stopping what the ranks of a node share: arena, server, trainer, and each rank's lines to them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coupler.config import Case
from coupler.coupling.nodes import Nodes, together
from coupler.coupling.route import Route
from coupler.errors import ConfigError
from coupler.exchange import Arena, ArenaLayout, InProcessTransport, SharedTransport, SlotShape, Transport
from coupler.learning.registry import Registry
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

    Collective: yes.
    """

    def __init__(self, case: Case, nodes: Nodes, routes: Mapping[str, Route], elements: int, models: Path) -> None:
        if nodes.count > 1:
            raise ConfigError(
                f"The ranks are on {nodes.count} nodes, and a surrogate is served on one only so far: run on one node, "
                "or use --set controller.mode=physics."
            )
        self._nodes, self._names = nodes, tuple(routes)
        self._registry = Registry(models)
        shapes = [_slot_shape(index, route, elements) for index, route in enumerate(routes.values())]
        with ExitStack() as started:
            arena = None if case.exchange.transport == "inprocess" else self._map_arena(shapes, started)
            service_plan = self._plan(case, arena, models)
            self.service: Service | None = together(nodes.job, lambda: self._start_service(service_plan, started))
            if arena is not None and nodes.leads:
                started.callback(arena.dismiss)
            transports = together(nodes.job, lambda: self._transports(case, shapes, arena))
            for route, transport in zip(routes.values(), transports, strict=True):
                started.callback(transport.close)
                route.transport = transport
            self._started = started.pop_all()

    def close(self) -> None:
        """Stop server and trainer, let go of the arena. Collective: no."""
        self._started.close()

    def _map_arena(self, shapes: Sequence[SlotShape], started: ExitStack) -> Arena:
        """Make the node's arena on its leading rank, slots by rank, then by operator; map it on the others."""
        node = self._nodes.node
        everyone = node.gather(list(shapes))
        layout = ArenaLayout(tuple(shape for rank in everyone or () for shape in rank))
        mine = together(node, lambda: Arena.create(layout) if node.rank == 0 else None)
        address = node.bcast(mine.address if mine is not None else None)
        arena = together(node, lambda: mine or Arena.attach(address))
        started.callback(arena.close)
        return arena

    def _plan(self, case: Case, arena: Arena | None, models: Path) -> ServicePlan:
        bound = self._nodes.core_sets()
        with all_cores() as reachable:
            cores = plan(bound, reachable)
        return ServicePlan(
            address=case.ray.address,
            arena=None if arena is None else arena.address,
            operators=self._names,
            models=str(models),
            device=case.surrogate.device,
            threads=case.surrogate.threads,
            cores=cores,
        )

    def _start_service(self, service_plan: ServicePlan, started: ExitStack) -> Service | None:
        if not self._nodes.leads:
            return None
        service = Service(service_plan)
        started.callback(service.close)
        return service

    def _transports(self, case: Case, shapes: Sequence[SlotShape], arena: Arena | None) -> list[Transport]:
        if arena is not None:
            first = self._nodes.node.rank * len(shapes)
            return [SharedTransport(arena, first + index) for index in range(len(shapes))]
        torch.set_num_threads(case.surrogate.threads)
        device = choose_device(case.surrogate.device)
        return [self._inprocess(shape, device) for shape in shapes]

    def _inprocess(self, shape: SlotShape, device: torch.device) -> Transport:
        predictor = Predictor(shape.n_in, shape.n_out, device)
        name = self._names[shape.operator]

        def predict(
            inputs: NDArray[np.float64], dt: float, version: int, mean: NDArray[np.float64], score: NDArray[np.float64]
        ) -> None:
            predictor.predict(inputs, np.full(len(inputs), dt), version, mean, score)

        def load(version: int) -> None:
            predictor.load(version, self._registry.load(self._registry.card(name, version)))

        return InProcessTransport(shape, predict, load)


def _slot_shape(index: int, route: Route, elements: int) -> SlotShape:
    signature = route.operator.signature
    return SlotShape(index, max(elements, 1), len(signature.inputs), len(signature.outputs))
