"""The launcher: what mpirun and its likes tell those they start, and what a process settles before MPI is there.

Nothing here imports MPI: what is asked must be known before it is, or although it cannot be.
"""

import os
from collections.abc import Mapping

# Under which names launchers tell which of the processes this is, and how many there are.
_RANK = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# What one process needs no messages for, several do.
_OF_ONE_PROCESS = ("OMPI_MCA_btl", "self")


def is_rank() -> bool:
    """Tell whether this process is one of a job of MPI. Collective: no."""
    return any(name in os.environ for name in _RANK)


def is_launched() -> bool:
    """Tell whether a launcher or batch system has started this process or the shell it is in. Collective: no."""
    return any(name in os.environ for name in _SIZE)


def is_first_rank() -> bool:
    """Tell whether this process is the first of its job, by the launcher's account, or alone. Collective: no."""
    return next((os.environ[name] for name in _RANK if name in os.environ), "0") == "0"


def launched_processes() -> int:
    """Say how many processes the launcher started, by its own account; 1 where it says nothing. Collective: no."""
    counts = [int(value) for name in _SIZE if (value := os.environ.get(name, "")).isdigit()]
    return max(counts, default=1)


def share_the_node() -> None:
    """Have one thread per process, and MPI waits that give the core away: ranks, server and trainer share a node.

    Called before numpy and MPI are loaded; what the user has decided stays. Collective: no.
    """
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")


def keep_to_itself() -> None:
    """Without a launcher, have Open MPI map no memory for messages: 16 MiB of it stay behind (open-mpi/ompi#13261).

    Called before MPI is loaded. Collective: no.
    """
    name, value = _OF_ONE_PROCESS
    if not is_rank():
        os.environ.setdefault(name, value)


def for_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of ranks that a process with this one starts: they may send messages. Collective: no."""
    return {name: value for name, value in environment.items() if (name, value) != _OF_ONE_PROCESS}
