"""Processes of an experiment: every configuration in one of its own, which ends with whoever started it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coupler.launcher import for_ranks

# A run inside a worker of Ray must find neither that cluster nor its token; one under no launcher no launcher's.
_FOREIGN = ("RAY_", "OMPI_", "PMIX_", "PRTE_", "PMI_")
# What the user told Open MPI holds for the runs.
_SETTINGS = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_")
# prctl(2), PR_SET_PDEATHSIG: SIGTERM when the parent ends, after exec, too. Whoever has lost it by then does nothing.
_ENDS_WITH_PARENT = (
    "import ctypes, os, sys; parent = int(sys.argv[1]); ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == parent and os.execvp(sys.argv[2], sys.argv[2:])"
)
# A run that is asked to end stops Ray and writes what it has.
_GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Command:
    """What is started, and in which environment."""

    arguments: Sequence[str]
    surroundings: Mapping[str, str]


def surroundings() -> dict[str, str]:
    """Give this process's environment without what Ray or a launcher put there."""
    return {
        name: value
        for name, value in for_ranks(os.environ).items()
        if name.startswith(_SETTINGS) or not name.startswith(_FOREIGN)
    }


def coupler_command(arguments: Sequence[str]) -> Command:
    """Give the command that calls coupler in a process of its own."""
    return Command([sys.executable, "-m", "coupler", *arguments], surroundings())


def run_with_me(command: Command, log: Path, limit: float) -> int:
    """Run a command to its end; it is asked to end if this process does, however that ends.

    Parameters
    ----------
    command : Command
        What.
    log : Path
        Receives all it says.
    limit : float
        Longest it may take [s]; then it is asked to end, and made to after as long as that takes a run.

    Returns
    -------
    int
        Its exit status; negative for a signal.

    Collective: no.
    """
    leash = [sys.executable, "-c", _ENDS_WITH_PARENT, str(os.getpid())]
    with log.open("w") as said:
        process = subprocess.Popen(
            [*leash, *command.arguments],
            env=dict(command.surroundings),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            return process.wait(limit)
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
