"""The journal on however many ranks it is started: every call of every rank comes into the ledger once."""

import numpy as np
import pytest
from mpi4py import MPI

from coupler.clock import Stopwatch
from coupler.controller import AuditedSums, Controller
from coupler.coupling.call import Audits, CallRecord, Unanswered
from coupler.coupling.journal import Journal
from coupler.coupling.nodes import Nodes
from coupler.coupling.route import Route
from coupler.ledger import Ledger, read_ledger
from coupler.operator import Operator
from coupler.progress import Progress
from coupler.records import Decision, Event, EventKind, Reason
from coupler.runfolder import RunFolder

pytestmark = pytest.mark.mpi

RANK, RANKS = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
# Two gatherings, and a rest that only the end can fetch.
STEPS = 250


def _calls(rank, step):
    """Ranks call as often as they like."""
    return (rank + step) % 3


def _record(step, call):
    reasons = [0] * len(Reason)
    reasons[Reason.ACCEPTED], reasons[Reason.AUDIT] = 10 + RANK, step
    sums = AuditedSums(0.5, 10 + RANK + step, audits=step, accepted=11, loss=2**40 + call, exceedances=3)
    # Every tenth step nobody answers the last element of a rank.
    missing = [Unanswered(Reason.TIMEOUT, np.array([[100 * RANK, 100 * RANK + 1]]))] if step % 10 == 0 else []
    return CallRecord(step, call, reasons, sums.counts.tolist(), 0.25, 0.5, 4, 1.0, 2.0, 3.0, 0.125, True, missing)


def _audits(step, call):
    return Audits(step, call, np.arange(RANK), np.ones(RANK), np.full(RANK, 2.0), np.zeros(RANK, np.uint8))


def _progress():
    assert RANK == 0, "nobody but rank 0 needs to know"
    return Progress(1, 2, {decision.name.lower(): 0 for decision in Decision}, 0.0, 0.0, 0.0, 0.0, 0, 1.0)


def _route():
    operator = Operator(lambda inputs, dt: inputs, inputs=("a",), outputs=("a",), atol=1.0, rtol=0.0)
    return Route(operator, Controller(), seed=0, deadline=1.0, must_answer=False, stopwatch=Stopwatch())


@pytest.fixture
def folder(tmp_path):
    return RunFolder(MPI.COMM_WORLD.bcast(tmp_path))


def test_every_call_of_every_rank_is_in_the_ledger_once(folder):
    nodes = Nodes.of(MPI.COMM_WORLD)
    journal = Journal(folder, nodes, ("pair", "one"))
    routes = [_route(), _route()]
    journal.watch(routes)
    journal.tell(Event(7, 1, EventKind.ALARM, 2, "something is wrong"))
    for step in range(1, STEPS + 1):
        for call in range(_calls(RANK, step)):
            journal.record(call % 2, _record(step, call))
            routes[call % 2].observer.on_audits(_audits(step, call))
        journal.note(_progress)
        journal.step(step)
    journal.flush()
    journal.close()
    nodes.close()
    MPI.COMM_WORLD.Barrier()  # only rank 0 writes

    rows = read_ledger(folder.ledger)
    expected = [
        (step, call, call % 2, rank)
        for step in range(1, STEPS + 1)
        for call in range(3)
        for rank in range(RANKS)
        if call < _calls(rank, step)
    ]
    found = np.stack([rows[name] for name in ("step", "call", "operator", "rank")], axis=1)
    np.testing.assert_array_equal(found, np.array(expected))
    np.testing.assert_array_equal(rows["reasons"][:, Reason.ACCEPTED], 10 + rows["rank"])
    np.testing.assert_array_equal(rows["loss"], 2**40 + rows["call"].astype(np.int64))
    np.testing.assert_array_equal(rows["audits"], rows["step"])
    assert {*zip(rows["acceptable"].tolist(), rows["exceedances"].tolist(), strict=True)} == {(11, 3)}
    assert {*rows["hidden_seconds"].tolist()} == {0.125}
    assert rows["stopped"].all()
    ledger = Ledger(folder.ledger)
    assert ledger.events.tolist() == [(7, 1, 2, b"alarm", b"something is wrong")]
    assert len(ledger.audits) == rows["rank"].sum()
    assert (ledger.audits["error"] == 2.0).all()
    silent = rows[rows["step"] % 10 == 0]
    found = np.stack([ledger.unanswered[name] for name in ("step", "call", "operator", "rank")], axis=1)
    np.testing.assert_array_equal(
        found, np.stack([silent[name] for name in ("step", "call", "operator", "rank")], axis=1)
    )
    # The same elements each time: one group per rank and operator, however many gatherings.
    groups = {(rank, first, stop) for rank, _, first, stop in ledger.unanswered_ids.tolist()}
    assert groups == {(rank, 100 * rank, 100 * rank + 1) for rank in range(RANKS)}
    assert len(ledger.unanswered_ids) == 2 * RANKS
    MPI.COMM_WORLD.Barrier()


def test_a_journal_without_a_call_ends_with_an_empty_ledger(folder):
    nodes = Nodes.of(MPI.COMM_WORLD)
    journal = Journal(folder, nodes, ("one",))
    journal.flush()
    journal.close()
    nodes.close()
    MPI.COMM_WORLD.Barrier()  # only rank 0 writes

    assert len(read_ledger(folder.ledger)) == 0
    MPI.COMM_WORLD.Barrier()
