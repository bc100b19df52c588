"""Clocks of several nodes: those of one machine are found to be the same, within what is said of the doubt."""

import pytest
from mpi4py import MPI

from coupler.coupling.clocks import ClockOffset, clock_offset
from coupler.coupling.nodes import Nodes

pytestmark = pytest.mark.mpi


def test_ranks_of_one_node_share_its_clock() -> None:
    nodes = Nodes.of(MPI.COMM_WORLD)

    found = clock_offset(nodes)

    nodes.close()
    assert found == ClockOffset(0, 0)


def test_a_node_finds_its_offset_within_the_doubt_it_states() -> None:
    # Every rank as a node of its own: all have the clock of this machine, so the true offset is nothing.
    job = MPI.COMM_WORLD.Dup()
    nodes = Nodes(job=job, node=MPI.Intracomm(job.Split(job.rank)), count=job.size)

    found = clock_offset(nodes)

    nodes.close()
    assert abs(found.nanoseconds) <= found.doubt
    assert (found.doubt > 0) == (MPI.COMM_WORLD.rank > 0)
