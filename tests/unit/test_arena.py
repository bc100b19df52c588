"""The arena: where everything lies in the segment, who may open it, and that it leaves nothing behind."""

import os
import resource
import stat
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, Slot, SlotShape

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
    return [slot.request, slot.count, slot.version, slot.dt]


def _answered(slot: Slot) -> list[NDArray[Any]]:
    """What only the server writes."""
    return [slot.answer, slot.seconds]


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
    assert places[-1].stop <= start + layout.bytes == start + os.fstat(arena.address.descriptor).st_size
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
        for array in (slot.request, slot.answer, slot.inputs, slot.mean, slot.score):
            assert _place(array).start % CACHE_LINE == 0
        assert layout.offset(index) == _place(slot.request).start - _place(arena.bell).start
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

    slot.request[0] = 2
    assert slot.pending
    slot.answer[0] = 1  # late: the answer to a question before
    assert slot.pending
    slot.answer[0] = 2
    assert not slot.pending


def test_only_its_user_may_open_the_segment_and_it_has_no_name(arena: Arena) -> None:
    status = Path(f"/proc/self/fd/{arena.address.descriptor}").stat()

    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.getuid()
    assert status.st_nlink == 0
    assert status.st_dev != Path("/dev/shm").stat().st_dev
    assert not os.get_inheritable(arena.address.descriptor)


ATTACH = """
import sys
from coupler.exchange import Arena, ArenaAddress, ArenaLayout, SlotShape
arena = Arena.attach({address!r})
slot = arena.slots[1]
slot.mean[:2] = 10 * slot.inputs[:2]
slot.answer[0] = slot.request[0]
print(arena.server_pid[0], slot.request[0], slot.dt[0])
"""


def test_another_process_reads_and_writes_the_same_memory(arena: Arena, processes: "Processes") -> None:
    slot = arena.slots[1]
    arena.server_pid[0], slot.request[0], slot.dt[0] = 77, 2**32 - 1, 0.1
    slot.inputs[:2, 0] = 1.5, -2.5

    said = processes.run([sys.executable, "-c", ATTACH.format(address=arena.address)], timeout=60).stdout

    assert said.split() == ["77", "4294967295", "0.1"]
    assert slot.mean[:2, 0].tolist() == [15.0, -25.0]
    assert not slot.pending
    assert not arena.slots[0].mean.any()


def test_the_memory_outlives_the_descriptor_for_those_who_map_it(arena: Arena) -> None:
    attached = Arena.attach(arena.address)

    attached.close()
    attached.close()
    arena.slots[0].mean[0, 0] = 3.0

    assert attached.slots[0].mean[0, 0] == 3.0


def test_a_segment_whose_owner_is_gone_cannot_be_attached(arena: Arena, processes: "Processes") -> None:
    pid = int(processes.run([sys.executable, "-c", "import os; print(os.getpid())"], timeout=60).stdout)

    with pytest.raises(CouplerError, match=f"arena of process {pid} cannot be opened.*exchange.transport=inprocess"):
        Arena.attach(ArenaAddress(pid, arena.address.descriptor, LAYOUT))


def test_a_descriptor_that_was_given_out_again_is_no_arena(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(bytes(LAYOUT.bytes))
    arena = Arena.create(LAYOUT)
    address = arena.address
    arena.close()
    file = os.open(tmp_path / "precious", os.O_RDWR)
    os.dup2(file, address.descriptor)

    with pytest.raises(CouplerError, match=f"arena of process {os.getpid()} cannot be opened"):
        Arena.attach(address)

    for descriptor in {file, address.descriptor}:
        os.close(descriptor)


def test_a_node_without_room_is_a_sentence() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(CouplerError, match=r"no 8 MiB of shared memory left.*smaller exchange\.slot_elements"):
            Arena.create(ArenaLayout((SlotShape(0, 2**18, 2, 1),)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_arenas_that_are_gone_give_their_memory_and_descriptors_back() -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count("coupler-arena")

    before = held()

    for _ in range(3):
        Arena.create(LAYOUT).close()

    assert held() == before


def test_views_into_the_arena_are_arrays_without_a_copy(arena: Arena) -> None:
    slot = arena.slots[0]

    assert slot.inputs.flags.c_contiguous
    assert slot.inputs.flags.aligned
    assert slot.inputs.dtype == np.float64
    assert slot.request.dtype == np.uint32
