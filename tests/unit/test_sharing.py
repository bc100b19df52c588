"""Sharing truth on a node: the same bits whoever computed them, nobody held up by anybody, and only while it pays."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from numpy.typing import NDArray

from coupler import Operator
from coupler.config import case_from, explain
from coupler.coupling.counts import Counts
from coupler.coupling.nodes import Nodes
from coupler.coupling.sharing import SharingSwitch, open_workshop
from coupler.errors import ConfigError, CouplerError
from coupler.exchange.bench import benches_in
from coupler.exchange.table import BenchShape, Chunk
from coupler.exchange.truthcost import ChunkSize, TruthCost
from coupler.exchange.workshop import Workshop, WorkshopLayout

CACHE_LINE = 64
# Much longer than anything here may take: who waits for so long has missed something.
LONG_SECONDS = 30.0
# For a machine that others use too.
PROMPT_SECONDS = 5.0
ROWS = np.random.default_rng(0).uniform(1.0, 2.0, (300, 2))
DT = 0.5

Floats = NDArray[np.float64]
Truth = Callable[[Floats, float], Floats]

# A neighbour that has no work of its own. What its truth does besides, a test says.
NEIGHBOUR = """
import os, signal, sys, time
import numpy as np
from coupler import Operator
from coupler.exchange.bench import benches_in
from coupler.exchange.segment import SegmentAddress
from coupler.exchange.table import BenchShape
from coupler.exchange.workshop import Workshop, WorkshopLayout
def truth(inputs, dt):
    {does}
    ends = time.thread_time() + 2e-5 * len(inputs)
    while time.thread_time() < ends:
        pass
    return inputs * np.exp(-dt) + inputs[:, ::-1]
operator = Operator(truth, inputs=("a", "b"), outputs=("a", "b"), atol=1.0, rtol=1.0)
workshop = Workshop.attach({address!r}, {layout!r}, {rank}, [operator])
bench, = benches_in(workshop)
print("ready", flush=True)
ends = time.monotonic() + {seconds}
while time.monotonic() < ends and os.getppid() == {parent}:
    bench.enter(1, 0)
    bench.help()
"""


def relax(inputs: Floats, dt: float) -> Floats:
    return inputs * np.exp(-dt) + inputs[:, ::-1]


def expensive(inputs: Floats, dt: float) -> Floats:
    """Take 20 microseconds of the processor a row, so that it is worth sharing."""
    ends = time.thread_time() + 2e-5 * len(inputs)
    while time.thread_time() < ends:
        pass
    return relax(inputs, dt)


def operator(truth: Truth, name: str = "a") -> Operator:
    return Operator(truth, inputs=(name, "b"), outputs=(name, "b"), atol=1.0, rtol=1.0)


class Node:
    """A workshop of which this process is several ranks at once: each acts when a test says so."""

    def __init__(self, *truths: Truth, capacity: int = 1000) -> None:
        operators = [operator(truth) for truth in truths]
        self.layout = WorkshopLayout(((BenchShape(capacity, 2, 2),),) * len(operators))
        first = Workshop.create(self.layout, operators[:1])
        self.ranks = [first] + [
            Workshop.attach(first.address, self.layout, rank, [other])
            for rank, other in enumerate(operators[1:], start=1)
        ]
        self.benches = [bench for workshop in self.ranks for bench in benches_in(workshop)]

    def close(self) -> None:
        for workshop in self.ranks:
            workshop.close()


@contextmanager
def sharing(*truths: Truth, capacity: int = 1000) -> Iterator[Node]:
    node = Node(*truths, capacity=capacity)
    yield node
    node.close()


class Meanwhile:
    """A truth that lets a test do something between two chunks."""

    def __init__(self, truth: Truth = expensive) -> None:
        self.truth = truth
        self.calls: list[int] = []
        self.then: Callable[[], None] = lambda: None

    def __call__(self, inputs: Floats, dt: float) -> Floats:
        self.calls.append(len(inputs))
        then, self.then = self.then, lambda: None
        then()
        return self.truth(inputs, dt)


def _take(node: Node, rank: int) -> Chunk:
    chunk = node.ranks[rank].take()
    assert chunk is not None
    return chunk


def _compute_one(node: Node, rank: int) -> None:
    _take(node, rank).compute(rank)


def _trusting(node: Node, owner: Meanwhile) -> None:
    """Let the owner find out that its neighbour computes the same."""
    owner.then = lambda: _compute_one(node, 1)
    node.benches[0].evaluate(ROWS, DT)
    owner.calls.clear()


def test_rows_that_a_neighbour_computed_are_taken() -> None:
    owner, neighbour = Meanwhile(), Meanwhile()
    with sharing(owner, neighbour) as node:
        _trusting(node, owner)
        neighbour.calls.clear()

        owner.then = node.benches[1].help
        outputs = node.benches[0].evaluate(ROWS, DT)

        np.testing.assert_array_equal(outputs, relax(ROWS, DT))
        assert sum(owner.calls) + sum(neighbour.calls) == len(ROWS)
        assert len(neighbour.calls) > 1
        assert node.benches[1].tally.elements == sum(neighbour.calls)
        assert node.benches[1].tally.nanoseconds > 0
        assert node.benches[0].borrowed_seconds > 0
        assert node.benches[0].tally.elements == 0


def test_a_neighbours_first_rows_are_computed_twice_and_compared() -> None:
    owner, neighbour = Meanwhile(), Meanwhile()
    with sharing(owner, neighbour) as node:
        owner.then = lambda: _compute_one(node, 1)
        outputs = node.benches[0].evaluate(ROWS, DT)

        np.testing.assert_array_equal(outputs, relax(ROWS, DT))
        assert sum(owner.calls) == len(ROWS)
        assert len(neighbour.calls) == 1


@pytest.mark.parametrize("wrong", ["another rank", "another batch"])
def test_a_truth_that_gives_other_bits_elsewhere_is_not_shared(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    last_bit = np.nextafter(1.0, 2.0)

    def on_another_rank(inputs: Floats, dt: float) -> Floats:
        return relax(inputs, dt) * last_bit

    class InAnotherBatch(Meanwhile):
        def __call__(self, inputs: Floats, dt: float) -> Floats:
            return super().__call__(inputs, dt) * (1.0 if len(inputs) > 10 else last_bit)

    owner = InAnotherBatch() if wrong == "another batch" else Meanwhile()
    with sharing(owner, on_another_rank if wrong == "another rank" else owner) as node:
        owner.then = node.benches[1].help
        with caplog.at_level(logging.WARNING):
            outputs = node.benches[0].evaluate(ROWS, DT)

        np.testing.assert_array_equal(outputs, relax(ROWS, DT))
        assert "its work is not shared" in caplog.text
        owner.calls.clear()
        node.benches[0].evaluate(ROWS, DT)
        assert owner.calls == [len(ROWS)]


def test_without_neighbours_that_have_time_the_owner_does_everything() -> None:
    owner = Meanwhile()
    with sharing(owner, relax) as node:
        outputs = node.benches[0].evaluate(ROWS, DT)

        np.testing.assert_array_equal(outputs, relax(ROWS, DT))
        assert sum(owner.calls) == len(ROWS)
        assert len(owner.calls) > 1


@pytest.mark.parametrize("rows", [0, 1, 2, 99, 100, 101, 250])
def test_any_number_of_rows_is_evaluated_in_rounds_if_need_be(rows: int) -> None:
    owner = Meanwhile()
    with sharing(owner, relax, capacity=100) as node:
        for _ in range(3):
            outputs = node.benches[0].evaluate(ROWS[:rows], DT)

            np.testing.assert_array_equal(outputs, relax(ROWS[:rows], DT))
            assert outputs.shape == (rows, 2)


def test_with_sharing_off_it_is_the_operator_and_nobody_helps() -> None:
    owner = Meanwhile()
    with sharing(owner, relax) as node:
        node.benches[0].on = node.benches[1].on = False
        owner.then = node.benches[1].help

        node.benches[0].evaluate(ROWS, DT)

        assert owner.calls == [len(ROWS)]
        assert node.benches[1].tally.elements == 0


def test_work_that_takes_no_time_is_not_laid_out() -> None:
    owner = Meanwhile()
    with sharing(owner, relax) as node:
        node.benches[0].evaluate(ROWS, DT)
        owner.calls.clear()

        node.benches[0].evaluate(ROWS[:3], DT)

        assert owner.calls == [3]


def test_a_chunk_on_which_a_neighbour_fails_is_done_by_its_owner() -> None:
    def fails(inputs: Floats, dt: float) -> Floats:
        raise ArithmeticError("the lattice has melted")

    owner = Meanwhile()
    with sharing(owner, fails) as node:
        owner.then = node.benches[1].help

        np.testing.assert_array_equal(node.benches[0].evaluate(ROWS, DT), relax(ROWS, DT))
        assert sum(owner.calls) == len(ROWS)
        assert node.benches[1].tally.elements == 0


def test_the_owner_meets_the_truths_error_itself_and_leaves_no_work_open() -> None:
    def fails(inputs: Floats, dt: float) -> Floats:
        raise ArithmeticError("the lattice has melted")

    with sharing(fails, fails) as node:
        with pytest.raises(ArithmeticError, match="has melted"):
            node.benches[0].evaluate(ROWS, DT)

        assert node.ranks[1].take() is None


def test_a_late_chunk_is_done_by_its_owner_and_written_late_it_meets_nothing() -> None:
    owner, taken = Meanwhile(), []
    with sharing(owner, relax) as node:
        _trusting(node, owner)
        owner.then = lambda: taken.append(_take(node, 1))

        outputs = node.benches[0].evaluate(ROWS, DT)
        np.testing.assert_array_equal(outputs, relax(ROWS, DT))
        # While the neighbour may still write, nothing is laid out.
        owner.calls.clear()
        other = node.benches[0].evaluate(ROWS + 1.0, DT)
        assert owner.calls == [len(ROWS)]
        taken[0].table.outputs[...] = np.nan
        taken[0].compute(1)
        np.testing.assert_array_equal(outputs, relax(ROWS, DT))
        np.testing.assert_array_equal(other, relax(ROWS + 1.0, DT))

        # It has let go: the bench serves again.
        owner.calls.clear()
        np.testing.assert_array_equal(node.benches[0].evaluate(ROWS, DT), relax(ROWS, DT))
        assert len(owner.calls) > 1


def test_neighbours_take_from_whoever_has_most_left() -> None:
    with sharing(relax, relax, relax) as node:
        for rank, rows in ((0, 3), (1, 5)):
            node.ranks[rank].tables[rank].open(ROWS[:rows], DT, ChunkSize(1, 1), workers=3)

        taken = [_take(node, 2) for _ in range(8)]

        owners = [node.ranks[2].tables.index(chunk.table) for chunk in taken]
        assert owners[:2] == [1, 1]
        assert sorted(owners) == [0, 0, 0, 1, 1, 1, 1, 1]
        assert node.ranks[2].take() is None


def test_who_has_nothing_to_wait_for_waits_for_nobody() -> None:
    with sharing(relax, relax, relax) as node:
        for bench in node.benches:
            bench.enter(1, 0)
        for workshop in node.ranks[1:]:
            workshop.leave(2**17 + 1)

        started = time.perf_counter()
        for _ in range(100):
            node.benches[0].help()

        assert (time.perf_counter() - started) / 100 < 1e-3
        assert node.benches[0].tally.elements == 0


@pytest.mark.parametrize("step", [1, 2**15 - 1, 2**15, 2**31])
def test_a_neighbour_that_is_not_through_with_the_call_is_waited_for_but_not_for_long(step: int) -> None:
    with sharing(relax, relax) as node:
        node.benches[1].enter(step - 1, 5)
        node.benches[0].enter(step, 0)

        started = time.perf_counter()
        node.benches[0].help()
        waited = time.perf_counter() - started

        assert 1e-4 < waited < PROMPT_SECONDS
        assert node.benches[0].tally.overhead > 1e5
        assert node.benches[0].lending_seconds >= waited * 0.5


@contextmanager
def _neighbours(node: Node, count: int, does: str = "pass") -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that help rank 0, on ranks from 1 on."""
    started = []
    for rank in range(1, count + 1):
        code = NEIGHBOUR.format(
            address=node.ranks[0].address,
            layout=node.layout,
            rank=rank,
            does=does,
            seconds=LONG_SECONDS,
            parent=os.getpid(),
        )
        one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=one_thread)
        )
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@contextmanager
def _alone_in_this_process(ranks: int, truth: Truth) -> Iterator[Node]:
    """A node of so many ranks, of which this process is the first only."""
    node = Node.__new__(Node)
    node.layout = WorkshopLayout(((BenchShape(1000, 2, 2),),) * ranks)
    node.ranks = [Workshop.create(node.layout, [operator(truth)])]
    node.benches = benches_in(node.ranks[0])
    yield node
    node.close()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_other_processes_give_the_same_bits(ranks: int) -> None:
    with _alone_in_this_process(ranks, expensive) as node, _neighbours(node, ranks - 1):
        for rows in (ROWS, ROWS[:50], ROWS[::-1].copy()) * 3:
            np.testing.assert_array_equal(node.benches[0].evaluate(rows, DT), relax(rows, DT))
        assert (node.benches[0].borrowed_seconds > 0) == (ranks > 1)


@pytest.mark.parametrize("does", ["os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_neighbour_that_dies_or_stops_over_a_chunk_holds_nobody_up(does: str) -> None:
    owner = Meanwhile()
    with _alone_in_this_process(2, owner) as node, _neighbours(node, 1, does) as (neighbour,):
        bench = node.benches[0]
        started = time.perf_counter()
        for _ in range(20):
            np.testing.assert_array_equal(bench.evaluate(ROWS, DT), relax(ROWS, DT))
        assert time.perf_counter() - started < 20 * 0.06 + PROMPT_SECONDS

        os.waitid(os.P_PID, neighbour.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        # It still has a chunk, so its owner goes on alone.
        owner.calls.clear()
        bench.evaluate(ROWS, DT)
        assert owner.calls == [len(ROWS)]


def test_a_neighbour_that_goes_on_after_a_stop_is_worked_with_again() -> None:
    once = "sys.argv == ['-c'] and (sys.argv.append(''), os.kill(os.getpid(), signal.SIGSTOP))"
    with _alone_in_this_process(2, expensive) as node, _neighbours(node, 1, once) as (neighbour,):
        bench, ends = node.benches[0], time.monotonic() + LONG_SECONDS
        while bench.borrowed_seconds == 0:
            assert time.monotonic() < ends
            np.testing.assert_array_equal(bench.evaluate(ROWS, DT), relax(ROWS, DT))
            neighbour.send_signal(signal.SIGCONT)


def test_an_interrupt_ends_a_helping_rank_at_once() -> None:
    with _alone_in_this_process(2, expensive) as node, _neighbours(node, 1) as (neighbour,):
        node.benches[0].evaluate(ROWS, DT)
        neighbour.send_signal(signal.SIGINT)

        assert neighbour.wait(PROMPT_SECONDS) != 0


def test_nothing_overlaps_and_what_different_ranks_write_shares_no_cache_line() -> None:
    layout = WorkshopLayout(
        (
            (BenchShape(7, 3, 2), BenchShape(1, 1, 1)),
            (BenchShape(5, 3, 2), BenchShape(40, 1, 1)),
            (BenchShape(1, 3, 2), BenchShape(2, 1, 1)),
        )
    )
    operators = [operator(relax), operator(relax)]
    workshop = Workshop.create(layout, operators)

    def place(array: NDArray[Any]) -> range:
        start = array.__array_interface__["data"][0]
        return range(start, start + array.nbytes)

    groups: list[list[NDArray[Any]]] = [[workshop.bell]]
    for table in workshop.tables:
        groups += [
            [table.left],
            [table.done],
            [table.inputs],
            [table.outputs],
            [table.bounds],
            [table.takers],
            [table.seconds],
        ]
    lines = [{byte // CACHE_LINE for array in group for byte in place(array)} for group in groups]
    assert sum(map(len, lines)) == len(set().union(*lines))
    places = sorted((place(array) for group in groups for array in group), key=lambda one: one.start)
    assert all(before.stop <= after.start for before, after in pairwise(places))
    assert places[-1].stop <= places[0].start + layout.bytes
    assert all(one.start % CACHE_LINE == 0 for one in places)
    workshop.close()


def test_a_bench_holds_no_more_than_its_rank_has_and_no_more_than_a_few_megabytes() -> None:
    assert BenchShape.of(operator(relax), 10).capacity == 10
    assert BenchShape.of(operator(relax), 0).capacity == 1
    assert BenchShape.of(operator(relax), 10**7).bytes <= 4 * 2**20


def test_a_closed_workshop_cannot_be_attached_to() -> None:
    layout = WorkshopLayout(((BenchShape(1, 2, 2),),) * 2)
    workshop = Workshop.create(layout, [operator(relax)])
    address = workshop.address
    workshop.close()

    with pytest.raises(CouplerError, match="cannot be opened"):
        Workshop.attach(address, layout, 1, [operator(relax)])


@given(
    rows=st.integers(1, 20000), per_row=st.floats(1e-8, 1e-1), per_call=st.floats(0, 1e-2), workers=st.integers(1, 64)
)
@settings(deadline=None, max_examples=60)
def test_chunks_cover_all_rows_once_and_get_no_larger(rows: int, per_row: float, per_call: float, workers: int) -> None:
    cost = TruthCost()
    for size in (50, 10, 20, 40):
        cost.note(size, per_call + per_row * size)
    layout = WorkshopLayout(((BenchShape(rows, 2, 2),),))
    workshop = Workshop.create(layout, [operator(relax)])
    table = workshop.tables[0]

    table.open(np.zeros((rows, 2)), DT, cost.chunk_size(rows, workers), workers)

    sizes = np.diff(table.bounds[: table.chunks + 1].astype(np.int64))
    assert table.bounds[0] == 0
    assert sizes.sum() == rows
    assert (sizes > 0).all()
    assert all(after <= before for before, after in pairwise(sizes[:-1]))
    workshop.close()


def test_the_cost_of_a_truth_is_found_from_calls_of_any_size() -> None:
    cost = TruthCost()
    assert not cost.known
    cost.note(100, 60.0)  # it compiled something
    for size in (100, 20, 3, 50, 1000):
        cost.note(size, 50e-6 + 2e-6 * size)

    assert cost.call == pytest.approx(50e-6, rel=1e-6)
    assert cost.row == pytest.approx(2e-6, rel=1e-6)
    # What a call costs beside its rows is a twentieth of a chunk, at most.
    assert cost.chunk_size(10**5, 2).most * cost.row >= 18 * cost.call


def test_calls_of_one_size_are_all_rows() -> None:
    cost = TruthCost()
    for _ in range(5):
        cost.note(100, 1e-3)

    assert cost.call == 0.0
    assert cost.row == pytest.approx(1e-5)


def _counts(gain: int, cost: int) -> Counts:
    counts = Counts()
    counts.shared_nanoseconds, counts.sharing_nanoseconds = gain, cost
    return counts


def _steps(switch: SharingSwitch, counts: Counts, steps: int) -> list[bool]:
    states = []
    for _ in range(steps):
        switch.advance(counts)
        states.append(switch.on)
    return states


def test_sharing_that_pays_stays_on() -> None:
    assert all(_steps(SharingSwitch(always=False), _counts(1000, 10), 200))


def test_sharing_that_does_not_pay_is_tried_ever_more_rarely() -> None:
    tried = np.array(_steps(SharingSwitch(always=False), _counts(10, 1000), 5000))

    begins = np.flatnonzero(tried[1:] & ~tried[:-1])
    assert not tried[9]
    assert (np.diff(begins, n=2) > 0).all()
    assert tried.mean() < 0.05


def test_another_model_is_another_chance() -> None:
    switch = SharingSwitch(always=False)
    before = _steps(switch, _counts(0, 0), 15)

    switch.renew()

    assert not before[-1]
    assert all(_steps(switch, _counts(10, 1), 50))


def test_switched_on_by_the_case_it_stays_on() -> None:
    assert all(_steps(SharingSwitch(always=True), _counts(0, 1000), 50))


def test_a_rank_that_has_its_node_to_itself_has_no_workshop() -> None:
    nodes = Nodes.of(MPI.COMM_SELF)
    try:
        assert open_workshop(nodes, [operator(relax)], [10]) == []
    finally:
        nodes.close()


def test_what_was_shared_travels_with_the_counts() -> None:
    counts = Counts()
    counts.samples, counts.shared_elements, counts.shared_nanoseconds, counts.sharing_nanoseconds = 1, 2, 3, 4

    counts.add(Counts(counts.shape, counts.numbers.copy()))

    assert (counts.samples, counts.shared_elements, counts.shared_nanoseconds, counts.sharing_nanoseconds) == (
        2,
        4,
        6,
        8,
    )


def test_the_case_says_whether_truth_is_shared(tmp_path: Path) -> None:
    assert case_from({}, folder=tmp_path).exchange.sharing == "auto"
    with pytest.raises(ConfigError, match=r"exchange\.sharing = 'sometimes'.*coupler explain exchange\.sharing"):
        case_from({"exchange": {"sharing": "sometimes"}}, folder=tmp_path)
    (row,) = explain("exchange.sharing")
    assert row.default == '"auto"'
