"""The ranks of ``step``: each works for a while, has a small batch answered, and so on; by any of the systems."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numba import njit
from numpy.typing import NDArray

from benchmarks.harness.ranks import Worker
from benchmarks.harness.rivals.mpi_ranks import MpiClient, MpiServer
from benchmarks.harness.rivals.ours import inprocess, line
from benchmarks.harness.rivals.rays import NAMESPACE, ask_forwarder
from benchmarks.harness.rivals.sockets import UnixSocketClient, ZeroMqClient
from benchmarks.harness.rivals.workload import DEADLINE, DT, VERSION, Answer, Forward, Workload
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, SlotShape, Transport
from coupler.exchange.segment import SegmentAddress
from coupler.serving.cluster import Cluster

# How often the loop that stands for work is timed to find its length.
_CALIBRATIONS = 50
_CALIBRATION_LOOPS = 20_000


class Stepper(Worker):
    """A rank that steps; in ``mpi-sendrecv`` the last one answers the others.

    Parameters
    ----------
    comm : MPI.Intracomm
        Ranks that step, and one more if ``serves``.
    models : str
        Where the models were published.
    workload : dict
        Of :class:`Workload`: what a step asks.
    serves : bool
        Whether the last rank is a server and steps never.
    """

    def __init__(self, comm: MPI.Intracomm, models: str, workload: dict[str, Any], serves: bool) -> None:
        super().__init__(comm)
        self._models, self._workload = models, Workload(**workload)
        self._stepping = comm.size - serves
        self._among = comm.Split(0 if comm.rank < self._stepping else 1, comm.rank)
        self._server = MpiServer(comm, models) if comm.rank >= self._stepping else None
        self._inputs = self._workload.inputs(comm.rank)
        self._asks: dict[str, Answer | None] = {"compute": None}
        self._closing: list[Callable[[], object]] = []
        _work(1)

    def connect(self, system: str, **how: Any) -> None:
        """Open this rank's line of a system, and look whether its answers are right."""
        if self._server is not None:
            if system == "mpi-sendrecv":
                self._server.serve(self._stepping)
            return
        ask = getattr(self, f"_{system.replace('-', '_')}")(**how)
        expected = Forward(self._models).answer(self._workload.model, self._inputs)
        self._workload.check(ask(self._inputs), expected, system)
        self._asks[system] = ask
        if system == "mpi-sendrecv":
            self._client.leave()

    def calibrate(self) -> float:
        """Time the loop that stands for work, alone: seconds of one turn of it, the least of many."""
        best = np.inf
        for _ in range(_CALIBRATIONS):
            before = time.perf_counter()
            _work(_CALIBRATION_LOOPS)
            best = min(best, time.perf_counter() - before)
        return best / _CALIBRATION_LOOPS

    def step(self, system: str, steps: int, loops: int) -> list[float]:
        """Do so many steps and give the seconds of each: work, then an exchange. Collective: yes."""
        if self._server is not None:
            if system == "mpi-sendrecv":
                self._server.serve(self._stepping)
            return []
        seconds = np.empty(steps)
        ask, inputs = self._asks[system], self._inputs
        gc.disable()
        self._among.Barrier()
        before = time.perf_counter()
        for index in range(steps):
            _work(loops)
            if ask is not None:
                ask(inputs)
            now = time.perf_counter()
            seconds[index], before = now - before, now
        gc.enable()
        if system == "mpi-sendrecv":
            self._client.leave()
        found: list[float] = seconds.tolist()
        return found

    def close(self) -> None:
        """Close all lines."""
        for close in self._closing:
            close()

    def _coupler_shared(self, address: list[int], layout: list[list[int]]) -> Answer:
        shapes = ArenaLayout(tuple(SlotShape(*shape) for shape in layout))
        arena = Arena.attach(ArenaAddress(SegmentAddress(*address), shapes))
        transport = line(arena, self._workload.operator, self.comm.rank)
        self._closing += [transport.close, arena.close]
        return _over(transport)

    def _coupler_inprocess(self) -> Answer:
        return _over(inprocess(Path(self._models), self._workload.model, self._workload.elements))

    def _inprocess_eager(self) -> Answer:
        forward, model = Forward(self._models, "eager"), self._workload.model
        return lambda inputs: forward.answer(model, inputs)

    def _unix_socket(self, path: str) -> Answer:
        client, operator = UnixSocketClient(path), self._workload.operator
        self._closing.append(client.close)
        return lambda inputs: client.answer(operator, inputs)

    def _zeromq(self, path: str) -> Answer:
        client, operator = ZeroMqClient(path), self._workload.operator
        self._closing.append(client.close)
        return lambda inputs: client.answer(operator, inputs)

    def _mpi_sendrecv(self) -> Answer:
        self._client = MpiClient(self.comm, self._stepping)
        operator = self._workload.operator
        return lambda inputs: self._client.answer(operator, inputs)

    def _ray_actor(self, address: str, name: str) -> Answer:
        cluster = Cluster(address)
        self._closing.append(cluster.close)
        import ray

        actor, model = ray.get_actor(name, namespace=NAMESPACE), self._workload.model
        return lambda inputs: ask_forwarder(actor, model, inputs)


def idle(comm: MPI.Intracomm, models: str, seconds: float) -> float:
    """Give the share of a core that a rank uses that waits in MPI for a question. Collective: yes."""
    if comm.rank == 0:
        time.sleep(seconds)
        MpiClient(comm, 1).leave()
        return 0.0
    server = MpiServer(comm, models)
    wall, used = time.perf_counter(), time.process_time()
    server.serve(1)
    return (time.process_time() - used) / (time.perf_counter() - wall)


def _over(transport: Transport) -> Answer:
    def ask(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        transport.inputs(len(inputs))[...] = inputs
        transport.ask(len(inputs), DT, VERSION)
        answer = transport.answer(DEADLINE)
        assert answer.arrived, answer.reason.sentence
        return answer.mean

    return ask


@njit(cache=True)
def _work(loops):  # type: ignore[no-untyped-def]
    """Stand for a kernel: arithmetic that no compiler can leave out, without memory."""
    x = 0.3
    for _ in range(loops):
        x = 3.7 * x * (1.0 - x)
    return x
