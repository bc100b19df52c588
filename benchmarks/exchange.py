"""A round trip: a rank has a batch, another process answers it, the rank has the answer. Every rival in the same run.

All systems get the same bytes, one thread per process, and run the same forward where they answer; rows with
``forward`` other than ``same`` show what a rival does by itself. The state of an element is a row of float64. With
``copies`` ``none`` the batch was written into the arena before, and the answer is read there; rivals have it in the
rank's own array and bring the answer there, as their interfaces ask for.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.harness.rivals.local import Fused, MemoryCopy, Torch
from benchmarks.harness.rivals.mpi import MpiSendRecv
from benchmarks.harness.rivals.ours import CouplerInProcess, CouplerShared, Node
from benchmarks.harness.rivals.rays import RayActor, RayCompiledGraph, RayServe, RivalCluster
from benchmarks.harness.rivals.sockets import UnixSocket, ZeroMq
from benchmarks.harness.rivals.system import System, Unavailable
from benchmarks.harness.rivals.workload import Forward, Workload, publish
from benchmarks.harness.timing import Effort, Repeat, Row, in_turns, row
from coupler.serving.cluster import Cluster

EFFORT = Effort(rounds=5, seconds=0.1, most=2000, limit=20.0)
WORKLOADS = (
    Workload("identity/4KiB", "identity", 32),
    Workload("identity/64KiB", "identity", 512),
    Workload("identity/1MiB", "identity", 8192),
    Workload("identity/16MiB", "identity", 131072),
    Workload("identity/64MiB", "identity", 524288),
    Workload("mlp/4KiB", "mlp", 32),
    Workload("mlp/16384", "mlp", 16384),
    Workload("mlp/262144", "mlp", 262144),
    Workload("ensemble/16384", "ensemble", 16384),
    Workload("ensemble/262144", "ensemble", 262144),
)
# Seeds of the batches whose answers are compared, before the timing and after it.
_CHECKED = (1, 2)


class Place:
    """Where systems are started: a folder, the models, and one Ray cluster for all that need one.

    Parameters
    ----------
    folder : Path
        A folder of its own, with a short path.
    workloads : sequence of Workload
        What the systems will be asked.
    started : ExitStack
        Ends whatever is started here.
    """

    def __init__(self, folder: Path, workloads: Sequence[Workload], started: ExitStack) -> None:
        self.folder, self.models = folder, folder / "models"
        self.capacity = {workload.model: 0 for workload in workloads}
        for workload in workloads:
            self.capacity[workload.model] = max(self.capacity[workload.model], workload.elements)
        self._started = started
        publish(self.models)

    @cached_property
    def cluster(self) -> Cluster:
        """A connection to Ray."""
        head = RivalCluster()
        self._started.callback(head.close)
        cluster = Cluster(head.address)
        self._started.callback(cluster.close)
        return cluster

    @cached_property
    def node(self) -> Node:
        """An arena with a server."""
        return self._node("shared")

    @cached_property
    def relayed(self) -> Node:
        """An arena with a relay, and a server that it asks through the object store."""
        return self._node("objectstore")

    def _node(self, transport: str) -> Node:
        node = Node(self.cluster, self.models, self.capacity, transport=transport)
        self._started.callback(node.close)
        return node


def _on_ray(make: Callable[[Place], System]) -> Callable[[Place], System]:
    """Have a connection to Ray before the system is made."""

    def made(place: Place) -> System:
        assert place.cluster is not None
        return make(place)

    return made


def _left_out(reason: str) -> Callable[[Place], System]:
    """Say why a rival that belongs here is not measured."""

    def refused(place: Place) -> System:
        raise Unavailable(reason)

    return refused


SYSTEMS: Mapping[str, Callable[[Place], System]] = {
    "coupler-shared": lambda place: CouplerShared("coupler-shared", place.node, copies=False),
    "coupler-shared-copied": lambda place: CouplerShared("coupler-shared-copied", place.node, copies=True),
    "coupler-inprocess": lambda place: CouplerInProcess(place.models, place.capacity),
    "coupler-objectstore": lambda place: CouplerShared("coupler-objectstore", place.relayed, copies=False),
    "ray-actor": _on_ray(lambda place: RayActor(place.models, "same")),
    "ray-actor-eager": _on_ray(lambda place: RayActor(place.models, "eager")),
    "ray-compiled-graph": _on_ray(lambda place: RayCompiledGraph(place.models)),
    "ray-serve": _on_ray(lambda place: RayServe(place.models)),
    "mpi-sendrecv": lambda place: MpiSendRecv(place.models),
    "unix-socket": lambda place: UnixSocket(place.folder, place.models),
    "zeromq": lambda place: ZeroMq(place.folder, place.models),
    "smartredis": _left_out("SmartRedis 0.6 asks for numpy<2, so it cannot be installed beside this package"),
    "precice": _left_out("preCICE is a C++ library with no wheel, so it is not in the `bench` extra"),
    "best-inprocess": lambda place: Fused(place.models),
    "inprocess-chunked": lambda place: Torch(place.models, "chunked"),
    "inprocess-eager": lambda place: Torch(place.models, "eager"),
    "memory-copy": lambda place: MemoryCopy(),
}


def run() -> list[Row]:
    """Measure every system at every size.

    Returns
    -------
    list of dict
        ``case``, ``system``, ``n`` (round trips), ``median_s``, ``p10_s``, ``p90_s``, ``elements``, ``bytes`` (of the
        batch; the answer is as large), ``copies``, ``forward``, ``per_element_s``.
    """
    return measure(WORKLOADS, tuple(SYSTEMS), EFFORT)


def measure(workloads: Sequence[Workload], systems: Sequence[str], effort: Effort) -> list[Row]:
    """Measure some systems with some workloads.

    Parameters
    ----------
    workloads : sequence of Workload
        What to ask.
    systems : sequence of str
        Whom, of :data:`SYSTEMS`; one that cannot take part is left out, and why is printed.
    effort : Effort
        How long.
    """
    rows: list[Row] = []
    with _started(workloads, systems) as (models, taking_part):
        reference = Forward(models)
        for workload in workloads:
            rows.extend(_measure_one(workload, taking_part, reference, effort))
    return rows


@contextmanager
def _started(workloads: Sequence[Workload], systems: Sequence[str]) -> Iterator[tuple[str, list[System]]]:
    with ExitStack() as started:
        folder = started.enter_context(tempfile.TemporaryDirectory(prefix="coupler-bench-", dir="/tmp"))
        place = Place(Path(folder), workloads, started)
        found = []
        for name in systems:
            try:
                system = SYSTEMS[name](place)
            except Unavailable as reason:
                print(f"exchange: {name} is left out: {reason}", file=sys.stderr, flush=True)
                continue
            started.callback(system.close)
            found.append(system)
        yield str(place.models), found


def _measure_one(workload: Workload, systems: Sequence[System], reference: Forward, effort: Effort) -> list[Row]:
    expected = {seed: reference.answer(workload.model, workload.inputs(seed)).copy() for seed in _CHECKED}
    ready: dict[str, System] = {}
    for system in systems:
        try:
            system.prepare(workload)
        except Unavailable:  # it has nothing to do with this workload, and said so in its description
            continue
        workload.check(system.answered(_CHECKED[0]), expected[_CHECKED[0]], system.name)
        ready[system.name] = system
    repeats: dict[str, Repeat] = {name: system.repeat for name, system in ready.items()}
    seconds = in_turns(repeats, effort)
    rows = []
    for name, system in ready.items():
        workload.check(system.answered(_CHECKED[1]), expected[_CHECKED[1]], name)
        facts = {"elements": workload.elements, "bytes": workload.bytes, **system.facts}
        each = float(np.median(seconds[name])) / workload.elements
        rows.append(row(workload.case, name, seconds[name], **facts, per_element_s=each))
    return rows
