"""A training's outcome on however many nodes: who looks for it, and when all of them know."""

from dataclasses import replace

import pytest
from mpi4py import MPI

from coupler.clock import Stopwatch
from coupler.config import read_case
from coupler.controller import Controller
from coupler.coupling.counts import Counts
from coupler.coupling.learner import Learner, LearnerPlan
from coupler.coupling.nodes import Nodes
from coupler.coupling.route import Route
from coupler.learning.rounds import RoundFolder, RoundOutcome
from coupler.operator import Operator
from coupler.runfolder import RunFolder

pytestmark = pytest.mark.mpi

RANK, RANKS = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


@pytest.fixture
def folder(tmp_path):
    return RunFolder(MPI.COMM_WORLD.bcast(tmp_path))


@pytest.fixture
def nodes():
    """Every rank on a node of its own."""
    shared = Nodes.of(MPI.COMM_WORLD)
    shared.node.Free()
    apart = replace(shared, node=MPI.COMM_SELF.Dup(), count=RANKS)
    yield apart
    apart.close()


def test_other_nodes_look_for_the_outcome_once_rank_0_has_seen_it(folder, nodes):
    learner = _training(folder, nodes)
    if RANK == 0:
        folder.models.mkdir(parents=True, exist_ok=True)
        RoundFolder(folder.models, "decay").publish(1, RoundOutcome(candidate=None, sentence="no better"))
    nodes.job.barrier()

    seen: list[int] = []
    steps = 0
    while learner.training:
        steps += 1
        assert steps < 10, seen
        seen.append(_step(learner, nodes, steps))

    assert seen == ([1] if RANKS == 1 else [1, RANKS])


def test_an_outcome_that_is_not_there_is_seen_by_nobody(folder, nodes):
    learner = _training(folder, nodes)

    assert [_step(learner, nodes, step) for step in range(3)] == [0, 0, 0]
    assert learner.training


def _training(folder, nodes):
    operator = Operator(lambda inputs, dt: inputs, inputs=("a",), outputs=("a",), atol=1.0, rtol=0.0)
    route = Route(operator, Controller(), seed=0, deadline=1.0, must_answer=False, stopwatch=Stopwatch())
    learner = Learner(LearnerPlan(0, "decay", read_case(None), folder), route, nodes, None)
    learner._round, learner._round_started = 1, 0  # as when one has begun; there is no trainer here to begin one
    return learner


def _step(learner, nodes, step):
    """Count, add up over all ranks, and hand the sum back, as a session does; give how many saw the outcome."""
    counts = learner._route.counts
    counts.clear()
    learner.count_outcome()
    totals = Counts(counts.shape, counts.numbers.copy())
    nodes.job.Allreduce(MPI.IN_PLACE, totals.numbers)
    learner.end_step(step, totals, may_start=False)
    return totals.rounds_done
