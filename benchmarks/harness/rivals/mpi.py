"""The rival over MPI: two ranks, one of them the server, ``Send`` and ``Recv`` on whole arrays."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.ranks import Crew
from benchmarks.harness.rivals.system import System
from benchmarks.harness.rivals.workload import DEADLINE, Workload


class MpiSendRecv(System):
    """Two ranks under mpirun; between turns they sleep on their lines to this process.

    Parameters
    ----------
    models : Path
        Where the models were published.
    """

    def __init__(self, models: Path) -> None:
        self.name, self.facts = "mpi-sendrecv", {"copies": "in+out", "forward": "same"}
        # Where every rank has its core, MPI's own default is to spin without yielding.
        spins = {"OMPI_MCA_mpi_yield_when_idle": "0"} if len(os.sched_getaffinity(0)) > 1 else {}
        self._ranks = Crew("benchmarks.harness.rivals.mpi_ranks:Pair", 2, environment=spins, models=str(models))

    def prepare(self, workload: Workload) -> None:
        """Draw the batch in the rank that asks."""
        self._ranks.call("prepare", case=workload.case, model=workload.model, elements=workload.elements)

    def answered(self, seed: int) -> NDArray[np.float64]:
        """Have a batch answered; the answer comes here by a file."""
        with TemporaryDirectory(prefix="coupler-bench-") as folder:
            path = Path(folder) / "answer.npy"
            self._ranks.call("answered", seed=seed, path=str(path), within=DEADLINE)
            answer: NDArray[np.float64] = np.load(path)
        return answer

    def repeat(self, times: int) -> NDArray[np.float64]:
        """Time round trips in the rank that asks."""
        return np.array(self._ranks.call("repeat", times=times, within=DEADLINE)[0])

    def close(self) -> None:
        """End the ranks."""
        self._ranks.close()
