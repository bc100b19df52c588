"""The exchange with a server on another host, beside one plain put and get of the batch through Ray's object store.

Two hosts are network namespaces of this machine. The plain rival puts the batch on one, an actor on the other gets it
and returns it, and the answer is got back: the least a program on Ray does. Ours carries the same from a rank's slot in
the arena through relay, Ray and model back into the slot, in chunks where the batch is large. Where the machine allows
no namespaces both run on one host, and the rows say so.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.hosts import Hosts, HostsUnavailableError
from benchmarks.harness.rivals.ours import CouplerShared, Node
from benchmarks.harness.rivals.rays import RivalCluster
from benchmarks.harness.rivals.system import LocalSystem
from benchmarks.harness.rivals.workload import Workload, publish
from benchmarks.harness.timing import Effort, Repeat, Row, in_turns, row
from coupler.case import WITH_RANKS
from coupler.serving.cluster import Cluster

EFFORT = Effort(rounds=5, seconds=0.5, most=500, least=3)
WORKLOADS = (
    Workload("identity/4KiB", "identity", 32),
    Workload("identity/64KiB", "identity", 512),
    Workload("identity/1MiB", "identity", 8192),
    Workload("identity/16MiB", "identity", 131072),
    Workload("identity/64MiB", "identity", 524288),
)
# The resource of the host that answers.
_FAR = "far"
_ROOT = Path(__file__).resolve().parents[1]
_SECONDS = 900.0


def run() -> list[Row]:
    """Measure both systems at every size.

    Returns
    -------
    list of dict
        ``case``, ``system``, ``n`` (round trips), ``median_s``, ``p10_s``, ``p90_s``, ``elements``, ``bytes`` (of the
        batch; the answer is as large), ``hosts`` (2, or 1 where namespaces are not allowed), ``of_put_get`` (the median
        of a plain put and get there and back, over this one).
    """
    with tempfile.TemporaryDirectory(prefix="coupler-bench-", dir="/tmp") as folder:
        try:
            with closing(Hosts(2, Path(folder))) as hosts:
                return _across(hosts, Path(folder))
        except HostsUnavailableError as why:
            print(f"objectstore: on one host, because {why}", file=sys.stderr, flush=True)
        with closing(RivalCluster()) as head:
            return measure(Path(folder), head.address, WITH_RANKS, WORKLOADS, EFFORT)


def measure(folder: Path, address: str, servers: str, workloads: Sequence[Workload], effort: Effort) -> list[Row]:
    """Measure from this process, as the only rank of its node.

    Parameters
    ----------
    folder : Path
        For the models; all hosts see it.
    address : str
        The Ray cluster.
    servers : str
        ``ray.servers``.
    workloads : sequence of Workload
        What to ask.
    effort : Effort
        How long.
    """
    models, capacity = folder / "models", {"identity": max(workload.elements for workload in workloads)}
    publish(models)
    rows = []
    with ExitStack() as started:
        cluster = started.enter_context(closing(Cluster(address)))
        node = started.enter_context(closing(Node(cluster, models, capacity, transport="objectstore", servers=servers)))
        ours = started.enter_context(closing(CouplerShared("coupler-objectstore", node, copies=False)))
        systems = (ours, PutGet({} if servers == WITH_RANKS else {servers: 0.001}))
        for workload in workloads:
            rows.extend(_in_turns(workload, systems, effort, 1 if servers == WITH_RANKS else 2))
    return rows


class PutGet(LocalSystem):
    """Put a batch, have an actor get it and give it back, get that.

    Parameters
    ----------
    resources : dict
        Where the actor runs.
    """

    name = "ray-put-get"
    facts: dict[str, str | int | float] = {}  # noqa: RUF012, nothing more to say of it

    def __init__(self, resources: dict[str, float]) -> None:
        super().__init__()
        import ray

        actor: Any = ray.remote(_Echo)
        self._actor = actor.options(num_cpus=0, resources=resources).remote()
        ray.get(self._actor.answer.remote(np.zeros(1)))

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Go there and back."""
        import ray

        found: NDArray[np.float64] = ray.get(self._actor.answer.remote(ray.put(inputs)))
        return found


class _Echo:
    def answer(self, batch: NDArray[np.float64]) -> NDArray[np.float64]:
        return batch


def _in_turns(workload: Workload, systems: Sequence[LocalSystem], effort: Effort, hosts: int) -> list[Row]:
    repeats: dict[str, Repeat] = {}
    for system in systems:
        system.prepare(workload)
        workload.check(system.answered(1), workload.inputs(1), system.name)
        repeats[system.name] = system.repeat
    seconds = in_turns(repeats, effort)
    plain = float(np.median(seconds[PutGet.name]))
    facts = {"elements": workload.elements, "bytes": workload.bytes, "hosts": hosts}
    return [
        row(workload.case, name, each, **facts, of_put_get=plain / float(np.median(each)))
        for name, each in seconds.items()
    ]


def _across(hosts: Hosts, folder: Path) -> list[Row]:
    """Measure on the first host, with the server on the second."""
    surroundings = {"PYTHONPATH": str(_ROOT), "RAY_worker_niceness": "0"}
    hosts.start_ray([{}, {_FAR: 1}], surroundings)
    command = hosts.hosts[0].command([sys.executable, "-m", "benchmarks.objectstore", str(folder), hosts.ray_address])
    environment = {**os.environ, **surroundings, **hosts.environment}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the measurement on {hosts.hosts[0].name} failed:\n{done.stdout}")
    found: list[Row] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return found


def _main(folder: Path, address: str) -> None:
    rows = measure(folder, address, _FAR, WORKLOADS, EFFORT)
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
