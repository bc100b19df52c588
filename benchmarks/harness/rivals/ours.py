"""The product's own transports, started as the product starts them."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.rivals.system import LocalSystem
from benchmarks.harness.rivals.workload import DEADLINE, DT, MODELS, VERSION, Workload, predictor
from benchmarks.harness.timing import each
from coupler.exchange import (
    Arena,
    ArenaAddress,
    ArenaLayout,
    InProcessTransport,
    SharedTransport,
    SlotShape,
    Transport,
)
from coupler.serving.cluster import Cluster
from coupler.serving.modelplan import ModelPlan
from coupler.serving.placement import CoreMap, Home
from coupler.serving.service import Service
from coupler.serving.serviceplan import NodePlan, ServicePlan


class Node:
    """An arena with a slot per rank and model, and whoever answers it: what the leading rank of a node starts.

    Parameters
    ----------
    cluster : Cluster
        Where the actors start.
    models : Path
        Where the models were published.
    capacity : mapping of model to int
        Elements that a slot holds; other models are not asked.
    ranks : int
        Ranks on the node.
    transport : str
        ``shared``, or ``objectstore`` for a relay and a server that could be elsewhere.
    servers : str
        Where the server runs: on this node, or on one that has this Ray resource.
    """

    def __init__(
        self,
        cluster: Cluster,
        models: Path,
        capacity: dict[str, int],
        ranks: int = 1,
        transport: str = "shared",
        servers: str = "with-ranks",
    ) -> None:
        shapes = [
            SlotShape(index, capacity.get(name, 1), many, many)
            for index, (name, (_, many)) in enumerate(MODELS.items())
        ]
        cores = frozenset(os.sched_getaffinity(0))
        with ExitStack() as started:
            self._arena = Arena.create(ArenaLayout(tuple(shapes * ranks)))
            started.callback(self._arena.close)
            plan = self._plan(cluster, models, CoreMap((cores,) * ranks, cores, cores), transport)
            service = Service(cluster, replace(plan, servers=servers))
            started.callback(service.close)
            started.callback(self._arena.dismiss)
            for operator, name in enumerate(MODELS):
                if name in capacity:
                    service.load(operator, VERSION)
            self._started = started.pop_all()

    @property
    def address(self) -> ArenaAddress:
        """Where other ranks attach."""
        return self._arena.address

    @property
    def server_pid(self) -> int:
        """Process that answers the arena."""
        return int(self._arena.server_pid[0])

    def line(self, operator: int, rank: int = 0) -> SharedTransport:
        """Give a rank's line to the model of an operator."""
        return line(self._arena, operator, rank)

    def close(self) -> None:
        """End what answers, let go of the arena."""
        self._started.close()

    def _plan(self, cluster: Cluster, models: Path, cores: CoreMap, transport: str) -> ServicePlan:
        return ServicePlan(
            nodes=(NodePlan(Home.towards(cluster.head), self._arena.address, cores),),
            models=ModelPlan(
                operators=tuple(MODELS),
                columns=tuple((many, many) for _, many in MODELS.values()),
                models=str(models),
                device="cpu",
                threads=1,
            ),
            trains=False,
            modest=False,
            servers="with-ranks",
            transport=transport,
        )


def line(arena: Arena, operator: int, rank: int) -> SharedTransport:
    """Give a rank's line to the model of an operator; slots are by rank, then by operator."""
    return SharedTransport(arena, rank * len(MODELS) + operator)


class CouplerShared(LocalSystem):
    """The arena of a node, and its server or relay.

    Parameters
    ----------
    name : str
        Of the rows.
    node : Node
        Who answers; it has an owner of its own.
    copies : bool
        Whether the batch is copied into the arena and the answer out of it while the time runs, as it is where a
        simulation's arrays are elsewhere. Otherwise they are the arena's own, written before and read in place.
    """

    def __init__(self, name: str, node: Node, *, copies: bool) -> None:
        super().__init__()
        self.name, self.facts = name, {"copies": "in+out" if copies else "none", "forward": "same"}
        self._lines: Sequence[Transport] = [node.line(operator) for operator in range(len(MODELS))]
        self._copies = copies
        self._answer = np.empty((0, 0))

    def open(self, workload: Workload) -> None:
        """Make room for an answer that is copied out."""
        self._line: Transport = self._lines[workload.operator]
        self._answer = np.zeros((workload.elements if self._copies else 0, workload.columns))

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Copy in, ask, and copy out if copies are asked for."""
        self._write(inputs)
        answer = self._ask(len(inputs))
        if not self._copies:
            return answer
        self._answer[...] = answer
        return self._answer

    def repeat(self, times: int) -> NDArray[np.float64]:
        """Time round trips; without copies, the inputs are written anew before each, as a simulation would do."""
        if self._copies:
            return super().repeat(times)
        count = self.workload.elements
        return each(lambda: self._ask(count), before=lambda: self._write(self._inputs))(times)

    def close(self) -> None:
        """Close the lines."""
        for each_line in self._lines:
            each_line.close()

    def _write(self, inputs: NDArray[np.float64]) -> None:
        self._line.inputs(len(inputs))[...] = inputs

    def _ask(self, count: int) -> NDArray[np.float64]:
        self._line.ask(count, DT, VERSION)
        answer = self._line.answer(DEADLINE)
        assert answer.arrived, answer.reason.sentence
        return answer.mean


class CouplerInProcess(CouplerShared):
    """The model inside the rank, behind the same contract.

    Parameters
    ----------
    models : Path
        Where the models were published.
    capacity : mapping of model to int
        Elements that it is asked about at most.
    """

    def __init__(self, models: Path, capacity: dict[str, int]) -> None:
        LocalSystem.__init__(self)
        self.name, self.facts = "coupler-inprocess", {"copies": "none", "forward": "same"}
        self._lines = [inprocess(models, name, capacity.get(name, 1)) for name in MODELS]
        self._copies = False
        self._answer = np.empty((0, 0))


def inprocess(models: Path, model: str, capacity: int) -> InProcessTransport:
    """Give a line to a model inside this process, as a rank has it with ``exchange.transport = "inprocess"``."""
    torch.set_num_threads(1)
    many, place = MODELS[model][1], list(MODELS).index(model)
    return InProcessTransport(
        SlotShape(place, capacity, many, many), predictor(models, model).predict, lambda version: None
    )
