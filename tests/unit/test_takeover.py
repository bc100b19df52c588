"""An arena is answered by one process: whoever takes it over ends who had it before."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from coupler.exchange import Arena, ArenaLayout, SharedTransport, SlotShape
from coupler.exchange.takeover import take_over
from coupler.records import Reason

HOLDER = """
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, SlotShape
from coupler.exchange.segment import SegmentAddress
from coupler.exchange.takeover import take_over
import time
arena = Arena.attach({address!r})
take_over(arena)
print("mine", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def arena() -> Iterator[Arena]:
    with closing(Arena.create(ArenaLayout((SlotShape(0, 8, 2, 2),)))) as made:
        yield made


def start(code: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "mine"
    return process


def test_who_stands_still_is_ended_and_never_answers_again(arena: Arena) -> None:
    before = start(HOLDER.format(address=arena.address))
    before.send_signal(signal.SIGSTOP)

    take_over(arena)

    assert before.wait(10) == -signal.SIGKILL
    assert arena.server_pid[0] == os.getpid()


def test_a_stranger_who_was_given_the_same_number_is_left_alone(arena: Arena) -> None:
    stranger = start("import time; print('mine', flush=True); time.sleep(1000)")
    arena.server_pid[0] = stranger.pid

    take_over(arena)

    assert stranger.poll() is None
    stranger.kill()
    stranger.communicate()


def test_a_rank_turns_to_the_new_server_between_two_questions(arena: Arena) -> None:
    before = start(HOLDER.format(address=arena.address))
    transport = SharedTransport(arena, 0)
    before.kill()
    before.communicate()
    seen = [(transport.lost, transport.renew())]

    take_over(arena)

    seen += [(transport.renew(), transport.lost), (transport.renew(), transport.lost)]
    assert seen == [(True, False), (True, False), (False, False)]


def test_a_question_to_a_server_that_died_is_there_for_the_next_one(arena: Arena) -> None:
    before = start(HOLDER.format(address=arena.address))
    transport = SharedTransport(arena, 0)
    transport.inputs(3)[...] = 1.0
    transport.ask(3, 0.5, 1)
    before.kill()
    before.communicate()
    assert transport.answer(5.0).reason is Reason.SERVER_LOST

    take_over(arena)
    arena.slots[0].answer(arena.slots[0].number, 0.1)

    assert transport.renew()
    assert transport.answer(5.0).arrived


def test_nobody_waits_for_a_server_of_an_arena_that_was_dismissed(arena: Arena) -> None:
    arena.server_pid[0] = os.getpid()
    transport = SharedTransport(arena, 0)
    arena.dismiss()

    assert not transport.renew(patience=1000.0)
