"""Sharing truth on a node against leaving it where it lies, and against spreading it evenly by MPI.

The truth is the stiff reaction of spiral waves, whose elements differ in cost. In the cases ``one-of-N`` all of them
are rank 0's, sorted by place as a subdomain has them; in ``even-on-N`` every rank has its share, and there is little to
gain. A repetition is what a step is: all ranks begin together, and it has ended when the last one is through.

``coupler-off`` computes on each rank what it has, ``coupler-sharing`` is what ``exchange.sharing = "on"`` does, and
``mpi-scatter`` hands every rank the same number of elements with ``Scatterv`` and collects them with ``Gatherv``.
"""

import os
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.ranks import Crew, Worker
from benchmarks.harness.spirals import DT, PARAMETERS
from benchmarks.harness.timing import Effort, Row, in_turns, row

CELLS = 96
EFFORT = Effort(rounds=5, seconds=0.5, least=5, most=100)
# Where every rank has its share there is nothing to scatter.
SYSTEMS = {False: ("coupler-off", "coupler-sharing", "mpi-scatter"), True: ("coupler-off", "coupler-sharing")}

Floats = NDArray[np.float64]


def run() -> list[Row]:
    """Time a step on two and on four ranks.

    Returns
    -------
    list of mapping
        ``case``, ``system``, ``n``, ``median_s``, ``p10_s``, ``p90_s`` of the slowest rank's step; ``speedup`` over
        ``coupler-off``, ``elements``, and the ``cores`` there were.
    """
    return [found for ranks in (2, 4) for even in (False, True) for found in _case(ranks, even)]


def _case(ranks: int, even: bool) -> list[Row]:
    with Crew(f"{__file__}:Rank", ranks, even=even) as crew:

        def steps(system: str, times: int) -> Floats:
            return np.max(crew.call("steps", within=300.0, system=system, times=times), axis=0)

        seconds = in_turns({name: partial(steps, name) for name in SYSTEMS[even]}, EFFORT)
    alone = float(np.median(seconds["coupler-off"]))
    return [
        row(
            f"{'even-on' if even else 'one-of'}-{ranks}",
            name,
            found,
            speedup=alone / float(np.median(found)),
            elements=CELLS * CELLS,
            cores=len(os.sched_getaffinity(0)),
        )
        for name, found in seconds.items()
    ]


class Rank(Worker):
    """One rank with its elements.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks.
    even : bool
        Whether each has its share of the elements, or the first has all.
    """

    def __init__(self, comm: Any, even: bool) -> None:
        from coupler.coupling.nodes import Nodes
        from coupler.coupling.sharing import open_workshop
        from coupler.kernels.bz import BZ

        super().__init__(comm)
        self._reaction = BZ(**PARAMETERS).reaction
        cells = comm.bcast(_cells() if comm.rank == 0 else None)
        share = slice(comm.rank, None, comm.size) if even else slice(None if comm.rank == 0 else 0)
        self._mine = np.ascontiguousarray(cells[share])
        self._expected = self._reaction.evaluate_truth(self._mine, DT)
        self._nodes = Nodes.of(comm)
        (self._bench,) = open_workshop(self._nodes, [self._reaction], [len(cells)])
        self._counts = [len(part) for part in np.array_split(np.arange(len(cells)), comm.size)]
        self._part = np.empty((self._counts[comm.rank], cells.shape[1]))
        self._step = 0

    def steps(self, system: str, times: int) -> list[float]:
        """Make so many steps and give the seconds of each on this rank."""
        step = self._scattered if system == "mpi-scatter" else self._coupled
        self._bench.on = system == "coupler-sharing"
        seconds = []
        for _ in range(times):
            self._step += 1
            self.comm.Barrier()
            started = time.perf_counter()
            outputs = step()
            self.comm.Barrier()
            seconds.append(time.perf_counter() - started)
            assert outputs.tobytes() == self._expected.tobytes(), system
        return seconds

    def close(self) -> None:
        """Free the communicators."""
        self._nodes.close()

    def _coupled(self) -> Floats:
        self._bench.enter(self._step, 0)
        outputs = self._bench.evaluate(self._mine, DT)
        self._bench.help()
        return outputs

    def _scattered(self) -> Floats:
        columns = self._part.shape[1]
        sizes = [columns * count for count in self._counts]
        first = self.comm.rank == 0
        self.comm.Scatterv([self._mine, sizes] if first else None, self._part)  # as many columns in as out
        results = self._reaction.evaluate_truth(self._part, DT)
        outputs = np.empty_like(self._expected)
        self.comm.Gatherv(results, [outputs, sizes] if first else None)
        return outputs


def _cells() -> Floats:
    """Draw a grid on which spirals have turned once, by place."""
    from mpi4py import MPI

    from coupler.grid import Grid
    from coupler.kernel import evaluate_truth, gather
    from coupler.kernels.bz import BZ

    kernel = BZ(**PARAMETERS)
    with Grid((CELLS, CELLS), length=(72.0, 72.0), periodic=False, halo=kernel.halo, comm=MPI.COMM_SELF) as grid:
        state = grid.state(kernel.fields)
        kernel.start(state, grid)
        for _ in range(200):
            kernel.step(state, grid, DT, evaluate_truth)
        return gather(kernel.reaction, state)


def main() -> None:
    """Run, and print a line per system."""
    for found in run():
        print(f"{found['case']:12} {found['system']:16} {found['median_s']:.3e} s  {found['speedup']:.2f}x")


if __name__ == "__main__":
    main()
