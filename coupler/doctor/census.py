"""The census: every rank says where it is and which cores it may use."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from coupler.cgroup import cpu_quota
from coupler.launcher import launched_processes
from coupler.serving.placement import all_cores

T = TypeVar("T")

_PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Rank:
    """One process of the job.

    Parameters
    ----------
    host : str
        Its node.
    bound : frozenset of int
        Cores it may use as it was started.
    reachable : frozenset of int
        Cores of the node that the job may use at all, as far as the system lets a process choose.
    quota : float or None
        Cores' worth of time the control group allows; None without a limit.
    threads : int or None
        ``OMP_NUM_THREADS``; None if unset.
    """

    host: str
    bound: frozenset[int]
    reachable: frozenset[int]
    quota: float | None
    threads: int | None


@dataclass(frozen=True)
class Census:
    """All processes of the job, as far as MPI can see.

    Parameters
    ----------
    ranks : tuple of Rank
        In the order of their ranks.
    rank : int
        This one.
    launched : int
        How many processes the launcher says it started; 1 without a launcher.
    failure : str
        Why MPI cannot be used; empty if it can.
    """

    ranks: tuple[Rank, ...]
    rank: int
    launched: int
    failure: str = ""


def take_census() -> Census:
    """Ask all ranks. Where MPI does not work it is this process alone.

    Collective: yes.
    """
    launched = launched_processes()
    failure = "" if launched > 1 else _mpi_failure()
    if not failure:
        try:
            from mpi4py import MPI

            world = MPI.COMM_WORLD
            return Census(tuple(world.allgather(_this_rank())), world.rank, launched)
        except (ImportError, RuntimeError) as error:
            failure = _last_line(str(error))
    return Census((_this_rank(),), 0, launched, failure)


def share(census: Census, value: T) -> T:
    """Give all ranks what rank 0 has.

    Collective: yes.
    """
    if census.failure or len(census.ranks) == 1:
        return value
    from mpi4py import MPI

    shared: T = MPI.COMM_WORLD.bcast(value)
    return shared


def gather(census: Census, value: T) -> list[T]:
    """Give rank 0 what every rank has, in the order of the ranks; the others get nothing.

    Collective: yes.
    """
    if census.failure or len(census.ranks) == 1:
        return [value]
    from mpi4py import MPI

    gathered: list[T] | None = MPI.COMM_WORLD.gather(value)
    return gathered or []


def speaks_for_all() -> bool:
    """Tell whether this process speaks for the job; without MPI every process does."""
    if "mpi4py.MPI" not in sys.modules:
        return True
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank == 0


def _mpi_failure() -> str:
    """Start MPI in a process of its own first: where it is broken it may end or stop the process instead of raising."""
    command = [sys.executable, "-c", "from mpi4py import MPI"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"MPI_Init did not return within {_PROBE_SECONDS:.0f} s"
    if finished.returncode == 0:
        return ""
    return _last_line(finished.stderr) or f"the process ended with status {finished.returncode}"


def _this_rank() -> Rank:
    bound = frozenset(os.sched_getaffinity(0))
    with all_cores() as reachable:
        pass
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return Rank(
        host=platform.node(),
        bound=bound,
        reachable=reachable,
        quota=cpu_quota(),
        threads=int(threads) if threads.isdigit() else None,
    )


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
