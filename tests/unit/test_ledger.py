"""The ledger: what is appended is what is read, in few files that are whole at every moment, whoever looks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.controller import SCORE_BINS, SCORE_ROWS, score_edges
from coupler.errors import ConfigError, CouplerError
from coupler.ledger import AUDIT, EVENT, RECORD, SEGMENT_BYTES, STEP, TABLES, Ledger, LedgerFile, read_ledger
from coupler.records import Decision, Reason

KEYS = ("step", "call", "operator", "rank")
NAMES = ("reaction", "melting")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.h5"


def _rows(count: int, seed: int = 0, dtype: "np.dtype[np.void]" = RECORD) -> NDArray[np.void]:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, dtype)
    for name in dtype.names or ():
        kind = dtype[name].base.kind
        most = 2 if kind == "b" else 5 if name in KEYS or kind == "u" else 99
        numbers = random.integers(0, most if name != "operator" else 2, rows[name].shape)
        rows[name] = [str(number).encode() for number in numbers] if kind == "S" else numbers
    return rows


def _sorted(rows: NDArray[np.void]) -> NDArray[np.void]:
    return rows[np.lexsort(tuple(rows[key] for key in reversed(KEYS)))]


def _segments(path: Path) -> list[str]:
    return sorted(file.name for file in path.with_suffix("").iterdir())


def test_what_is_appended_is_what_is_read(path: Path) -> None:
    ledger, rows = LedgerFile(path, NAMES), _rows(50)

    for part in np.split(rows, [20, 20, 21]):
        ledger.append(part)

    np.testing.assert_array_equal(read_ledger(path), _sorted(rows))


@pytest.mark.parametrize("closed", [False, True])
def test_every_table_comes_back_from_open_and_from_full_segments(path: Path, closed: bool) -> None:
    tables = {name: _rows(30, seed, dtype) for seed, (name, dtype) in enumerate(TABLES.items())}
    ledger = LedgerFile(path, NAMES, segment_bytes=20_000)

    for place in range(0, 30, 7):
        part = {name: rows[place : place + 7] for name, rows in tables.items()}
        ledger.append(part.pop("records"), part)
    if closed:
        ledger.close()

    read = Ledger(path)
    for name, rows in tables.items():
        found = getattr(read, name)
        assert found.dtype == TABLES[name]
        np.testing.assert_array_equal(np.sort(found), np.sort(rows))
    assert len(_segments(path)) > 1


def test_any_reader_of_hdf5_sees_one_table(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, rows = LedgerFile(path, NAMES, segment_bytes=1000), _rows(40)
    for part in np.split(rows, 8):
        ledger.append(part)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # paths in the file are relative to the file

    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["records"][:], rows)


def test_a_folder_that_has_moved_is_read_where_it_is(path: Path, tmp_path: Path) -> None:
    LedgerFile(path, NAMES).append(_rows(3))
    (tmp_path / "new").mkdir()

    for name in ("ledger.h5", "ledger"):
        (tmp_path / name).rename(tmp_path / "new" / name)

    assert len(Ledger(tmp_path / "new").records) == 3


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 40), max_size=12), size=st.integers(1, 20_000))
def test_the_number_of_files_hangs_on_the_bytes_and_not_on_how_often_is_written(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], size: int
) -> None:
    path = tmp_path_factory.mktemp("bound") / "ledger.h5"
    ledger = LedgerFile(path, NAMES, segment_bytes=size)

    for count in counts:
        ledger.append(_rows(count))

    assert len(_segments(path)) <= 1 + sum(counts) * RECORD.itemsize // size
    assert len(read_ledger(path)) == sum(counts)


def test_three_days_of_a_thousand_ranks_are_a_few_thousand_files() -> None:
    steps, ranks = 3 * 86_400, 1024  # one step and call a second

    assert steps * (ranks * RECORD.itemsize + STEP.itemsize) / SEGMENT_BYTES < 4000


def test_an_empty_ledger_is_read_as_one(path: Path) -> None:
    LedgerFile(path, NAMES[:1]).append(_rows(0))

    assert len(read_ledger(path)) == 0
    assert read_ledger(path).dtype == RECORD
    assert _segments(path) == []


def test_the_file_says_what_its_numbers_mean(path: Path) -> None:
    LedgerFile(path, NAMES)

    with h5py.File(path) as file:
        attributes = file["records"].attrs
        assert list(attributes["operators"]) == list(NAMES)
        assert list(attributes["reasons"]) == [reason.name.lower() for reason in Reason]
        assert all(len(sentence.split()) > 3 for sentence in attributes["reason_sentences"])
        assert attributes["loss_unit"] == 2.0**-32
        np.testing.assert_array_equal(file["steps"].attrs["score_edges"], score_edges(1.0))
        assert file["steps"].dtype["scores"].shape == (SCORE_ROWS, SCORE_BINS)
        assert sorted(file) == sorted(TABLES)


def test_a_ledger_is_never_overwritten(path: Path) -> None:
    LedgerFile(path, NAMES).append(_rows(3))

    with pytest.raises(FileExistsError):
        LedgerFile(path, NAMES)

    assert len(read_ledger(path)) == 3


def test_somebody_who_looks_at_the_ledger_does_not_end_the_run(path: Path) -> None:
    ledger = LedgerFile(path, NAMES)
    ledger.append(_rows(3))

    with h5py.File(path) as looking:
        ledger.append(_rows(2))
        assert len(looking["records"]) == 3

    assert len(read_ledger(path)) == 5


@pytest.mark.parametrize("writes", [1, 4, 9])
def test_a_writer_that_is_killed_leaves_all_that_it_had_written(path: Path, writes: int) -> None:
    code = f"""
import numpy as np, itertools
from pathlib import Path
from coupler.ledger import RECORD, LedgerFile
ledger = LedgerFile(Path({str(path)!r}), ("one",), segment_bytes=2000)
for step in itertools.count():
    rows = np.zeros(4, RECORD)
    rows["step"] = step
    ledger.append(rows)
    print(step, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(writes)]
        os.kill(writer.pid, signal.SIGKILL)

    rows = read_ledger(path)
    assert len(rows) >= 4 * writes
    np.testing.assert_array_equal(rows["step"], np.arange(len(rows)) // 4)
    assert said == list(range(writes))
    assert all(h5py.is_hdf5(path.with_suffix("") / name) for name in _segments(path) if not name.startswith("."))


def test_a_ledger_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CouplerError, match=r"run/ledger\.h5 is missing, .*give the folder of a run"):
        read_ledger(tmp_path / "run" / "ledger.h5")


@pytest.mark.parametrize("contents", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_no_ledger_is_one_sentence(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)

    with pytest.raises(CouplerError, match=r"ledger\.h5 cannot be read \(.*\): it is cut short or no ledger"):
        read_ledger(path)


def test_somebody_else_s_hdf5_is_one_sentence(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["temperature"] = np.arange(3.0)

    with pytest.raises(CouplerError, match=r"ledger\.h5 cannot be read .*records"):
        read_ledger(path)


@pytest.mark.parametrize("what", ["lost", "cut", "short"])
def test_a_segment_that_is_lost_or_cut_is_named_and_never_read_as_zeros(path: Path, what: str) -> None:
    ledger = LedgerFile(path, NAMES, segment_bytes=1000)
    for seed in range(3):
        ledger.append(_rows(5, seed))
    segment = path.with_suffix("") / "00002.h5"

    if what == "lost":
        segment.unlink()
    elif what == "cut":
        segment.write_bytes(segment.read_bytes()[:700])
    else:
        with h5py.File(segment, "w") as file:
            file["records"] = _rows(2)

    with pytest.raises(CouplerError, match=r"ledger/00002\.h5"):
        read_ledger(path)


def test_a_ledger_prints_as_a_small_tree(path: Path) -> None:
    rows = _rows(3)
    rows["step"] = 4, 9, 6
    LedgerFile(path, NAMES).append(rows)

    lines = repr(Ledger(path)).splitlines()

    assert lines[0] == f"Ledger {path} of reaction, melting"
    assert lines[1].split() == ["├──", "records", "3", "rows,", "steps", "4", "to", "9"]
    assert lines[-1].startswith("└── unanswered_ids")
    assert len(lines) == 1 + len(TABLES)


def test_without_pandas_there_is_a_line_to_type(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LedgerFile(path, NAMES)
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ConfigError, match=r"pip install 'coupler\[data\]'"):
        Ledger(path).frame()


def test_a_table_that_is_not_there_is_named_with_its_neighbour(path: Path) -> None:
    LedgerFile(path, NAMES)

    with pytest.raises(ConfigError, match=r'no table "record"\. Did you mean "records"'):
        Ledger(path).frame("record")


def test_a_data_frame_has_operators_and_reasons_by_name(path: Path) -> None:
    pytest.importorskip("pandas", reason="the extra [data] is not installed")
    tables = {"steps": _rows(4, 1, STEP), "events": _rows(2, 2, EVENT), "audits": _rows(5, 3, AUDIT)}
    LedgerFile(path, NAMES).append(_rows(6), tables)
    ledger = Ledger(path)

    frame = ledger.frame()

    assert set(frame["operator"]) <= set(NAMES)
    np.testing.assert_array_equal(frame["accepted"], ledger.records["reasons"][:, Reason.ACCEPTED])
    assert "scores" not in ledger.frame("steps")
    assert ledger.frame("events")["sentence"].map(type).eq(str).all()
    assert set(ledger.frame("audits")["verdict"]) <= {reason.name.lower() for reason in Reason}


def test_every_reason_counts_under_a_decision_and_has_a_sentence() -> None:
    assert {reason.decision for reason in Reason} == set(Decision)
    assert len({reason.sentence for reason in Reason}) == len(Reason)
    # Counts are stored by number: what has been written must keep its meaning.
    assert [reason.value for reason in Reason] == list(range(len(Reason)))
    assert (Reason.ACCEPTED, Reason.PHYSICS, Reason.SWITCHED_OFF) == (0, 11, 13)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.data())
def test_a_ledger_that_is_cut_and_gone_on_with_is_one_without_a_gap(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "ledger.h5"
    rows = _rows(sum(parts) + 10)
    ledger, written, stands = LedgerFile(path, NAMES, segment_bytes=5 * RECORD.itemsize), 0, []
    for part in parts:
        stands.append(ledger.rows)
        ledger.append(rows[written : written + part])
        written += part
    back = data.draw(st.sampled_from(stands))

    again = LedgerFile(path, NAMES, segment_bytes=5 * RECORD.itemsize, rows=back)
    shown = read_ledger(path)
    again.append(rows[back["records"] :])
    again.close()

    np.testing.assert_array_equal(shown, _sorted(rows[: back["records"]]))
    np.testing.assert_array_equal(read_ledger(path), _sorted(rows))
    assert len(_segments(path)) <= 2 + rows.nbytes // (5 * RECORD.itemsize)


def test_a_ledger_with_fewer_rows_than_there_were_is_not_gone_on_with(path: Path) -> None:
    LedgerFile(path, NAMES).append(_rows(5))

    with pytest.raises(CouplerError, match=r"00002\.h5 cannot be read .* a ledger would have a hole"):
        LedgerFile(path, NAMES, rows={"records": 6})
