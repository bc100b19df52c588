"""What it costs that a run can be lost nowhere: a checkpoint, and the processes that look after the others.

``checkpoint/CELLS/ranks/N`` are spiral waves that learn on the way, with 64 x 64 and with 128 x 128 cells per rank, and
write a checkpoint every twenty steps: how much longer the gap after such a step is than those after others. At one per
minute, the default, that is ``share`` of the run.

``supervision/CELLS/ranks/N`` is the processor time that supervisor and reaper take meanwhile (``coupler``), and Ray's
own processes (``ray``), servers and trainer aside: ``share`` of a core, ``node_share`` of the cores that there are.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import spirals
from benchmarks.harness.ranks import Crew, Worker
from benchmarks.harness.timing import Row, row
from coupler.config import case_from
from coupler.field import State
from coupler.grid import Grid
from coupler.kernel import Evaluate
from coupler.kernels.bz import BZ
from coupler.simulation import Simulation

RANKS = (2,)
CELLS = (64, 128)
STEPS, EVERY = 600, 20
_WARM_STEPS = 100
# Checkpoints by the clock are this far apart [s].
_MINUTE = 60.0
_RUN_SECONDS = 900.0
# They do the run's work; the others look after it.
_WORKERS = ("ray::Server", "ray::TrainingActor")
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def run(ranks: Sequence[int] = RANKS, cells: Sequence[int] = CELLS, steps: int = STEPS) -> list[Row]:
    """Time checkpoints, and count what the processes beside the ranks take.

    Returns
    -------
    list of mapping
        ``case``, ``system`` (``coupler``, ``ray``), ``n``; of checkpoints ``median_s``, ``p10_s``, ``p90_s`` and
        ``share``, of supervision ``share``, ``node_share`` and ``seconds``, for how long it was watched.
    """
    rows: list[Row] = []
    for count in ranks:
        for across in cells:
            rows += _measured(count, across, steps)
    return rows


def _measured(ranks: int, cells: int, steps: int) -> list[Row]:
    with Crew(f"{__file__}:Watcher", ranks) as crew:
        everyone = crew.call("run", within=_RUN_SECONDS, cells=cells, steps=steps)
    gaps = np.max([rank["gaps"] for rank in everyone], axis=0)
    writing = (np.arange(len(gaps)) + 1) % EVERY == 0
    costs = gaps[writing][_WARM_STEPS // EVERY :] - np.median(gaps[~writing][_WARM_STEPS:])
    place, watched = f"{cells}x{cells}/ranks/{ranks}", everyone[0]["watched"]
    shares = {system: spent / watched for system, spent in everyone[0]["spent"].items()}
    rows = [row(f"checkpoint/{place}", "coupler", costs, share=float(np.median(costs)) / _MINUTE)]
    for system, share in shares.items():
        facts = {"share": share, "node_share": share / len(os.sched_getaffinity(0)), "seconds": watched}
        rows.append({"case": f"supervision/{place}", "system": system, "n": 1, **facts})
    return rows


class Watcher(Worker):
    """A rank that runs a simulation and watches the clock between its steps, and rank 0 the processes beside it."""

    def run(self, cells: int, steps: int) -> dict[str, Any]:
        """Run, and give the seconds from each step's end to the next one's begin, and what the others took."""
        asked = spirals.sections(self.comm.size, cells, steps + 1) | {"controller": {"economics": "off"}}
        asked["run"] |= {"checkpoint_every": EVERY, "checkpoint_seconds": 0.0}
        case, kernel = case_from(asked, folder=Path.cwd()), Watched(steps)
        with (
            spirals.folder_of_all(self.comm) as folder,
            closing(Simulation(case, comm=self.comm, kernel=kernel, out=folder / "run")) as simulation,
        ):
            simulation.run()
        begun, ended = np.array(kernel.begun), np.array(kernel.ended)
        return {
            "gaps": (begun[1:] - ended[:-1]).tolist(),
            "watched": float(begun[-1] - begun[_WARM_STEPS]),
            "spent": kernel.spent,
        }


class Watched(BZ):
    """Spiral waves that note when each step begins and ends.

    Attributes
    ----------
    begun, ended : list of float
        When [s].
    spent : dict of str to float
        Processor time that those who look after the run, and Ray, took from when it was warm to the last step [s].
    """

    def __init__(self, last: int) -> None:
        super().__init__(**spirals.PARAMETERS)
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.spent: dict[str, float] = {}
        self._last, self._before = last, dict[int, _Spent]()

    def step(self, state: State, grid: Grid, dt: float, evaluate: Evaluate) -> None:
        """Make a step."""
        if len(self.begun) == _WARM_STEPS:
            self._before = _processor_time()
        if len(self.begun) == self._last:
            for pid, now in _processor_time().items():
                before = self._before.get(pid, _Spent(now.system, 0.0))
                self.spent[now.system] = self.spent.get(now.system, 0.0) + now.seconds - before.seconds
        self.begun.append(time.perf_counter())
        super().step(state, grid, dt, evaluate)
        self.ended.append(time.perf_counter())


@dataclass(frozen=True)
class _Spent:
    """The processor time of a process [s], and whose it is."""

    system: str
    seconds: float


def _processor_time() -> dict[int, _Spent]:
    """Give what everything that looks after runs on this node has taken, by process."""
    found: dict[int, _Spent] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ours, rays = "coupler.serving" in command, "coupler-ray-" in command or command.startswith("ray::")
        if (ours or rays) and not command.startswith(_WORKERS):
            seconds = (int(fields[11]) + int(fields[12])) * _TICK
            found[int(entry.name)] = _Spent("coupler" if ours else "ray", seconds)
    return found
