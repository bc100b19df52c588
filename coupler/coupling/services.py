"""Starting and stopping what ranks share: arenas, servers, relays, the trainer, and each rank's lines to them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from coupler.case import Case
from coupler.coupling.nodes import Nodes, together
from coupler.coupling.route import Route
from coupler.exchange import Arena, ArenaLayout, InProcessTransport, SharedTransport, SlotShape, Transport
from coupler.learning.registry import Registry
from coupler.serving.agreement import load_as_agreed
from coupler.serving.losses import RestartRule
from coupler.serving.modelplan import ModelPlan, Wanted, check_folder
from coupler.serving.placement import CoreMap, Home, all_cores, plan
from coupler.serving.post import Care
from coupler.serving.predictor import Predictor, choose_device
from coupler.serving.serviceplan import NodePlan, ServicePlan
from coupler.serving.supervision import Supervision

# Room for rows of a model inside of a rank.
_ROOM_BYTES = 2**30


class NodeServices:
    """This rank's share of the services of the run.

    Rank 0 alone talks to Ray's supervisor, for all nodes; the leading rank of each node owns its arena.

    Attributes
    ----------
    supervision : Supervision or None
        Servers, relays and trainer of all nodes; None except on rank 0, and where there are none.

    Parameters
    ----------
    case : Case
        The effective case.
    nodes : Nodes
        The ranks.
    routes : mapping of operator name to Route
        They get their transports here.
    elements : mapping of operator name to int
        Elements this rank asks about at once, at most.
    models : Path
        Folder of the registry.
    inherited : mapping of operator name to int
        Versions that answer from the first step on.

    Raises
    ------
    CouplerError
        If something does not start, on every rank alike.

    Collective: yes.
    """

    def __init__(
        self,
        case: Case,
        nodes: Nodes,
        routes: Mapping[str, Route],
        elements: Mapping[str, int],
        models: Path,
        inherited: Mapping[str, int],
    ) -> None:
        self._nodes, self._routes, self._inherited = nodes, routes, inherited
        together(nodes.job, lambda: check_folder(models))
        self._registry = Registry(models)
        shapes = [_slot_shape(index, route, elements[name]) for index, (name, route) in enumerate(routes.items())]
        with ExitStack() as started:
            arena = None if case.exchange.transport == "inprocess" else self._map_arena(shapes, started)
            self.supervision = together(nodes.job, lambda: self._connect(case, started))
            service_plan = self._plan(case, arena, models)
            together(nodes.job, lambda: self._start_services(service_plan, arena))
            if arena is not None and nodes.leads:
                started.callback(arena.dismiss)
            transports = together(nodes.job, lambda: self._transports(case, shapes, arena))
            for route, transport in zip(routes.values(), transports, strict=True):
                started.callback(transport.close)
                route.line.transport = transport
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

    def _connect(self, case: Case, started: ExitStack) -> Supervision | None:
        nobody = case.exchange.transport == "inprocess" and not case.learning.trains
        if not self._nodes.first or nobody:
            return None
        spans = 1 if case.exchange.transport == "inprocess" else self._nodes.count
        # Who waits outside of MPI looks in, or it would not learn that its job has been killed.
        supervision = Supervision(case.ray.address, spans, _restart_rule(case), self._nodes.job.Iprobe)
        started.callback(supervision.close)
        return supervision

    def _plan(self, case: Case, arena: Arena | None, models: Path) -> ServicePlan | None:
        """Gather on rank 0 what to start for every node; None elsewhere, and where nothing is started."""
        head = self._nodes.job.bcast(None if self.supervision is None else self.supervision.head)
        if head is None:
            return None
        cores = self._core_map()
        mine = NodePlan(Home.towards(head), None if arena is None else arena.address, cores)
        everyone = self._nodes.job.gather(mine if self._nodes.leads else None)
        if everyone is None:
            return None
        signatures = [route.operator.signature for route in self._routes.values()]
        return ServicePlan(
            nodes=tuple(node for node in everyone if node is not None),
            models=ModelPlan(
                operators=tuple(self._routes),
                columns=tuple((len(signature.inputs), len(signature.outputs)) for signature in signatures),
                models=str(models),
                device=case.surrogate.device,
                threads=case.surrogate.threads,
                form=case.surrogate.form,
                reproducible=case.learning.mode == "deterministic",
            ),
            trains=case.learning.trains,
            modest=case.economical,
            servers=case.ray.servers,
            transport=case.exchange.transport,
            care=Care(_restart_rule(case), case.ray.silence),
            wanted=tuple(
                Wanted(place, self._inherited[name])
                for place, name in enumerate(self._routes)
                if name in self._inherited
            ),
        )

    def _core_map(self) -> CoreMap:
        bound = self._nodes.core_sets()
        with all_cores() as reachable:
            return plan(bound, reachable)

    def _start_services(self, service_plan: ServicePlan | None, arena: Arena | None) -> None:
        if self.supervision is not None and service_plan is not None:
            self.supervision.serve(service_plan, (lambda: None) if arena is None else arena.dismiss)

    def _transports(self, case: Case, shapes: Sequence[SlotShape], arena: Arena | None) -> list[Transport]:
        if arena is not None:
            first = self._nodes.node.rank * len(shapes)
            most = case.exchange.slot_elements
            return [SharedTransport(arena, first + index, most) for index in range(len(shapes))]
        torch.set_num_threads(1)  # chunks are dealt out to threads instead, as servers do
        lines = OwnLines(case, self._registry)
        routes = zip(self._routes.items(), shapes, strict=True)
        return [lines.to(name, route, shape.capacity) for (name, route), shape in routes]


class OwnLines:
    """Lines to models inside this rank.

    Parameters
    ----------
    case : Case
        The effective case.
    registry : Registry
        Where versions are loaded from.

    Raises
    ------
    ConfigError
        If the device that the case asks for is not here.
    """

    def __init__(self, case: Case, registry: Registry) -> None:
        self._case, self._registry = case, registry
        self._device = choose_device(case.surrogate.device)

    def to(self, name: str, route: Route, elements: int = 1) -> Transport:
        """Give a line to an operator's models, with room for so many elements at least."""
        timed = self._case.learning.mode != "deterministic"
        wanted = self._case.surrogate
        # Memory that is never written to costs nothing, so there is no need to grow; a system may still refuse more.
        signature = route.operator.signature
        fitting = _ROOM_BYTES // (8 * (len(signature.inputs) + len(signature.outputs)))
        shape = _slot_shape(0, route, max(elements, min(self._case.exchange.slot_elements, fitting)))
        predictor = Predictor(shape.n_in, shape.n_out, self._device, wanted.threads, form=wanted.form, timed=timed)

        def load(version: int) -> None:
            load_as_agreed(predictor, self._registry, self._registry.card(name, version), route.needed_versions)

        return InProcessTransport(shape, predictor.predict, load)


def _restart_rule(case: Case) -> RestartRule:
    return RestartRule(case.ray.restarts, case.ray.restart_window)


def _slot_shape(index: int, route: Route, elements: int) -> SlotShape:
    signature = route.operator.signature
    return SlotShape(index, max(elements, 1), len(signature.inputs), len(signature.outputs))
