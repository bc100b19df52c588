"""Who shares a node with whom: the ranks of a node share one arena and one server, led by one of them."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from mpi4py import MPI

from coupler.errors import CouplerError
from coupler.openmpi import guard
from coupler.serving.placement import all_cores

T = TypeVar("T")
# How long ranks that fail alike may be apart [s].
_PARTING_SECONDS = 2.0
# How often who waits asleep for other ranks looks for them, at first and after a while [s].
_SHORTEST_SECONDS, _LOOK_SECONDS = 1e-4, 0.01


@dataclass(frozen=True)
class Nodes:
    """This rank's place in the job.

    Parameters
    ----------
    job : MPI.Intracomm
        All ranks, a communicator of our own.
    node : MPI.Intracomm
        The ranks of this node.
    count : int
        Nodes in all.
    """

    job: MPI.Intracomm
    node: MPI.Intracomm
    count: int

    @classmethod
    def of(cls, comm: MPI.Intracomm) -> "Nodes":
        """Split a communicator by node. Collective: yes, over ``comm``."""
        job = comm.Dup()
        node = MPI.Intracomm(job.Split_type(MPI.COMM_TYPE_SHARED))
        return cls(job=job, node=node, count=job.allreduce(int(node.rank == 0)))

    @property
    def first(self) -> bool:
        """Whether this is rank 0 of the job."""
        return self.job.rank == 0

    @property
    def leads(self) -> bool:
        """Whether this rank acts for its node."""
        return self.node.rank == 0

    def core_sets(self) -> list[frozenset[int]]:
        """Affinity of every rank of this node. Collective: yes, over the node."""
        return [frozenset(cores) for cores in self.node.allgather(sorted(os.sched_getaffinity(0)))]

    def close(self) -> None:
        """Free the communicators. Collective: yes."""
        self.node.Free()
        self.job.Free()


def guard_job(comm: MPI.Intracomm | None) -> None:
    """Have what a job has on every node removed if it is still there a moment after the node's first rank has ended.

    Parameters
    ----------
    comm : MPI.Intracomm or None
        The ranks; None is the world. Where they have a guard already, it stays.

    Collective: yes.
    """
    node = (comm or MPI.COMM_WORLD).Split_type(MPI.COMM_TYPE_SHARED)
    if node.rank == 0:
        guard()
    node.Free()


def together(comm: MPI.Intracomm, work: Callable[[], T]) -> T:
    """Do something on every rank; if it fails on one, fail on all with that rank's error.

    Without this, one rank raises and the others wait for it for ever. They wait asleep.

    Collective: yes, over ``comm``.
    """
    result: T | None = None
    failure: CouplerError | None = None
    try:
        result = work()
    except CouplerError as error:
        failure = error
    except Exception as error:  # noqa: BLE001, whatever it is, the other ranks must hear of it
        traceback.print_exc()
        failure = CouplerError(f"rank {comm.rank}: {type(error).__name__}: {error}")
    meet(comm)
    for one in comm.allgather(failure):
        if one is not None:
            raise one
    return result  # type: ignore[return-value]


def meet(comm: MPI.Intracomm) -> None:
    """Wait for all ranks without taking a core: what one of them waits for may need it, as servers do that start.

    A blocking call of MPI spins. At the priority of ranks that leaves actors of a Ray cluster, which are nice, nothing.

    Collective: yes, over ``comm``.
    """
    everyone, pause = comm.Ibarrier(), _SHORTEST_SECONDS
    while not everyone.Test():
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_SECONDS)


def on_first(comm: MPI.Intracomm, work: Callable[[], T]) -> T:
    """Do something on rank 0 of a communicator and give all its ranks the result, or the same error.

    Collective: yes, over ``comm``.
    """
    return comm.bcast(together(comm, lambda: work() if comm.rank == 0 else None))  # type: ignore[no-any-return]


def part(message: str, code: int) -> NoReturn:
    """End this rank over a mistake that all ranks should have met alike: said once if they did, an abort if not.

    Collective: yes, if all goes well; a rank that waits in vain ends the others.
    """
    comm = MPI.COMM_WORLD
    said = MPI.Is_finalized() or comm.size == 1 or comm.rank == 0
    if said:
        print(message, file=sys.stderr, flush=True)
    if not MPI.Is_finalized() and comm.size > 1:
        everyone = comm.Ibarrier()
        ends = time.monotonic() + _PARTING_SECONDS
        while not everyone.Test():
            if time.monotonic() > ends:
                abort("" if said else message, code)
            time.sleep(_LOOK_SECONDS)
    sys.exit(code)


def abort(message: str, code: int) -> NoReturn:
    """End all ranks with a message: one that fails alone would leave the others waiting for ever.

    Collective: no; that is the point.
    """
    if message:
        print(message, file=sys.stderr, flush=True)
    if MPI.COMM_WORLD.size > 1 and not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(code)
    sys.exit(code)


def crowded(node: MPI.Comm) -> bool:
    """Say whether ranks and server of a node together are more than its cores. Collective: no."""
    with all_cores() as cores:
        return node.size + 1 > len(cores)
