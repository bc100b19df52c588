"""Samples on disk: complete or absent, and in one order however they came."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from coupler.errors import CouplerError, FieldMismatch
from coupler.field import Field
from coupler.learning.draws import element_draws
from coupler.learning.samples import SampleBatch, SampleStore
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

    _assert_same(store.read(newest=1000), SampleBatch.join([_batch(1), _batch(2)]))


def test_the_order_of_delivery_does_not_matter(tmp_path: Path) -> None:
    whole = SampleBatch.join([_batch(1), _batch(1, call=1), _batch(2)])
    mixed = whole.take(np.random.default_rng(0).permutation(len(whole)))
    one, other = _store(tmp_path / "one"), _store(tmp_path / "other")

    one.append(whole)
    other.append(mixed.take(np.arange(70)))
    other.append(mixed.take(np.arange(70, len(whole))))

    _assert_same(one.read(newest=1000), other.read(newest=1000))


def test_the_newest_steps_are_read_up_to_the_capacity(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for step in range(1, 5):
        store.append(_batch(step))

    found = store.read(newest=120)

    assert len(found) == 120
    assert np.bincount(found.step).tolist() == [0, 0, 20, 50, 50]


def test_a_step_that_fits_in_part_is_drawn_from_everywhere(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_batch(1, count=10_000))

    ids = store.read(newest=1000).ids

    # Uniform over 0 ... 29997: the mean of 1000 draws has a standard deviation of 274.
    assert abs(ids.mean() - 15_000) < 5 * 274
    assert (np.diff(ids) > 0).all()


def test_samples_of_later_steps_can_be_left_out(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for step in range(1, 5):
        store.append(_batch(step))

    assert set(store.read(newest=60, until=2).step.tolist()) == {1, 2}


def test_an_element_written_twice_is_read_once(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(SampleBatch.join([_batch(1), _batch(2)]))
    store.append(SampleBatch.join([_batch(2), _batch(3)]))

    _assert_same(store.read(newest=1000), SampleBatch.join([_batch(1), _batch(2), _batch(3)]))


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

    _assert_same(store.read(newest=1000), _batch(1))
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
        store.read(newest=10)


def test_a_foreign_hdf5_file_is_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "reaction-00001.h5", "w") as file:
        file["pressure"] = np.zeros(3)

    with pytest.raises(CouplerError, match=r"reaction-00001\.h5"):
        _store(tmp_path).read(newest=10)


def test_samples_of_another_operator_are_refused(tmp_path: Path) -> None:
    _store(tmp_path).append(_batch(1))
    other = Signature(inputs=(Field("u"), Field("p")), outputs=(Field("u"),), atol=(1e-6,), rtol=(1e-3,))

    with pytest.raises(FieldMismatch, match="u, T"):
        SampleStore(tmp_path, "reaction", other).read(newest=10)


def test_an_empty_store_says_that_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(CouplerError, match="no samples"):
        _store(tmp_path).read(newest=10)


def test_operators_with_similar_names_keep_apart(tmp_path: Path) -> None:
    SampleStore(tmp_path, "reaction-fast", SIGNATURE).append(_batch(9))
    _store(tmp_path).append(_batch(1))

    assert set(_store(tmp_path).read(newest=1000).step.tolist()) == {1}


def test_draws_are_uniform_and_independent_between_purposes() -> None:
    ids = np.arange(100_000)
    zeros = np.zeros_like(ids)

    first, second = (element_draws(zeros, zeros, ids, purpose=purpose) for purpose in (1, 2))

    # Five standard deviations of a mean of 1e5 uniform numbers, and of their correlation.
    assert abs(first.mean() - 0.5) < 5 * 0.29 / 316
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 316
    assert first.min() >= 0
    assert first.max() < 1
