"""The ranks of the rival over MPI: those that ask, and the one that answers."""

from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from benchmarks.harness.ranks import Worker
from benchmarks.harness.rivals.workload import MODELS, Forward, Workload
from benchmarks.harness.timing import each

# Tags of a question for each operator are its index; this one ends a turn.
_END = len(MODELS)
# Largest question that is asked.
_MOST_BYTES = 64 * 2**20


class Pair(Worker):
    """Rank 0 asks, rank 1 answers.

    Parameters
    ----------
    comm : MPI.Intracomm
        The two.
    models : str
        Where the models were published.
    """

    def __init__(self, comm: MPI.Intracomm, models: str) -> None:
        super().__init__(comm)
        self._workload: Workload
        self._client = MpiClient(comm, 1)
        self._server = MpiServer(comm, models)
        self._inputs = np.empty((0, 0))

    def prepare(self, **workload: Any) -> None:
        self._workload = Workload(**workload)
        self._inputs = self._workload.inputs()

    def answered(self, seed: int, path: str) -> None:
        if self.comm.rank == 1:
            self._server.serve(1)
            return
        np.save(path, self._client.answer(self._workload.operator, self._workload.inputs(seed)))
        self._client.leave()

    def repeat(self, times: int) -> list[float]:
        if self.comm.rank == 1:
            self._server.serve(1)
            return []
        seconds: list[float] = each(lambda: self._client.answer(self._workload.operator, self._inputs))(times).tolist()
        self._client.leave()
        return seconds


class MpiClient:
    """A rank that asks.

    Parameters
    ----------
    comm : MPI.Intracomm
        Where the server is.
    server : int
        Its rank.
    """

    def __init__(self, comm: MPI.Intracomm, server: int) -> None:
        self._comm, self._server = comm, server
        self._answer = np.empty((0, 0))

    def answer(self, operator: int, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Send a batch and receive its answer."""
        if self._answer.shape != inputs.shape:
            self._answer = np.empty(inputs.shape)
        self._comm.Send(inputs, dest=self._server, tag=operator)
        self._comm.Recv(self._answer, source=self._server)
        return self._answer

    def leave(self) -> None:
        """Tell the server that this rank asks no more in this turn."""
        self._comm.Send(np.empty(0), dest=self._server, tag=_END)


class MpiServer:
    """A rank that answers.

    Parameters
    ----------
    comm : MPI.Intracomm
        Where the questions come from.
    models : str
        Where the models were published.
    """

    def __init__(self, comm: MPI.Intracomm, models: str) -> None:
        self._comm, self._names = comm, list(MODELS)
        self._forward = Forward(models)
        self._space = np.zeros(_MOST_BYTES // 8)

    def serve(self, clients: int) -> None:
        """Answer whoever asks until that many ranks have left. Collective: yes, with those ranks."""
        status = MPI.Status()
        while clients:
            self._comm.Recv(self._space, MPI.ANY_SOURCE, MPI.ANY_TAG, status)
            if status.tag == _END:
                clients -= 1
                continue
            name = self._names[status.tag]
            inputs = self._space[: status.Get_count(MPI.DOUBLE)].reshape(-1, MODELS[name][1])
            self._comm.Send(self._forward.answer(name, inputs), dest=status.source)
