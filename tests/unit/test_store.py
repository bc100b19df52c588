"""Samples on disk: complete or absent, and in one order however they came."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from coupler.errors import CouplerError, FieldMismatch
from coupler.field import Field
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.operator import Signature

SIGNATURE = Signature(
    inputs=(Field("u", unit="mol/m3"), Field("T", unit="K")),
    outputs=(Field("u", unit="mol/m3"),),
    atol=(1e-6,),
    rtol=(1e-3,),
)
COLUMNS = ("inputs", "dt", "truth", "step", "call", "ids", "reason")


def _batch(step: int, count: int = 50, *, call: int = 0) -> SampleBatch:
    random = np.random.default_rng([step, call])
    return SampleBatch(
        inputs=random.random((count, 2)),
        dt=np.full(count, 0.5),
        truth=random.random((count, 1)),
        step=np.full(count, step),
        call=np.full(count, call),
        ids=np.arange(count) * 3,
        reason=np.full(count, 7, np.uint8),
    )


def _store(folder: Path) -> SampleStore:
    return SampleStore(folder, "reaction", SIGNATURE)


def _assert_same(first: SampleBatch, second: SampleBatch) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype == getattr(second, name).dtype


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    store = _store(tmp_path)

    store.append(_batch(1))
    store.append(_batch(2))

    _assert_same(store.read().samples, SampleBatch.join([_batch(1), _batch(2)]))


def test_the_order_of_delivery_does_not_matter(tmp_path: Path) -> None:
    whole = SampleBatch.join([_batch(1), _batch(1, call=1), _batch(2)])
    mixed = whole.take(np.random.default_rng(0).permutation(len(whole)))
    one, other = _store(tmp_path / "one"), _store(tmp_path / "other")

    one.append(whole)
    other.append(mixed.take(np.arange(70)))
    other.append(mixed.take(np.arange(70, len(whole))))

    _assert_same(one.read().samples, other.read().samples)


def test_an_element_written_twice_is_read_once(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(SampleBatch.join([_batch(1), _batch(2)]))
    store.append(SampleBatch.join([_batch(2), _batch(3)]))

    _assert_same(store.read().samples, SampleBatch.join([_batch(1), _batch(2), _batch(3)]))


def test_one_append_makes_one_file_that_names_its_columns(tmp_path: Path) -> None:
    path = _store(tmp_path).append(_batch(1))

    assert [item.name for item in tmp_path.iterdir()] == ["reaction-00001.h5"]
    with h5py.File(path) as file:
        assert list(file["inputs"].attrs["names"]) == ["u", "T"]
        assert list(file["inputs"].attrs["units"]) == ["mol/m3", "K"]
        assert list(file["truth"].attrs["names"]) == ["u"]


def test_a_writer_killed_in_the_middle_leaves_the_store_readable(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_batch(1))
    (tmp_path / ".reaction-00002.h5.part").write_bytes(b"half a segment")

    _assert_same(store.read().samples, _batch(1))
    assert store.append(_batch(2)).name == "reaction-00002.h5"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_segment_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    store = _store(tmp_path)
    path = store.append(_batch(1, count=2000))
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        place = content.find(_batch(1, count=2000).truth[1000].tobytes())
        assert place > 0
        content[place] ^= 1
    else:
        content = bytearray(b"" if damage == "empty" else b"something else altogether")
    path.write_bytes(bytes(content))

    with pytest.raises(CouplerError, match=r"reaction-00001\.h5"):
        store.read()


def test_a_foreign_hdf5_file_is_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "reaction-00001.h5", "w") as file:
        file["pressure"] = np.zeros(3)

    with pytest.raises(CouplerError, match=r"reaction-00001\.h5"):
        _store(tmp_path).read()


def test_samples_of_another_operator_are_refused(tmp_path: Path) -> None:
    _store(tmp_path).append(_batch(1))
    other = Signature(inputs=(Field("u"), Field("p")), outputs=(Field("u"),), atol=(1e-6,), rtol=(1e-3,))

    with pytest.raises(FieldMismatch, match="u, T"):
        SampleStore(tmp_path, "reaction", other).read()


def test_an_empty_store_says_that_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(CouplerError, match="no samples"):
        _store(tmp_path).read()


def test_operators_with_similar_names_keep_apart(tmp_path: Path) -> None:
    SampleStore(tmp_path, "reaction-fast", SIGNATURE).append(_batch(9))
    _store(tmp_path).append(_batch(1))

    assert set(_store(tmp_path).read().samples.step.tolist()) == {1}


def test_a_compacted_store_is_one_file_with_what_was_kept_and_knows_where_the_run_began(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for step in (3, 5, 8):
        store.append(_batch(step))
    history = store.read()

    store.compact(history, history.samples.take(history.samples.ids % 2 == 0))
    again = store.read()

    assert [item.name for item in tmp_path.iterdir()] == ["reaction-00003.h5"]
    assert (again.began_until, again.segments) == (3, (3,))
    _assert_same(again.samples, history.samples.take(history.samples.ids % 2 == 0))


def test_what_was_appended_since_the_store_was_read_outlives_its_compaction(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_batch(1))
    store.append(_batch(2))
    history = store.read()
    store.append(_batch(9))

    store.compact(history, history.samples.take(history.samples.step == 2))

    assert set(store.read().samples.step.tolist()) == {2, 9}
    assert store.read().began_until == 1
    assert store.append(_batch(10)).name == "reaction-00004.h5"


@pytest.mark.parametrize("deleted", [(), ("reaction-00002.h5",)], ids=["none deleted", "one deleted"])
def test_a_compaction_killed_in_the_middle_loses_nothing(tmp_path: Path, deleted: tuple[str, ...]) -> None:
    store = _store(tmp_path)
    for step in (1, 2, 3):
        store.append(_batch(step))
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}
    history = store.read()
    store.compact(history, history.samples)
    for path, content in old.items():  # the compacted segment is in place, the others are still there
        if path.name not in (*deleted, "reaction-00003.h5"):
            path.write_bytes(content)

    again = store.read()

    _assert_same(again.samples, history.samples)
    assert again.began_until == history.began_until == 1
    store.compact(again, again.samples)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_compaction_clears_up_after_one_that_was_killed_and_leaves_an_append_alone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_batch(1))
    store.append(_batch(2))
    for name in (".reaction-00002.h5.part", ".reaction-00003.h5.part", ".reaction-fast-00001.h5.part"):
        (tmp_path / name).write_bytes(b"half a segment")

    store.compact(store.read(), _batch(2))

    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".reaction-00003.h5.part", ".reaction-fast-00001.h5.part", "reaction-00002.h5"]


def test_a_compaction_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path)
    written = store.append(_batch(1)).stat()

    store.compact(store.read(), _batch(1))

    assert (tmp_path / "reaction-00001.h5").stat().st_ino == written.st_ino


def test_segments_from_before_there_were_compactions_are_read(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for step in (4, 6):
        with h5py.File(store.append(_batch(step)), "r+") as file:
            del file.attrs["began_until"]

    assert store.read().began_until == 4


def test_samples_after_a_step_are_forgotten_and_the_first_ones_stay_the_first(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_batch(1))
    store.append(SampleBatch.join([_batch(2), _batch(3)]))
    store.append(_batch(4))

    store.rewind(2, stored=True)
    store.rewind(2, stored=True)  # a resumption that was killed begins again

    _assert_same(store.read().samples, SampleBatch.join([_batch(1), _batch(2)]))
    assert store.read().began_until == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reaction-00001.h5", "reaction-00002.h5"]


def test_where_nothing_had_been_stored_nothing_stays(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_batch(1))

    store.rewind(5, stored=False)

    assert not list(tmp_path.iterdir())
