"""mpirun: how coupler is called on several ranks by a process that is none of them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coupler.doctor.launcher import OPEN_MPI, family_of_launcher
from coupler.errors import ConfigError
from coupler.launcher import for_ranks, is_rank


def mpirun_command(ranks: int, arguments: Sequence[str], *, why: str) -> list[str]:
    """Give the command that calls coupler on so many ranks, by the mpirun on PATH or the one beside this Python.

    Parameters
    ----------
    ranks : int
        How many.
    arguments : sequence of str
        What to type after ``coupler``.
    why : str
        Who starts it, as the sentence about a missing one begins.

    Raises
    ------
    ConfigError
        If there is none.

    Collective: no.
    """
    mpirun = shutil.which("mpirun") or shutil.which("mpirun", path=str(Path(sys.executable).parent))
    if mpirun is None:
        raise ConfigError(f"{why} mpirun, which is not on PATH: load your MPI, or type mpirun -n N yourself.")
    # Only Open MPI refuses more ranks than cores, and only it knows the word.
    crowded = ranks > len(os.sched_getaffinity(0)) and family_of_launcher(mpirun) == OPEN_MPI
    return [
        mpirun, *(["--oversubscribe"] if crowded else []), "-n", str(ranks), sys.executable, "-m", "coupler", *arguments
    ]  # fmt: skip


def run_on_ranks(ranks: int, arguments: Sequence[str], *, option: str) -> int:
    """Call coupler on so many ranks in these surroundings, and give their exit status.

    Parameters
    ----------
    ranks : int
        How many.
    arguments : sequence of str
        What to type after ``coupler``.
    option : str
        What the user has typed to have it so.

    Raises
    ------
    ConfigError
        If this is a rank itself, or there is no mpirun.

    Collective: no.
    """
    if is_rank():
        raise ConfigError(f"{option} starts mpirun, and this is under mpirun already: leave one of the two out.")
    command = mpirun_command(ranks, arguments, why=f"{option} starts")
    return subprocess.run(command, env=for_ranks(os.environ), check=False).returncode
