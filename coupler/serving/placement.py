"""Cores of a node: which are left for the server and the trainer once the ranks have theirs."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

# What MPI launchers tell the processes they start.
_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True)
class CoreMap:
    """Who may run where on one node.

    Parameters
    ----------
    ranks : tuple of frozenset of int
        Cores of each rank of the node.
    services : frozenset of int
        Cores of server and trainer.
    cores : frozenset of int
        All cores the job may use.
    """

    ranks: tuple[frozenset[int], ...]
    services: frozenset[int]
    cores: frozenset[int]

    @property
    def oversubscribed(self) -> bool:
        """Whether ranks and server together are more than the cores."""
        return len(self.ranks) + 1 > len(self.cores)


def plan(ranks: Sequence[frozenset[int]], cores: frozenset[int]) -> CoreMap:
    """Give server and trainer the cores no rank is bound to, or all cores if there are none.

    Ranks stay where the MPI launcher bound them. A rank that may use every core is not bound.

    Parameters
    ----------
    ranks : sequence of frozenset of int
        Present affinity of every rank of the node.
    cores : frozenset of int
        All cores the job may use.
    """
    bound = frozenset().union(*(mine for mine in ranks if mine != cores))
    return CoreMap(ranks=tuple(ranks), services=(cores - bound) or cores, cores=cores)


@contextmanager
def all_cores() -> Iterator[frozenset[int]]:
    """Lift the launcher's binding of this rank for a moment, and say which cores the job may use at all.

    What is started inside does not inherit the one core of a bound rank. The job's cores are those of the launcher
    that started the ranks, so a binding of the user's own holds for ranks, server and trainer alike. Where a sandbox
    forbids it, nothing changes.

    Collective: no.
    """
    before = os.sched_getaffinity(0)
    if any(name in os.environ for name in _LAUNCHED):
        with suppress(OSError):
            os.sched_setaffinity(0, before | os.sched_getaffinity(os.getppid()))
    try:
        yield frozenset(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, before)
