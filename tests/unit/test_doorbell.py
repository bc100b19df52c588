"""The doorbell: a changed word is seen at once, a ring wakes sleepers, and nobody sleeps for longer than asked."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coupler.exchange import Arena, ArenaLayout, SlotShape
from coupler.exchange.doorbell import Patience, announce, count_up, ring, wait_for_change

# Much longer than any test may take: who waits for so long was not woken.
LONG_SECONDS = 30.0
# For a machine that others use too.
PROMPT_SECONDS = 5.0

WAIT = """
import sys
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, SlotShape
from coupler.exchange.doorbell import Patience, wait_for_change
from coupler.exchange.segment import SegmentAddress
arena = Arena.attach({address!r})
print("waiting", flush=True)
print(wait_for_change(arena.bell, 0, {seconds}, Patience()), flush=True)
"""


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena.create(ArenaLayout((SlotShape(0, 1, 1, 1),)))
    wait_for_change(arena.bell, 0, 0.0, Patience())  # compiled once, and not while something is timed
    count_up(arena.slots[0].answered)
    arena.slots[0].answered[0] = 0
    yield arena
    arena.close()


@pytest.fixture
def sleeper(arena: Arena) -> Iterator["subprocess.Popen[str]"]:
    """Another process that sleeps on the bell."""
    code = WAIT.format(address=arena.address, seconds=LONG_SECONDS)
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # others of numpy's spin when they start
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=one_thread)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    _until_asleep(process.pid)
    yield process
    process.kill()
    process.communicate()


def _until_asleep(pid: int) -> None:
    """After it has said so, the futex is the only thing it can sleep on."""
    ends = time.monotonic() + PROMPT_SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < ends, "it never fell asleep"


def _processor_seconds(pid: int) -> float:
    return time.clock_gettime(~pid << 3 | 2)  # the kernel's number for the processor-time clock of another process


def test_a_changed_word_returns_at_once(arena: Arena) -> None:
    arena.bell[0] = 1
    started = time.perf_counter()

    assert wait_for_change(arena.bell, 0, LONG_SECONDS, Patience())

    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize("timeout", [0.0, -1.0, 0.02, 0.2])
def test_an_unchanged_word_is_waited_for_as_long_as_asked(arena: Arena, timeout: float) -> None:
    started = time.perf_counter()

    assert not wait_for_change(arena.bell, 0, timeout, Patience())

    waited = time.perf_counter() - started
    assert timeout - 1e-3 <= waited < timeout + PROMPT_SECONDS  # clocks of kernel and process differ a little


def test_a_waiting_process_is_woken_by_a_ring(arena: Arena, sleeper: "subprocess.Popen[str]") -> None:
    started = time.perf_counter()

    count_up(arena.bell)

    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "True\n"
    assert time.perf_counter() - started < PROMPT_SECONDS


def test_a_ring_without_a_change_is_told_from_a_change(arena: Arena, sleeper: "subprocess.Popen[str]") -> None:
    ring(arena.bell)

    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "False\n"


def test_a_ring_on_another_word_wakes_nobody(arena: Arena, sleeper: "subprocess.Popen[str]") -> None:
    announce(arena.slots[0].answered, 1)

    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.2)


def test_a_waiting_process_uses_no_processor(sleeper: "subprocess.Popen[str]") -> None:
    before = _processor_seconds(sleeper.pid)

    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.3)

    assert _processor_seconds(sleeper.pid) - before < 0.003


def test_the_largest_number_a_word_can_hold_is_seen(arena: Arena) -> None:
    arena.bell[0] = 2**32 - 1

    assert not wait_for_change(arena.bell, 2**32 - 1, 0.0, Patience())
    count_up(arena.bell)
    assert wait_for_change(arena.bell, 2**32 - 1, LONG_SECONDS, Patience())
    assert arena.bell[0] == 0


def test_a_bell_knows_its_sleepers(arena: Arena, sleeper: "subprocess.Popen[str]") -> None:
    assert arena.bell[1] == 1

    count_up(arena.bell)

    assert sleeper.wait(PROMPT_SECONDS) == 0
    assert arena.bell[1] == 0


def test_patience_follows_the_waits_and_forgets_a_long_silence(arena: Arena) -> None:
    patience = Patience()

    for _ in range(20):
        wait_for_change(arena.bell, 0, 150e-6, patience)
    usual = patience.expected
    wait_for_change(arena.bell, 0, 0.1, patience)

    assert 140e-6 < usual < 2e-3
    assert patience.expected < 10e-3


def test_where_there_are_more_processes_than_cores_nobody_ever_yields(arena: Arena) -> None:
    patience = Patience(crowded=True)

    for _ in range(40):
        wait_for_change(arena.bell, 0, 1e-4, patience)

    assert not patience.yields


def test_a_waiter_whose_core_is_shared_sleeps_at_once(arena: Arena) -> None:
    patience, cores = Patience(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])  # inherits the one core
    try:
        ends = time.monotonic() + LONG_SECONDS
        while patience.yields and time.monotonic() < ends:
            wait_for_change(arena.bell, 0, 1e-3, patience)
    finally:
        rival.kill()
        rival.wait()
        os.sched_setaffinity(0, cores)

    assert not patience.yields
    for _ in range(16):
        assert not patience.yields
        wait_for_change(arena.bell, 0, 1e-6, patience)
    assert patience.yields  # and tries again
