"""The arena: where everything lies in the segment, who may open it, and that it leaves nothing behind."""

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.exchange import Arena, ArenaLayout, Desk, SharedTransport, Slot, SlotShape
from tests.unit.full_disk import files_of_at_most

if TYPE_CHECKING:
    from tests.conftest import Processes

CACHE_LINE = 64
LAYOUT = ArenaLayout((SlotShape(0, 10, 3, 2), SlotShape(1, 4, 1, 1)))

shapes = st.builds(SlotShape, st.integers(0, 3), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
layouts = st.lists(shapes, max_size=6).map(lambda slots: ArenaLayout(tuple(slots)))


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena.create(LAYOUT)
    yield arena
    arena.close()


def _place(array: NDArray[Any]) -> range:
    start = array.__array_interface__["data"][0]
    return range(start, start + array.nbytes)


def _asked(slot: Slot) -> list[NDArray[Any]]:
    """What only the rank writes."""
    return [slot.words[: CACHE_LINE // 4]]


def _answered(slot: Slot) -> list[NDArray[Any]]:
    """What only the server writes."""
    return [slot.words[CACHE_LINE // 4 :]]


@given(layout=layouts)
@settings(deadline=None)
def test_nothing_overlaps_and_everything_is_inside(layout: ArenaLayout) -> None:
    arena = Arena.create(layout)

    arrays: list[NDArray[Any]] = [arena.bell, arena.stop, arena.server_pid]
    for slot in arena.slots:
        arrays += [*_asked(slot), *_answered(slot), slot.inputs, slot.mean, slot.score]
    places = sorted((_place(array) for array in arrays), key=lambda place: place.start)
    assert all(before.stop <= after.start for before, after in pairwise(places))
    start = _place(arena.bell).start
    assert places[0].start == start
    assert places[-1].stop <= start + layout.bytes == start + os.fstat(arena.address.segment.descriptor).st_size
    arena.close()


@given(layout=layouts)
@settings(deadline=None)
def test_what_different_processes_write_never_shares_a_cache_line(layout: ArenaLayout) -> None:
    arena = Arena.create(layout)

    groups: list[list[NDArray[Any]]] = [[arena.bell], [arena.stop], [arena.server_pid]]
    for slot in arena.slots:
        groups += [_asked(slot), _answered(slot), [slot.inputs], [slot.mean, slot.score]]
    lines = [{byte // CACHE_LINE for array in group for byte in _place(array)} for group in groups]
    assert sum(map(len, lines)) == len(set().union(*lines))
    arena.close()


@given(layout=layouts)
@settings(deadline=None)
def test_arrays_start_on_cache_lines_and_have_the_declared_shapes(layout: ArenaLayout) -> None:
    arena = Arena.create(layout)

    assert len(arena.slots) == len(layout.slots)
    for index, (slot, shape) in enumerate(zip(arena.slots, layout.slots, strict=True)):
        assert slot.inputs.shape == (shape.capacity, shape.n_in)
        assert slot.mean.shape == (shape.capacity, shape.n_out)
        assert slot.score.shape == (shape.capacity,)
        for array in (slot.words, slot.answered, slot.inputs, slot.mean, slot.score):
            assert _place(array).start % CACHE_LINE == 0
        assert layout.offset(index) == _place(slot.words).start - _place(arena.bell).start
        assert layout.offset(index) % CACHE_LINE == shape.bytes % CACHE_LINE == 0
    arena.close()


def test_a_fresh_arena_is_all_zeros_and_nothing_is_pending(arena: Arena) -> None:
    assert (arena.bell[0], arena.stop[0], arena.server_pid[0]) == (0, 0, 0)
    for slot in arena.slots:
        assert not slot.inputs.any()
        assert not slot.mean.any()
        assert not slot.pending


def test_a_slot_is_pending_until_the_numbers_are_the_same(arena: Arena) -> None:
    slot = arena.slots[0]

    slot.ask(arena.bell, 3, 0.5, 1)
    slot.ask(arena.bell, 3, 0.5, 1)
    assert slot.pending
    slot.answer(1, 0.0)  # late: the answer to a question before
    assert slot.pending
    slot.answer(2, 0.0)
    assert arena.slots[0].answered[0] == slot.number
    assert arena.bell[0] == 2


def test_only_its_user_may_open_the_segment_and_it_has_no_name(arena: Arena) -> None:
    status = Path(f"/proc/self/fd/{arena.address.segment.descriptor}").stat()

    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.getuid()
    assert status.st_nlink == 0
    assert status.st_dev != Path("/dev/shm").stat().st_dev
    assert not os.get_inheritable(arena.address.segment.descriptor)


ATTACH = """
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, Desk, SlotShape
from coupler.exchange.segment import SegmentAddress
arena = Arena.attach({address!r})
for batch in Desk(arena).batches(0.0):
    for rows in batch.parts:
        rows.mean[...] = 10 * rows.inputs
    print(arena.server_pid[0], batch.operator, batch.version, batch.numbers, [rows.dt for rows in batch.parts])
    batch.answer(0.25)
"""


def test_another_process_reads_and_writes_the_same_memory(arena: Arena, processes: "Processes") -> None:
    slot = arena.slots[1]
    arena.server_pid[0] = 77
    slot.inputs[:2, 0] = 1.5, -2.5
    slot.ask(arena.bell, 2, 0.1, 5)

    said = processes.run([sys.executable, "-c", ATTACH.format(address=arena.address)], timeout=60).stdout

    assert said.split() == ["77", "1", "5", "[1]", "[0.1]"]
    assert slot.mean[:2, 0].tolist() == [15.0, -25.0]
    assert not slot.pending
    assert not arena.slots[0].mean.any()


GROWTH = """
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, Desk, SlotShape
from coupler.exchange.segment import SegmentAddress
arena = Arena.attach({address!r})
desk = Desk(arena)
print("listening", flush=True)
while desk.open:
    for batch in desk.batches(0.2):
        for rows in batch.parts:
            rows.mean[...] = 10 * rows.inputs[:, :2]
        batch.answer(0.0)
"""


def test_a_slot_that_grows_is_followed_by_whoever_answers(arena: Arena, processes: "Processes") -> None:
    server = processes.start([sys.executable, "-c", GROWTH.format(address=arena.address)])
    server.until(lambda: "listening" in server.said, within=60)
    arena.server_pid[0] = server.pid
    transport = SharedTransport(arena, 0, most=5000)

    for count in (10, 11, 0, 4000, 1, 5000, 5000):
        rows = np.random.default_rng(count).random((count, 3))
        transport.inputs(count)[...] = rows
        transport.ask(count, 0.1, 1)
        answer = transport.answer(60.0)
        assert answer.arrived
        np.testing.assert_array_equal(answer.mean, 10 * rows[:, :2])

    assert arena.slots[0].capacity == transport.capacity == 5000
    assert np.shares_memory(transport.inputs(7), transport.inputs(5000))
    arena.dismiss()
    assert server.end(60).returncode == 0


def test_a_rank_that_moved_and_died_is_passed_over(arena: Arena) -> None:
    desk, slot = Desk(Arena.attach(arena.address)), arena.slots[0]
    slot.grow(50)
    slot.ask(arena.bell, 20, 0.1, 1)
    slot.close()

    assert not desk.batches(0.0)
    assert not slot.pending


def test_growing_without_room_leaves_the_slot_as_it_was(arena: Arena) -> None:
    slot = arena.slots[0]
    slot.inputs[...] = 1.0

    with files_of_at_most(2**20), pytest.raises(CouplerError, match="no 4 MiB of shared memory left"):
        slot.grow(2**16 + 2**15)

    assert slot.capacity == 10
    assert slot.inputs.sum() == 30.0


def test_the_memory_outlives_the_descriptor_for_those_who_map_it(arena: Arena) -> None:
    attached = Arena.attach(arena.address)

    attached.close()
    attached.close()
    arena.slots[0].mean[0, 0] = 3.0

    assert attached.slots[0].mean[0, 0] == 3.0


def test_a_segment_whose_owner_is_gone_cannot_be_attached(arena: Arena, processes: "Processes") -> None:
    pid = int(processes.run([sys.executable, "-c", "import os; print(os.getpid())"], timeout=60).stdout)

    with pytest.raises(CouplerError, match=f"memory of process {pid} cannot be opened.*exchange.transport=inprocess"):
        Arena.attach(replace(arena.address, segment=replace(arena.address.segment, pid=pid)))


def test_a_descriptor_that_was_given_out_again_is_no_arena(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(bytes(LAYOUT.bytes))
    arena = Arena.create(LAYOUT)
    address = arena.address
    arena.close()
    file = os.open(tmp_path / "precious", os.O_RDWR)
    os.dup2(file, address.segment.descriptor)

    with pytest.raises(CouplerError, match=f"memory of process {os.getpid()} cannot be opened"):
        Arena.attach(address)

    for descriptor in {file, address.segment.descriptor}:
        os.close(descriptor)


def test_a_node_without_room_is_a_sentence() -> None:
    with (
        files_of_at_most(2**20),
        pytest.raises(CouplerError, match=r"no 8 MiB of shared memory left.*smaller exchange\.slot_elements"),
    ):
        Arena.create(ArenaLayout((SlotShape(0, 2**18, 2, 1),)))


def test_arenas_that_are_gone_give_their_memory_and_descriptors_back() -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count("memfd:coupler")

    before = held()

    for _ in range(3):
        Arena.create(LAYOUT).close()

    assert held() == before


def test_views_into_the_arena_are_arrays_without_a_copy(arena: Arena) -> None:
    slot = arena.slots[0]

    assert slot.inputs.flags.c_contiguous
    assert slot.inputs.flags.aligned
    assert slot.inputs.dtype == np.float64
    assert slot.words.dtype == np.uint32


def test_more_than_the_node_has_is_refused_before_it_is_taken() -> None:
    with pytest.raises(CouplerError, match=r"no [0-9]+ MiB of shared memory left.*MiB are free"):
        Arena.create(ArenaLayout((SlotShape(0, 2**56, 1, 1),)))
