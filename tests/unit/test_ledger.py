"""The ledger: what is appended is what is read, in order, and looking at it disturbs nobody."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from coupler.ledger import RECORD, LedgerFile, read_ledger
from coupler.records import Decision, Reason

if TYPE_CHECKING:
    from tests.conftest import Processes

KEYS = ("step", "call", "operator", "rank")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.h5"


def _rows(count: int, seed: int = 0) -> NDArray[np.void]:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, RECORD)
    for name in RECORD.names or ():
        rows[name] = (
            random.integers(0, 5, rows[name].shape) if name in KEYS else random.integers(0, 99, rows[name].shape)
        )
    return rows


def test_what_is_appended_is_what_is_read(path: Path) -> None:
    ledger, rows = LedgerFile(path, ("reaction", "melting")), _rows(50)

    for part in np.split(rows, [20, 20, 21]):
        ledger.append(part)

    order = np.lexsort(tuple(rows[key] for key in reversed(KEYS)))
    np.testing.assert_array_equal(read_ledger(path), rows[order])


def test_an_empty_ledger_is_read_as_one(path: Path) -> None:
    LedgerFile(path, ("reaction",)).append(_rows(0))

    assert len(read_ledger(path)) == 0
    assert read_ledger(path).dtype == RECORD


def test_the_file_says_what_its_numbers_mean(path: Path) -> None:
    LedgerFile(path, ("reaction", "melting"))

    with h5py.File(path) as file:
        attributes = file["records"].attrs
        assert list(attributes["operators"]) == ["reaction", "melting"]
        assert list(attributes["reasons"]) == [reason.name.lower() for reason in Reason]
        assert all(len(sentence.split()) > 3 for sentence in attributes["reason_sentences"])
        assert attributes["loss_unit"] == 2.0**-32


def test_a_ledger_is_never_overwritten(path: Path) -> None:
    LedgerFile(path, ("reaction",)).append(_rows(3))

    with pytest.raises(FileExistsError):
        LedgerFile(path, ("reaction",))

    assert len(read_ledger(path)) == 3


def test_a_ledger_is_readable_from_outside_between_two_calls(path: Path, processes: "Processes") -> None:
    ledger = LedgerFile(path, ("reaction",))
    ledger.append(_rows(3))

    code = "import sys; from coupler.ledger import read_ledger; print(len(read_ledger(sys.argv[1])))"
    assert processes.run([sys.executable, "-c", code, str(path)], timeout=60).stdout.split() == ["3"]


def test_somebody_who_looks_at_the_ledger_does_not_end_the_run(path: Path, processes: "Processes") -> None:
    ledger = LedgerFile(path, ("reaction",))
    ledger.append(_rows(3))

    append = f"""
import h5py, numpy as np
from coupler.ledger import RECORD, LedgerFile
ledger = LedgerFile.__new__(LedgerFile)
ledger._path = {str(path)!r}
ledger.append(np.zeros(2, RECORD))
"""
    with h5py.File(path):
        assert processes.run([sys.executable, "-c", append], timeout=60).stdout == ""

    assert len(read_ledger(path)) == 5


def test_every_reason_counts_under_a_decision_and_has_a_sentence() -> None:
    assert {reason.decision for reason in Reason} == set(Decision)
    assert len({reason.sentence for reason in Reason}) == len(Reason)
    # Counts are stored by number: what has been written must keep its meaning.
    assert [reason.value for reason in Reason] == list(range(len(Reason)))
    assert (Reason.ACCEPTED, Reason.PHYSICS, Reason.SWITCHED_OFF) == (0, 11, 13)
