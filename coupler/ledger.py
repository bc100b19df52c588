"""The ledger: one compact record per rank and call, appended to ``ledger.h5`` by rank 0."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.records import Reason

RECORD = np.dtype(
    [
        ("step", np.int64),
        ("call", np.int32),
        ("operator", np.int32),
        ("rank", np.int32),
        ("version", np.int32),
        ("reasons", np.int64, (len(Reason),)),
        ("audits", np.int64),
        ("acceptable", np.int64),
        ("loss", np.int64),
        ("exceedances", np.int64),
        ("threshold", np.float64),
        ("audit_rate", np.float64),
        ("truth_seconds", np.float64),
        ("wait_seconds", np.float64),
        ("model_seconds", np.float64),
        ("hidden_seconds", np.float64),
    ]
)
"""Columns of the ledger.

``reasons`` counts elements by :class:`coupler.records.Reason`; ``acceptable`` counts what the gate accepts, audited or
not; ``loss`` is the audited capped loss of those in units of 2**-32; ``audit_rate`` is 0 where nothing was asked.
``hidden_seconds`` is the time between questions and answers that did not have to be waited for.
"""


class LedgerFile:
    """``ledger.h5``: a growing table, the words for its codes beside it.

    Parameters
    ----------
    path : Path
        The file; must not exist.
    operators : sequence of str
        Names behind the column ``operator``.
    """

    def __init__(self, path: Path, operators: Sequence[str]) -> None:
        self._path = path
        with h5py.File(path, "x") as file:
            table = file.create_dataset("records", shape=(0,), maxshape=(None,), dtype=RECORD, chunks=(1024,))
            table.attrs["operators"] = list(operators)
            table.attrs["reasons"] = [reason.name.lower() for reason in Reason]
            table.attrs["reason_sentences"] = [reason.sentence for reason in Reason]
            table.attrs["loss_unit"] = 2.0**-32

    def append(self, rows: NDArray[np.void]) -> None:
        """Add records; the file is closed again before this returns, so it is readable between two calls."""
        if len(rows) == 0:
            return
        # Without a lock: somebody who looks at the file meanwhile must not end the run.
        with h5py.File(self._path, "r+", locking=False) as file:
            table = file["records"]
            table.resize(len(table) + len(rows), axis=0)
            table[-len(rows) :] = rows


def read_ledger(path: Path) -> NDArray[np.void]:
    """Read all records of a ledger, sorted by step, call, operator and rank."""
    with h5py.File(path, "r") as file:
        rows: NDArray[np.void] = file["records"][:]
    return rows[np.lexsort((rows["rank"], rows["operator"], rows["call"], rows["step"]))]
