"""The shared transport against the real server in a process of its own: answers, faults, deadlines."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coupler.exchange import Answer, Arena, ArenaLayout, SharedTransport, SlotShape
from coupler.exchange.doorbell import Patience, wait_for_change
from coupler.field import Field
from coupler.learning.registry import Registry
from coupler.operator import Signature
from coupler.plugin import build, load
from coupler.records import Reason
from coupler.serving.predictor import CHUNK_ROWS
from coupler.surrogate import Surrogate

pytestmark = pytest.mark.timeout(120)

CAPACITY = CHUNK_ROWS + 500
DEADLINE = 0.3
# Much longer than anything here may take: who waits for so long has missed something.
LONG_SECONDS = 30.0
# For a machine that others use too; still far from LONG_SECONDS.
PROMPT_SECONDS = 5.0
COLUMNS = (Field("u"), Field("v"))

# mean = (u + dt, v * version), score = v; and what a user's model can do to the server.
SURROGATE = """
import os, signal
import torch
from coupler.surrogate import Prediction, Surrogate

class Tiny(Surrogate):
    def __init__(self, signature, *, behaviour, gate):
        super().__init__(signature)
        self.behaviour, self.gate = behaviour, gate
        self.register_buffer("factor", torch.ones((), dtype=torch.float64))

    def fit(self, samples, *, seed, seconds=None): ...

    def predict(self, inputs, dt):
        asked = bool((inputs < 1.0).all())  # when it is loaded it is tried on rows of the range it was trained on
        if asked and self.behaviour == "waits":
            with open(self.gate) as gate:  # until somebody opens the other end
                gate.read()  # and closes it
        if asked and self.behaviour == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour == "raises":
            raise KeyError("a mistake in the user's model")
        mean = torch.stack([inputs[:, 0] + dt, inputs[:, 1] * self.factor], dim=1)
        return Prediction(mean[:, :1] if self.behaviour == "misshapen" else mean, inputs[:, 1])
"""

SERVER = """
import os
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, SlotShape
from coupler.exchange.segment import SegmentAddress
from coupler.serving.modelplan import ModelPlan
from coupler.serving.server import Server
plan = ModelPlan({operators!r}, ((2, 2),) * len({operators!r}), {models!r}, "cpu", 1)
server = Server({address!r}, plan, tuple(os.sched_getaffinity(0)))
for operator in range(len({operators!r})):
    for version in (1, 2):
        server.load(operator, version)
print("listening", flush=True)
server.serve()
"""

RANK = """
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, SharedTransport, SlotShape
from coupler.exchange.segment import SegmentAddress
transport = SharedTransport(Arena.attach({address!r}), 0)
print("listening", flush=True)
transport.ask(1, 0.5, 1)
transport.answer({seconds})
"""


@dataclass
class Node:
    """An arena with slots for every behaviour, and the process that answers it."""

    arena: Arena
    operators: tuple[str, ...]
    process: "subprocess.Popen[str]"
    gate: Path

    def transport(self, operator: str) -> SharedTransport:
        return SharedTransport(self.arena, self.operators.index(operator))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server, and let it go on afterwards."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until the server has a question for the model that waits in hand; it answers afterwards."""
        gate = os.open(self.gate, os.O_WRONLY)
        try:
            yield
        finally:
            os.close(gate)


def _models(folder: Path, operators: Sequence[str]) -> Path:
    """Register two versions of a model for every operator; it behaves as the operator is called."""
    (folder / "tiny.py").write_text(SURROGATE)
    name = f"{folder}/tiny.py:Tiny"
    signature = Signature(COLUMNS, COLUMNS, (1.0, 1.0), (0.0, 0.0))
    for operator in operators:
        params = {"behaviour": operator, "gate": str(folder / "gate")}
        for version in (1, 2):
            surrogate = build(load(name, Surrogate), params, signature, key="surrogate.params")
            surrogate.load_state_dict({"factor": torch.tensor(float(version), dtype=torch.float64)})
            facts = {"operator": operator, "surrogate": name, "params": params, "step": version, "samples": 1}
            measured = {"threshold": 1.0, "holdout_loss": 0.0, "holdout_accepted": 1.0, "seconds": 0.0}
            trained = {"range_lower": (2.0, 2.0), "range_upper": (3.0, 3.0)}
            Registry(folder / "models").register(surrogate, facts | measured | trained)
    return folder / "models"


def _start(code: str) -> "subprocess.Popen[str]":
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


@contextmanager
def _serving(folder: Path, *operators: str) -> Iterator[Node]:
    # A second rank asks about the first operator.
    shapes = tuple(SlotShape(index, CAPACITY, 2, 2) for index in (*range(len(operators)), 0))
    arena = Arena.create(ArenaLayout(shapes))
    models = str(_models(folder, operators))
    os.mkfifo(folder / "gate")
    process = _start(SERVER.format(address=arena.address, operators=operators, models=models))
    yield Node(arena, operators, process, folder / "gate")
    process.kill()
    process.communicate()
    arena.close()


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with _serving(tmp_path_factory.mktemp("node"), "plain", "waits", "raises", "misshapen") as node:
        yield node
        node.arena.stop[0] = 1
        assert node.process.wait(LONG_SECONDS) == 0  # it returns when it is asked to


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """A server that every test must leave alive and idle."""
    yield shared_node
    assert shared_node.process.poll() is None
    assert not any(slot.pending for slot in shared_node.arena.slots)


@pytest.fixture
def arena() -> Iterator[Arena]:
    """An arena whose server is said to be this very process, which never answers."""
    arena = Arena.create(ArenaLayout((SlotShape(0, 3, 2, 2),)))
    arena.server_pid[0] = os.getpid()
    yield arena
    arena.close()


def _rows(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((count, 2))


def _ask(transport: SharedTransport, rows: NDArray[np.float64], dt: float = 0.5, version: int = 1) -> None:
    transport.inputs(len(rows))[...] = rows
    transport.ask(len(rows), dt, version)


def _assert_answered(answer: Answer, rows: NDArray[np.float64], dt: float = 0.5, version: int = 1) -> None:
    assert answer.reason is Reason.ACCEPTED
    np.testing.assert_array_equal(answer.mean, np.stack([rows[:, 0] + dt, rows[:, 1] * version], axis=1))
    np.testing.assert_array_equal(answer.score, rows[:, 1])


def _until_answered(transport: SharedTransport, arena: Arena, operator: int) -> None:
    slot, ends = arena.slots[operator], time.monotonic() + LONG_SECONDS
    while transport.busy and time.monotonic() < ends:
        wait_for_change(slot.answered, int(slot.answered[0]), 0.05, Patience())
    assert not transport.busy


@pytest.mark.parametrize("count", [0, 1, 2, CHUNK_ROWS, CHUNK_ROWS + 1, CAPACITY])
def test_any_number_of_elements_is_answered(node: Node, count: int) -> None:
    transport, rows = node.transport("plain"), _rows(count)

    _ask(transport, rows)
    answer = transport.answer(LONG_SECONDS)

    _assert_answered(answer, rows)
    assert answer.arrived
    assert 0 <= answer.seconds < LONG_SECONDS
    assert (transport.capacity, transport.busy, transport.lost) == (CAPACITY, False, False)


def test_rows_beyond_the_question_stay_as_they_were(node: Node) -> None:
    transport = node.transport("plain")
    slot = node.arena.slots[0]
    slot.mean[...], slot.score[...] = -1.0, -2.0

    _ask(transport, _rows(3))
    transport.answer(LONG_SECONDS)

    assert (slot.mean[3:] == -1.0).all()
    assert (slot.score[3:] == -2.0).all()


def test_what_is_gathered_lies_where_the_server_reads(node: Node) -> None:
    assert np.shares_memory(node.transport("plain").inputs(5), node.arena.slots[0].inputs)


def test_every_question_is_answered_by_the_version_it_asks(node: Node) -> None:
    transport, rows = node.transport("plain"), _rows(5)

    for version in (2, 1, 2):
        _ask(transport, rows, version=version)
        _assert_answered(transport.answer(LONG_SECONDS), rows, version=version)


def test_questions_of_several_ranks_are_told_apart(node: Node) -> None:
    ours, theirs = node.transport("plain"), SharedTransport(node.arena, len(node.arena.slots) - 1)

    with node.stopped():  # so that both are there when it looks
        _ask(ours, _rows(700, seed=1), dt=0.25)
        _ask(theirs, _rows(900, seed=2), dt=4.0)

    _assert_answered(ours.answer(LONG_SECONDS), _rows(700, seed=1), dt=0.25)
    _assert_answered(theirs.answer(LONG_SECONDS), _rows(900, seed=2), dt=4.0)


@pytest.mark.parametrize(("operator", "version"), [("raises", 1), ("misshapen", 1), ("plain", 7)])
def test_a_model_that_fails_gives_what_no_gate_accepts_and_the_server_lives(
    node: Node, operator: str, version: int
) -> None:
    transport = node.transport(operator)

    for _ in range(2):
        _ask(transport, _rows(4), version=version)
        answer = transport.answer(LONG_SECONDS)

        assert answer.arrived
        assert np.isnan(answer.mean).all()
        assert np.isnan(answer.score).all()
    plain = node.transport("plain")
    _ask(plain, _rows(4))
    _assert_answered(plain.answer(LONG_SECONDS), _rows(4))


@pytest.mark.filterwarnings("error")
def test_numbers_of_questions_go_up_by_one_and_wrap_round(node: Node) -> None:
    transport, slot = node.transport("plain"), node.arena.slots[0]
    slot.words[0] = slot.answered[0] = 2**32 - 2

    for number in (2**32 - 1, 0, 1):
        _ask(transport, _rows(2))
        assert slot.number == number
        _assert_answered(transport.answer(LONG_SECONDS), _rows(2))
        assert slot.answered[0] == number


def test_a_stopped_server_costs_one_deadline_and_answers_again_afterwards(node: Node) -> None:
    transport, rows = node.transport("plain"), _rows(3)

    with node.stopped():
        started = time.perf_counter()
        _ask(transport, rows)
        answer = transport.answer(DEADLINE)
        waited = time.perf_counter() - started

        assert answer.reason is Reason.TIMEOUT
        assert not answer.arrived
        assert DEADLINE <= waited < DEADLINE + PROMPT_SECONDS
        assert transport.busy
        assert not transport.lost
    _until_answered(transport, node.arena, 0)

    _ask(transport, rows, dt=2.0)
    _assert_answered(transport.answer(LONG_SECONDS), rows, dt=2.0)


def test_audits_between_question_and_answer_do_not_count_against_the_deadline(arena: Arena) -> None:
    transport = SharedTransport(arena, 0)
    _ask(transport, _rows(3))
    wait_for_change(arena.slots[0].answered, 0, DEADLINE, Patience())  # the rank computes truth meanwhile

    started = time.perf_counter()
    assert transport.answer(DEADLINE).reason is Reason.TIMEOUT

    assert DEADLINE <= time.perf_counter() - started < DEADLINE + PROMPT_SECONDS


def test_a_late_answer_to_an_abandoned_question_is_ignored(node: Node) -> None:
    transport, slot = node.transport("waits"), node.arena.slots[node.operators.index("waits")]
    _ask(transport, _rows(50, seed=1))
    first = slot.number
    with node.held():
        assert transport.answer(0.0).reason is Reason.TIMEOUT
        _ask(transport, _rows(40, seed=2), dt=9.0)

    assert wait_for_change(slot.answered, first - 1, LONG_SECONDS, Patience())
    with node.held():
        assert slot.answered[0] == first  # it came, too late
        assert transport.busy
        assert transport.answer(0.0).reason is Reason.TIMEOUT

    _assert_answered(transport.answer(LONG_SECONDS), _rows(40, seed=2), dt=9.0)


def test_a_server_that_dies_is_noticed_long_before_the_deadline(tmp_path: Path) -> None:
    with _serving(tmp_path, "dies") as node:
        transport = node.transport("dies")
        lost = [transport.lost]

        started = time.perf_counter()
        _ask(transport, _rows(3))
        answer = transport.answer(LONG_SECONDS)

        assert answer.reason is Reason.SERVER_LOST
        assert time.perf_counter() - started < PROMPT_SECONDS
        lost += [transport.lost, SharedTransport(node.arena, 0).lost]  # and by a rank that comes later
        assert lost == [False, True, True]
        assert transport.busy


def test_an_answer_that_came_before_the_server_died_is_taken(arena: Arena) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    arena.server_pid[0] = ended.pid
    transport = SharedTransport(arena, 0)
    ended.wait()
    _ask(transport, _rows(3))
    arena.slots[0].answer(arena.slots[0].number, 0.0)

    assert transport.lost
    assert transport.answer(LONG_SECONDS).reason is Reason.ACCEPTED


def test_an_interrupt_ends_a_waiting_rank_promptly(arena: Arena) -> None:
    rank = _start(RANK.format(address=arena.address, seconds=LONG_SECONDS))
    assert wait_for_change(arena.bell, 0, LONG_SECONDS, Patience())  # it has asked

    started = time.perf_counter()
    rank.send_signal(signal.SIGINT)
    rank.communicate(timeout=LONG_SECONDS)

    assert time.perf_counter() - started < PROMPT_SECONDS
    assert rank.returncode == -signal.SIGINT


def test_an_idle_server_leaves_its_core_to_others(node: Node) -> None:
    def processor_seconds() -> float:
        return time.clock_gettime(~node.process.pid << 3 | 2)  # the kernel's number of another process's clock

    with closing(node.transport("plain")) as transport:  # it serves, and has nothing to compile any more
        _ask(transport, _rows(1))
        _assert_answered(transport.answer(LONG_SECONDS), _rows(1))
    started, before = time.perf_counter(), processor_seconds()
    with pytest.raises(subprocess.TimeoutExpired):
        node.process.wait(1.0)
    used = processor_seconds() - before

    assert used / (time.perf_counter() - started) < 0.02


def test_a_closed_transport_watches_nobody(arena: Arena) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))

    transport = SharedTransport(arena, 0)
    lost = [transport.lost]
    transport.close()
    transport.close()

    assert [*lost, transport.lost] == [False, True]
    assert len(list(descriptors.iterdir())) == before
