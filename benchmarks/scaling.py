"""A step on many nodes: a model whose constants are measured, held against runs on one, two and four hosts.

The hosts are network namespaces of this machine, each with a rank, a server and memory of its own, on the machine's
cores together: what a host may use of them is a part of the model. A run on one host gives what elements cost; runs on
two and on four are predicted from that and from messages between two hosts, and then made. The rest says what the same
model makes of clusters up to ten thousand nodes, of 64 ranks each, and which part of a step grows there first.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness.hosts import Hosts
from benchmarks.harness.ranks import one_thread
from benchmarks.harness.stepmodel import Costs, Layout, Step, Work, first_limit, predict
from benchmarks.harness.timing import Row, row
from coupler.learning.samples import SampleBatch
from coupler.ledger import RECORD, LedgerFile, read_ledger
from coupler.summary import read_summary

HOSTS = (1, 2, 4)
SIDE = 64
SECONDS = 6.0
# A run that teaches its model takes so many steps before anything is measured.
_FIRST_STEPS, _LEAST_STEPS, _MOST_STEPS = 60, 100, 1000
_RUN_SECONDS = 900.0
_ROOT = Path(__file__).resolve().parents[1]
_SERVING = "serving"
# What the file system that all nodes share answers in a second, of whole clusters: assumed, there is none here.
LOOKS_PER_SECOND = 1e5
# A cluster's node: ranks and cores, and what a rank has to do in a step of the truth's seconds per element.
NODE_RANKS, NODE_CORES, NODES = 64, 72, (1, 4, 16, 64, 256, 1024, 4096, 10000)
CLUSTER = Work(elements=4096, own=60e-9, fixed=100e-6, truth=20e-6, model=0.7e-6)
# Cores of a node on which the models run: a server's threads, or none because they are inside of the ranks.
WAYS = {"one-core": 1.0, "eight-cores": 8.0, "inside": 0.0}
# A cluster's network instead of a switch made of software [s, s/byte].
NETWORK = {"latency": 1.5e-6, "overhead": 0.5e-6, "byte": 1 / 12e9, "hop": 4e-6, "noise": 0.01}


@dataclass(frozen=True)
class Layer:
    """How models are reached in a series of runs: from a server on every host, or from the first host's."""

    name: str
    settings: tuple[str, ...]
    hosts: tuple[int, ...]


LAYERS = (
    Layer("with-ranks", (), HOSTS),
    Layer("one-server", (f"ray.servers={_SERVING}",), (2,)),
)


def run() -> list[Row]:
    """Measure constants, predict, measure, and go on to where nobody can measure here.

    Returns
    -------
    list of mapping
        ``constant/NAME`` with the constants as ``value``; ``WAY/hosts/N`` with systems ``measured`` and ``model`` [s
        per step]; ``node/WAY`` with the ways of reaching models on one full node; ``cluster/N`` with system ``model``.
        Rows of the model have the parts of its step as columns, and those of clusters ``limit`` and ``limit_nodes``:
        what one place does for all and takes more than a tenth of a step first, and from how many nodes on.
    """
    with tempfile.TemporaryDirectory(prefix="coupler-bench-", dir="/tmp") as name:
        folder = Path(name)
        found = _measure(folder)
    return [*found, *cluster(costs_of(found))]


def costs_of(rows: Sequence[Row]) -> Costs:
    """Take the constants from the rows that hold them."""
    return Costs(**{str(one["case"]).partition("/")[2]: float(one["value"]) for one in rows if "value" in one})


def cluster(here: Costs) -> list[Row]:
    """Predict steps on clusters with the software's constants of here and a cluster's network."""
    costs = replace(here, **NETWORK)
    rows = []
    for way, servers in WAYS.items():
        step = predict(costs, Layout(1, NODE_RANKS, NODE_CORES, servers), CLUSTER)
        rows.append(row(f"node/{way}", "model", np.array([step.seconds]), **_parts(step)))
    inside = Layout(1, NODE_RANKS, NODE_CORES, WAYS["inside"])
    limit = first_limit(costs, inside, CLUSTER)
    facts: dict[str, str | int] = {} if limit is None else {"limit": limit.what, "limit_nodes": limit.nodes}
    for nodes in NODES:
        step = predict(costs, replace(inside, nodes=nodes), CLUSTER)
        rows.append(row(f"cluster/{nodes}", "model", np.array([step.seconds]), **_parts(step), **facts))
    return rows


def _parts(step: Step) -> dict[str, float]:
    return {f"{field.name}_s": getattr(step, field.name) for field in fields(step)}


def _measure(folder: Path) -> list[Row]:
    costs = Costs(
        **_messages(folder), **_arena(), **_of_rank_0(folder), look=1 / LOOKS_PER_SECOND, read=1 / LOOKS_PER_SECOND
    )
    rows: list[Row] = [
        {"case": f"constant/{name}", "system": "coupler", "value": value} for name, value in asdict(costs).items()
    ]
    cores = len(os.sched_getaffinity(0))
    work: Work | None = None
    for layer in LAYERS:
        for hosts in layer.hosts:
            found = _Run.of(hosts, layer, folder / f"{layer.name}-{hosts}")
            work = work or found.work()  # the first is that on one host
            layout = Layout(hosts, 1, cores / hosts, 1.0 if layer.name == "with-ranks" else 1.0 / hosts)
            # What disturbs this machine disturbs all its hosts at once.
            step = predict(replace(costs, noise=0.0), layout, _on_hosts(work, hosts))
            case = f"{layer.name}/hosts/{hosts}"
            rows += [
                row(case, "measured", found.step_seconds, elements=SIDE * SIDE),
                row(case, "model", np.array([step.seconds]), **_parts(step)),
            ]
    return rows


def _on_hosts(work: Work, hosts: int) -> Work:
    """Give the work of a rank of these runs: nothing trains while they are measured."""
    messages = 0 if hosts == 1 else 4
    return replace(
        work, training_share=0.0, training_steps=float("inf"), halo_messages=messages, halo_bytes=4 * 8 * SIDE
    )


@dataclass(frozen=True)
class _Run:
    """A run on some hosts, one rank each."""

    folder: Path
    step_seconds: Any

    @classmethod
    def of(cls, hosts: int, layer: Layer, folder: Path) -> "_Run":
        """Make it, first short to see how long steps are, then as long as is measured."""
        folder.mkdir()
        with closing(Hosts(hosts, folder)) as machines:
            machines.start_ray([{_SERVING: 1} if number == 0 else {} for number in range(hosts)], _surroundings())
            settings = (f"ray.address={machines.ray_address}", f"grid.shape=[{SIDE * hosts}, {SIDE}]", *layer.settings)
            _start(machines, hosts, settings, folder / "short", _FIRST_STEPS + _LEAST_STEPS)
            steps = int(np.clip(SECONDS / _steps(folder / "short").mean(), _LEAST_STEPS, _MOST_STEPS))
            _start(machines, hosts, settings, folder / "run", _FIRST_STEPS + steps)
        return cls(folder / "run", _steps(folder / "run"))

    def work(self) -> Work:
        """Say what elements cost in this run, from its ledger and its summary, after the model took over."""
        rows = read_ledger(self.folder / "ledger.h5")
        rows = rows[rows["step"] > _FIRST_STEPS]
        elements, steps = SIDE * SIDE, len(rows)
        truths = rows["audits"].sum()
        truth = rows["truth_seconds"].sum() / truths
        model = median(rows["model_seconds"]) / elements
        summary = read_summary(self.folder / "summary.json")
        assert summary.ranks == 1, summary.ranks
        share = truths / (steps * elements)
        # What is left of a step once truth, waiting and model are taken away.
        step = float(np.median(self.step_seconds))
        own = step - median(rows["truth_seconds"]) - median(rows["wait_seconds"])
        return Work(
            elements=elements,
            own=own / elements,
            fixed=0.0,
            truth=truth,
            model=model,
            audited=share,
            fallback=0.0,
            question=32.0,
        )


def _steps(folder: Path) -> Any:
    """Give the seconds per step in ten stretches of a run, after its model took over."""
    ends = [json.loads(line)["seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    marks = np.linspace(_FIRST_STEPS, len(ends) - 1, 11).astype(int)
    return np.diff(np.array(ends)[marks]) / np.diff(marks)


def _start(machines: Hosts, hosts: int, settings: Sequence[str], out: Path, steps: int) -> None:
    case = {
        "run.steps": steps,
        "run.dt": 0.01,
        "kernel.name": f"{_ROOT}/benchmarks/harness/toil.py:Toil",
        "surrogate.params": "{ members = 2, width = 32, depth = 2, epochs = 5 }",
        "controller.mode": "surrogate",
        "controller.economics": "off",
        "learning.mode": "deterministic",
        "learning.lag": 2,
        "learning.first": 8000,
        "learning.buffer": 100_000,
        "learning.growth": 0.99,
        "exchange.sharing": "off",
        "output.pictures": "false",
    }
    chosen = [f"{key}={value}" for key, value in case.items()]
    overrides = [word for setting in (*chosen, *settings) for word in ("--set", setting)]
    empty = out.with_suffix(".toml")
    empty.touch()
    command = [sys.executable, "-m", "coupler", "run", str(empty), *overrides, "--out", str(out)]
    _mpirun(machines, hosts, command)


def _messages(folder: Path) -> dict[str, float]:
    """Measure messages between two hosts."""
    place = folder / "messages"
    place.mkdir()
    with closing(Hosts(2, place)) as machines:
        _mpirun(machines, 2, [sys.executable, "-m", "benchmarks.harness.messages", str(place / "found.json")])
        found: dict[str, float] = json.loads((place / "found.json").read_text(encoding="utf-8"))
    return found


def _mpirun(machines: Hosts, hosts: int, command: Sequence[str]) -> None:
    done = subprocess.run(
        machines.mpirun([1] * hosts, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_RUN_SECONDS,
        env={**os.environ, **_surroundings(), **machines.environment},
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"on {hosts} hosts this failed: {' '.join(command)}\n{done.stdout[-4000:]}")


def _surroundings() -> dict[str, str]:
    return {**one_thread(), "PYTHONPATH": str(_ROOT), "OMPI_MCA_mpi_yield_when_idle": "1", "RAY_worker_niceness": "0"}


def _arena() -> dict[str, float]:
    """Take round trips from the benchmarks that are about them, as they were recorded."""
    results = _ROOT / "benchmarks" / "results" / "2026-11-epyc"
    exchange, far = (json.loads((results / f"{name}.json").read_text()) for name in ("exchange", "objectstore"))
    small, large = (_of(far, case, "coupler-objectstore") for case in ("identity/4KiB", "identity/16MiB"))
    return {
        "round_trip": _of(exchange, "identity/4KiB", "coupler-shared"),
        "relay": small,
        "relay_byte": (large - small) / (2 * 16 * 2**20),
    }


def _of(rows: Sequence[Row], case: str, system: str) -> float:
    return next(float(one["median_s"]) for one in rows if (one["case"], one["system"]) == (case, system))


def _of_rank_0(folder: Path) -> dict[str, float]:
    """Measure what rank 0 does for everybody: a ledger record, and the samples of a rank."""
    ranks, steps = 500, 100
    gathered = np.zeros(ranks * steps, RECORD)
    gathered["step"] = np.tile(np.arange(steps), ranks)
    ledger = LedgerFile(folder / "ledger.h5", ["decay"])
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        parts = np.split(gathered.view(np.uint8), ranks)
        ledger.append(np.concatenate(parts).view(RECORD))
        seconds.append(time.perf_counter() - started)
    ledger.close()
    rows, numbers = np.zeros((2, 2)), np.zeros(2, np.int64)
    few = [SampleBatch(rows, rows[:, 0], rows[:, :1], numbers, numbers, numbers, np.zeros(2, np.uint8))]
    message = pickle.dumps(few)
    started = time.perf_counter()
    batches = [batch for _ in range(2000) for batch in pickle.loads(message)]  # noqa: S301, our own, a line above
    SampleBatch.join(batches)
    return {"record": median(seconds) / len(gathered), "batch": (time.perf_counter() - started) / 2000}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
