"""The main figure: what an exchange adds to a step, where every rank works between its exchanges, as simulations do.

Ranks under mpirun work for 200 µs, calibrated on a free core, have a batch of 4 KiB (32 elements of 16 float64)
answered by the same network, and so on. ``added_s`` is the time per step on the slowest rank beyond that of the same
work without an exchange, measured in turns with it. With more processes than cores, whoever spins while waiting
takes time from those who work: a ping-pong does not show that. The last rows are what a waiting server costs, and
what the exchange takes from the throughput of a full node with an operator of 1 ms.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.ranks import Crew, on_ranks
from benchmarks.harness.rivals.ours import Node
from benchmarks.harness.rivals.processes import ServerProcess
from benchmarks.harness.rivals.rays import RivalCluster, start_forwarder
from benchmarks.harness.rivals.sockets import require_zeromq
from benchmarks.harness.rivals.system import Unavailable
from benchmarks.harness.rivals.usage import used_by
from benchmarks.harness.rivals.workload import Workload, publish
from benchmarks.harness.timing import Effort, Row, row
from coupler.serving.cluster import Cluster

EFFORT = Effort(rounds=5, seconds=0.5, most=2000, least=5)
WORKLOAD = Workload("mlp/4KiB", "mlp", 32)
RANKS = (1, 2, 4, 8)
SYSTEMS = (
    "coupler-shared",
    "coupler-inprocess",
    "inprocess-eager",
    "mpi-sendrecv",
    "unix-socket",
    "zeromq",
    "ray-actor",
)
WORK_SECONDS = 200e-6
_OPERATOR_SECONDS = 1e-3
_IDLE_SECONDS = 2.0
# Longest that a turn of all ranks may take, and that they may need to open their lines: Ray's drivers take long [s].
_TURN_SECONDS, _CONNECT_SECONDS = 120.0, 240.0
_STEPPER = "benchmarks.harness.rivals.steps:Stepper"
_SOCKETS = "benchmarks.harness.rivals.sockets"
_WARM_STEPS = 20


def run() -> list[Row]:
    """Measure every system on 1, 2, 4 and 8 ranks.

    Returns
    -------
    list of dict
        ``case`` (``ranks/N``), ``system``, ``n`` (rounds), ``median_s``, ``p10_s``, ``p90_s`` of the time per step on
        the slowest rank, ``added_s`` (beyond ``compute``), ``steps`` per round, ``cores``; ``idle/server`` with
        ``core_share``, ``throughput/N`` with ``relative`` to ``compute``.
    """
    return measure(RANKS, SYSTEMS, EFFORT)


def measure(ranks: Sequence[int], systems: Sequence[str], effort: Effort) -> list[Row]:
    """Measure some systems on some numbers of ranks; the largest one gives the rows beyond the steps.

    Parameters
    ----------
    ranks : sequence of int
        Numbers of ranks.
    systems : sequence of str
        Of :data:`SYSTEMS`; one that cannot take part is left out, and why is printed.
    effort : Effort
        How long.
    """
    rows: list[Row] = []
    with _place() as place:
        for many in ranks:
            with _Team(place, many, systems) as team:
                rows.extend(_steps(f"ranks/{many}", team, list(team.systems), effort, WORK_SECONDS))
                if many == max(ranks):
                    ours = [name for name in team.systems if name.startswith("coupler-")]
                    rows.extend(_throughput(_steps(f"throughput/{many}", team, ours, effort, _OPERATOR_SECONDS)))
                    rows.extend(_idle(team))
    return rows


class _Place:
    """What all teams use: a folder, the models, a Ray cluster."""

    def __init__(self, folder: Path, started: ExitStack) -> None:
        self.folder, self.models = folder, folder / "models"
        publish(self.models)
        self._started = started

    @cached_property
    def head(self) -> RivalCluster:
        """A Ray cluster, for product and rival alike."""
        head = RivalCluster()
        self._started.callback(head.close)
        return head

    @cached_property
    def cluster(self) -> Cluster:
        """A connection to it."""
        cluster = Cluster(self.head.address)
        self._started.callback(cluster.close)
        return cluster


@contextmanager
def _place() -> Iterator[_Place]:
    with ExitStack() as started:
        folder = started.enter_context(tempfile.TemporaryDirectory(prefix="coupler-bench-", dir="/tmp"))
        yield _Place(Path(folder), started)


class _Team:
    """So many ranks with a line to every system, and the servers; Ray's drivers are in ranks of their own.

    Attributes
    ----------
    systems : dict of name to Crew
        Which ranks step in which system, ``compute`` included.
    servers : dict of name to int
        Processes that wait for questions.
    """

    def __init__(self, place: _Place, ranks: int, systems: Sequence[str]) -> None:
        self.ranks, self.place = ranks, place
        self.servers: dict[str, int] = {}
        with ExitStack() as started:
            self._started = started
            ranks_of_all = self._crew(ranks + 1, serves=True)
            self.systems: dict[str, Crew] = {"compute": ranks_of_all}
            for name in systems:
                try:
                    how = self._serve(name)
                except Unavailable as reason:
                    print(f"step: {name} is left out: {reason}", file=sys.stderr, flush=True)
                    continue
                # Ray's drivers keep threads of their own, and these would work beside the other systems.
                crew = self._crew(ranks, serves=False) if name == "ray-actor" else ranks_of_all
                crew.call("connect", system=name, within=_CONNECT_SECONDS, **how)
                self.systems[name] = crew
            alone = ranks_of_all.call("calibrate", only=[0])[0]
            self.loops_per_second = 1.0 / alone
            self._started = started.pop_all()

    def __enter__(self) -> "_Team":
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def turn(self, system: str, steps: int, seconds: float) -> NDArray[np.float64]:
        """Have all ranks do steps with so much work and give the seconds of each (ranks, steps)."""
        loops = int(seconds * self.loops_per_second)
        found = self.systems[system].call("step", system=system, steps=steps, loops=loops, within=_TURN_SECONDS)
        return np.array(found[: self.ranks])

    def _crew(self, ranks: int, *, serves: bool) -> Crew:
        return self._started.enter_context(
            Crew(_STEPPER, ranks, models=str(self.place.models), workload=asdict(WORKLOAD), serves=serves)
        )

    def _serve(self, system: str) -> dict[str, Any]:
        """Start the server of a system, if it has one, and say how ranks reach it."""
        serve: Callable[[], dict[str, Any]] | None = {
            "coupler-shared": self._serve_arena,
            "unix-socket": self._serve_unix,
            "zeromq": self._serve_zeromq,
            "ray-actor": self._serve_ray,
        }.get(system)
        return {} if serve is None else serve()

    def _serve_arena(self) -> dict[str, Any]:
        node = Node(self.place.cluster, self.place.models, {WORKLOAD.model: WORKLOAD.elements}, self.ranks)
        self._started.callback(node.close)
        self.servers["coupler-shared"] = node.server_pid
        address = node.address
        return {"address": astuple(address.segment), "layout": [astuple(shape) for shape in address.layout.slots]}

    def _serve_unix(self) -> dict[str, Any]:
        path = str(self.place.folder / f"unix-{self.ranks}")
        return self._serve_process("unix-socket", "serve_unix", path, str(self.ranks))

    def _serve_zeromq(self) -> dict[str, Any]:
        require_zeromq()
        return self._serve_process("zeromq", "serve_zeromq", str(self.place.folder / f"zeromq-{self.ranks}"))

    def _serve_process(self, system: str, function: str, path: str, *more: str) -> dict[str, Any]:
        server = ServerProcess(_SOCKETS, function, [path, str(self.place.models), *more])
        self._started.callback(server.close)
        self.servers[system] = server.pid
        return {"path": path}

    def _serve_ray(self) -> dict[str, Any]:
        address = self.place.cluster.head  # connects, if nobody has yet
        import ray

        name = f"forwarder-{self.ranks}"
        actor = start_forwarder(self.place.models, "same", name)
        self._started.callback(ray.kill, actor)
        self.servers["ray-actor"] = ray.get(actor.pid.remote())
        return {"address": address, "name": name}


def _steps(case: str, team: _Team, systems: Sequence[str], effort: Effort, seconds: float) -> list[Row]:
    """Step in turns, everybody in every round, and give a row for each system."""
    systems = ["compute", *(name for name in systems if name != "compute")]
    steps = {name: effort.repetitions(_slowest(team.turn(name, _WARM_STEPS, seconds))) for name in systems}
    turns: dict[str, list[NDArray[np.float64]]] = {name: [] for name in systems}
    for index in range(effort.rounds):
        first = index % len(systems)
        for name in systems[first:] + systems[:first]:
            turns[name].append(team.turn(name, steps[name], seconds))
    alone = np.array([_slowest(turn) for turn in turns["compute"]])
    rows = []
    for name in systems:
        slowest = np.array([_slowest(turn) for turn in turns[name]])
        facts: dict[str, str | int | float] = {
            "added_s": float(np.median(slowest - alone)),
            "steps": steps[name],
            "work_s": seconds,
            "bytes": WORKLOAD.bytes,
            "elements": WORKLOAD.elements,
            "cores": len(os.sched_getaffinity(0)),
        }
        rows.append(row(case, name, slowest, **facts))
    return rows


def _slowest(turn: NDArray[np.float64]) -> float:
    """Time per step on the slowest rank."""
    return float(turn.mean(axis=1).max())


def _throughput(rows: Sequence[Row]) -> list[Row]:
    """Say of each row what is left of the throughput without an exchange."""
    alone = float(rows[0]["median_s"])
    return [{**found, "relative": alone / float(found["median_s"])} for found in rows]


def _idle(team: _Team) -> list[Row]:
    """Look how much of a core the servers use while nobody asks."""
    before = {name: used_by(pid) for name, pid in team.servers.items()}
    started = time.perf_counter()
    time.sleep(_IDLE_SECONDS)
    seconds = time.perf_counter() - started
    shares = {name: (used_by(pid) - before[name]) / seconds for name, pid in team.servers.items()}
    if "mpi-sendrecv" in team.systems:
        idle = on_ranks("benchmarks.harness.rivals.steps:idle", 2, models=str(team.place.models), seconds=_IDLE_SECONDS)
        shares["mpi-sendrecv"] = idle[1]
    return [
        {"case": "idle/server", "system": name, "n": 1, "core_share": share, "seconds": seconds}
        for name, share in shares.items()
    ]
