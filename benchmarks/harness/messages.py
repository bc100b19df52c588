"""What messages between two ranks cost: the constants of LogGP, and a stage of the sum at the end of a step.

mpirun ... python -m benchmarks.harness.messages FILE
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coupler.coupling.counts import Counts, CountsShape

_TIMES, _LARGE, _LARGE_TIMES = 2000, 2**20, 50
# Spinning ranks take turns on shared cores: the middle is what a message takes, not the mean.
_QUANTILE = 0.5


def measure(comm: Any) -> dict[str, float]:
    """Measure between the first two ranks.

    Returns
    -------
    dict
        ``latency``, ``overhead`` [s], ``byte`` [s/byte], ``hop`` [s], ``noise`` (share of a rank's work).

    Collective: yes.
    """
    small, large = np.zeros(8, np.uint8), np.zeros(_LARGE, np.uint8)
    back_and_forth = _middle(_TIMES, lambda: _ping(comm, small))
    posting = _middle(_TIMES, lambda: _post(comm, small))
    large_one = _middle(_LARGE_TIMES, lambda: _ping(comm, large))
    mine = Counts(CountsShape(outputs=1, regions=8)).numbers
    theirs = np.empty_like(mine)
    hop = _middle(_TIMES, lambda: comm.Iallreduce(mine, theirs).Wait())
    latency = max(back_and_forth / 2 - 2 * posting, 0.0)
    return {
        "latency": latency,
        "overhead": posting,
        "byte": max(large_one - back_and_forth, 0.0) / 2 / _LARGE,
        "hop": hop,
        "noise": _noise(),
    }


def _middle(times: int, work: Callable[[], object]) -> float:
    seconds = np.empty(times)
    for number in range(times):
        started = time.perf_counter()
        work()
        seconds[number] = time.perf_counter() - started
    return float(np.quantile(seconds[times // 10 :], _QUANTILE))


def _ping(comm: Any, message: Any) -> None:
    if comm.rank == 0:
        comm.Send(message, 1)
        comm.Recv(message, 1)
    elif comm.rank == 1:
        comm.Recv(message, 0)
        comm.Send(message, 0)


def _post(comm: Any, message: Any) -> None:
    """Hand a small message over; MPI keeps a copy, so that it is the sender's part alone."""
    if comm.rank == 0:
        comm.Isend(message, 1).Wait()
    elif comm.rank == 1:
        comm.Recv(message, 0)


def _noise() -> float:
    """Say by how much of itself the same work differs from time to time on a rank."""
    block = np.random.default_rng(0).random((200, 200))
    seconds = []
    for _ in range(300):
        started = time.perf_counter()
        block @ block
        seconds.append(time.perf_counter() - started)
    middle, high = np.quantile(seconds, (0.5, 0.84))  # a standard deviation, if it were normal
    return float((high - middle) / middle)


def main() -> None:
    """Measure, and write what was found."""
    from mpi4py import MPI

    found = measure(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
