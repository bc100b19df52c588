"""Clocks of several nodes: how far each is from that of rank 0, found once by asking back and forth."""

import time
from typing import NamedTuple

from mpi4py import MPI

from coupler.coupling.nodes import Nodes

# Of so many questions the fastest is believed: it was held up least on either way.
_QUESTIONS = 16
_ASKING, _TELLING = 7101, 7102


class ClockOffset(NamedTuple):
    """What to add to this node's clock to get that of rank 0.

    Attributes
    ----------
    nanoseconds : int
        The difference [ns].
    doubt : int
        How far off it may be: half of the fastest way there and back [ns].
    """

    nanoseconds: int
    doubt: int


def clock_offset(nodes: Nodes) -> ClockOffset:
    """Find this node's offset; ranks of one node share a clock, that of the first node is the one all are put on.

    The leading rank of each other node asks rank 0 what time it is, and takes the answer to be of the middle of the
    time it waited (Cristian 1989). Drift is left out: within a day it is some milliseconds per node.

    Collective: yes.
    """
    leaders = [rank for rank, leads in enumerate(nodes.job.allgather(nodes.leads)) if leads and rank]
    mine = ClockOffset(0, 0)
    if nodes.first:
        for leader in leaders:
            _answer(nodes.job, leader)
    elif nodes.leads:
        mine = _ask(nodes.job)
    return ClockOffset(*nodes.node.bcast(tuple(mine)))


def _answer(job: MPI.Intracomm, leader: int) -> None:
    for _ in range(_QUESTIONS):
        job.recv(source=leader, tag=_ASKING)
        job.send(_now(), dest=leader, tag=_TELLING)


def _ask(job: MPI.Intracomm) -> ClockOffset:
    found = []
    for _ in range(_QUESTIONS):
        asked = _now()
        job.send(None, dest=0, tag=_ASKING)
        theirs = job.recv(source=0, tag=_TELLING)
        waited = _now() - asked
        found.append(ClockOffset(theirs - (asked + waited // 2), waited // 2))
    return min(found, key=lambda one: one.doubt)


def _now() -> int:
    return time.perf_counter_ns()
