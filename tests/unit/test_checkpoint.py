"""Checkpoints: every bit comes back, whatever is damaged is found, and the newest few that are whole stay."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.checkpoint import Checkpoint, Column, Shelf, from_plain, to_plain, write_checkpoint
from coupler.errors import CouplerError
from tests.unit.full_disk import files_of_at_most

FIELD = np.random.default_rng(1).normal(size=(7, 5))


class Colour(Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Thing:
    number: Any
    more: tuple[Any, ...] = ()


KNOWN = {"Colour": Colour, "Pair": Pair, "Thing": Thing}
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    NUMBERS | st.sampled_from(list(Colour)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.builds(Thing, inner, st.lists(inner, max_size=2).map(tuple))
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_records_come_back_from_json_as_they_were(value: object) -> None:
    again = from_plain(json.loads(json.dumps(to_plain(value))), KNOWN)

    assert again == value
    assert type(again) is type(value)


def test_whole_numbers_of_any_size_and_numbers_that_are_none_come_back() -> None:
    value = Thing(2**200 + 1, (math.inf, -math.inf, np.float64(0.1), np.int64(7), np.bool_(True)))

    again = from_plain(json.loads(json.dumps(to_plain(value))), KNOWN)

    assert again == value
    assert math.isnan(from_plain(json.loads(json.dumps(to_plain(math.nan))), {}))


def test_arrays_come_back_bit_by_bit() -> None:
    for array in (FIELD, FIELD[::2].T, np.arange(3, dtype=np.uint8), np.empty((0, 3)), np.array([np.nan, -0.0])):
        again = from_plain(json.loads(json.dumps(to_plain(array))), {})
        assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_a_record_that_nobody_expects_is_not_made() -> None:
    with pytest.raises(ValueError, match='no record called "Popen" in this version'):
        from_plain({"record": "Popen", "fields": {"args": "true"}}, KNOWN)
    with pytest.raises(ValueError, match='the record "Thing" has another form'):
        from_plain({"record": "Thing", "fields": {"width": 1}}, KNOWN)


def test_what_cannot_be_kept_is_said_before_anything_is_written() -> None:
    with pytest.raises(CouplerError, match="cannot keep function: state that is to outlive the run must be"):
        to_plain(Thing(test_what_cannot_be_kept_is_said_before_anything_is_written))


def put(shelf: Shelf, step: int, arrays: Mapping[str, np.ndarray] | None = None, keep: int = 2) -> None:
    arrays = {"fields/u": FIELD * step} if arrays is None else arrays
    columns = [Column(name, partial(np.asarray, array)) for name, array in arrays.items()]
    shelf.put(step, columns, lambda: {"step": step, "time": 0.5 * step}, keep)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "checkpoints")


def test_arrays_and_facts_are_there_and_hdf5_can_read_them(shelf: Shelf) -> None:
    put(shelf, 3, {"fields/u": FIELD, "sum": np.arange(9), "empty": np.empty((0, 4))})

    found = Checkpoint.read(shelf.path(3))

    assert (found.step, found.facts["time"]) == (3, 1.5)
    np.testing.assert_array_equal(found.array("fields/u"), FIELD)
    np.testing.assert_array_equal(found.array("fields/u", (slice(2, 4), slice(1, 3))), FIELD[2:4, 1:3])
    assert found.array("empty").shape == (0, 4)
    assert found.names("fields") == ["u"]
    assert found.names("nothing") == []
    with h5py.File(shelf.path(3)) as file:
        assert file["sum"][:].tolist() == list(range(9))


def test_ranks_that_only_hand_over_write_nothing() -> None:
    asked = []

    write_checkpoint(None, [Column("u", lambda: asked.append("u"))], dict)

    assert asked == ["u"]


def test_the_newest_few_stay(shelf: Shelf) -> None:
    for step in (0, 10, 20, 30):
        put(shelf, step, keep=2)

    assert shelf.steps() == [20, 30]
    assert shelf.newest().step == 30
    assert [path.name for path in sorted(shelf.folder.iterdir())] == ["step-000000020.h5", "step-000000030.h5"]


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = data.find((FIELD * 20).tobytes())
    data[place + 11] ^= 4
    path.write_bytes(data)


def _flip_facts(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"time": 10.0', b'"time": 11.0'))


def _foreign(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["u"] = FIELD


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _flip,
        _flip_facts,
        _foreign,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 9999),
    ],
    ids=["cut short", "a bit of a field", "a fact", "foreign", "empty", "no HDF5"],
)
def test_a_damaged_newest_one_gives_way_to_the_one_before(
    shelf: Shelf, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    put(shelf, 10)
    put(shelf, 20)
    damage(shelf.path(20))

    found = shelf.newest()

    assert found.step == 10
    (said,) = caplog.messages
    assert said.startswith(f"{shelf.path(20)} cannot be used (")
    assert said.endswith("the run goes on from the checkpoint before it, of step 10.")


def test_where_none_is_whole_or_there_is_none_it_is_one_sentence(shelf: Shelf) -> None:
    with pytest.raises(CouplerError, match="has no checkpoint to go on from"):
        shelf.newest()
    put(shelf, 10)
    _cut(shelf.path(10))
    with pytest.raises(CouplerError, match=r"No checkpoint of .* can be used: .*step-000000010\.h5 cannot be used"):
        shelf.newest()


def test_a_writer_that_is_killed_leaves_the_one_before_and_nothing_that_counts(shelf: Shelf) -> None:
    put(shelf, 10)
    killed = f"""
import os, signal
from pathlib import Path
import numpy as np
from coupler.checkpoint import Column, Shelf
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
Shelf(Path({str(shelf.folder)!r})).put(20, [Column("u", lambda: np.ones(10**6)), Column("v", kill)], dict, 1)
"""

    done = subprocess.run([sys.executable, "-c", killed], check=False, timeout=60)

    assert done.returncode == -signal.SIGKILL
    assert shelf.newest().step == 10
    assert len(list(shelf.folder.glob(".*.part"))) == 1
    shelf.forget_after(10)
    assert [path.name for path in shelf.folder.iterdir()] == ["step-000000010.h5"]


def test_a_full_disk_leaves_the_checkpoints_before_and_no_half_one(shelf: Shelf) -> None:
    put(shelf, 10)

    with files_of_at_most(200_000), pytest.raises(OSError, match="File too large") as full:
        put(shelf, 20, {"u": np.ones(10**6)})

    assert full.value.errno == errno.EFBIG
    assert [path.name for path in shelf.folder.iterdir()] == ["step-000000010.h5"]
    assert shelf.newest().step == 10
