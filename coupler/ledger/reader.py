"""Reading a ledger: its tables as arrays or data frames, during the run or after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.errors import ConfigError, CouplerError, did_you_mean
from coupler.ledger.tables import SORTED_BY, TABLES
from coupler.records import Reason

Table = NDArray[np.void]
# gzip makes at most 1032 bytes of one.
_MOST_COMPRESSED = 1100


class Ledger:
    """What a run decided, and what changed how it decided.

    A ledger may be read while the run goes on; tables that have been looked at are kept as they were then.

    Parameters
    ----------
    path : Path or str
        ``ledger.h5``, or the run folder it is in.

    Raises
    ------
    CouplerError
        If there is no such file, it is no ledger, or it or one of its segments is truncated or missing; one sentence
        that names the file. Said when a table is first looked at.

    Collective: no.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        self.path = path / "ledger.h5" if path.is_dir() else path

    @cached_property
    def records(self) -> Table:
        """One row per call and rank, :data:`coupler.ledger.RECORD`, sorted by step, call, operator and rank."""
        return self._table("records")

    @cached_property
    def steps(self) -> Table:
        """One row per step and operator, :data:`coupler.ledger.STEP`."""
        return self._table("steps")

    @cached_property
    def events(self) -> Table:
        """One row per event, :data:`coupler.ledger.EVENT`; kind and sentence are bytes in UTF-8."""
        return self._table("events")

    @cached_property
    def audits(self) -> Table:
        """One row per audited answer, :data:`coupler.ledger.AUDIT`; none unless the case asks for them."""
        return self._table("audits")

    @cached_property
    def unanswered(self) -> Table:
        """One row per call and rank with elements that went unanswered, :data:`coupler.ledger.UNANSWERED`."""
        return self._table("unanswered")

    @cached_property
    def unanswered_ids(self) -> Table:
        """The ids behind the groups of :attr:`unanswered`, :data:`coupler.ledger.UNANSWERED_IDS`."""
        return self._table("unanswered_ids")

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """The names behind the column ``operator``."""
        with _opened(self.path) as file:
            return tuple(str(name) for name in file["records"].attrs["operators"])

    def frame(self, table: str = "records") -> Any:
        """Give a table as a pandas data frame: operators by name, and one column per reason.

        Parameters
        ----------
        table : str
            ``records``, ``steps``, ``events``, ``audits``, ``unanswered`` or ``unanswered_ids``. The histograms of
            ``steps`` are left out: they have two dimensions of their own.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ConfigError
            If pandas is not installed, or there is no such table.

        Collective: no.
        """
        if table not in TABLES:
            raise ConfigError(f'A ledger has no table "{table}".{did_you_mean(table, TABLES)}')
        try:
            import pandas as pd
        except ImportError:
            raise ConfigError(
                "pandas is not installed, and a data frame is its. Type: pip install 'coupler[data]'. Without it, "
                f"Ledger(...).{table} gives the same numbers as a NumPy array."
            ) from None
        return pd.DataFrame(self._columns(getattr(self, table)))

    def __repr__(self) -> str:
        lines = [f"{name:<15}{len(getattr(self, name)):>9,} rows{_span(getattr(self, name))}" for name in TABLES]
        branches = ["├── "] * (len(lines) - 1) + ["└── "]
        head = f"Ledger {self.path} of {', '.join(self.operators)}"
        return "\n".join([head, *(branch + line for branch, line in zip(branches, lines, strict=True))])

    def _table(self, name: str) -> Table:
        with _opened(self.path) as file:
            rows = _read(self.path, file, name)
        return rows[np.lexsort([rows[key] for key in reversed(SORTED_BY[name])])]

    def _columns(self, rows: Table) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for name in rows.dtype.names or ():
            values = rows[name]
            if name == "operator":
                columns[name] = np.array(self.operators, dtype=object)[values]
            elif name == "reasons":
                columns |= {reason.name.lower(): values[:, reason] for reason in Reason}
            elif name in ("reason", "verdict"):
                columns[name] = np.array([reason.name.lower() for reason in Reason], dtype=object)[values]
            elif values.dtype.kind == "S":
                columns[name] = [text.decode() for text in values.tolist()]
            elif values.ndim == 1:
                columns[name] = values
        return columns


def read_ledger(path: Path) -> Table:
    """Read all records of a ledger, sorted by step, call, operator and rank.

    Raises
    ------
    CouplerError
        As :class:`Ledger`.
    """
    return Ledger(path).records


def _span(rows: Table) -> str:
    if "step" not in (rows.dtype.names or ()) or not len(rows):
        return ""
    return f", steps {rows['step'].min()} to {rows['step'].max()}"


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever goes wrong with it while it is open is one sentence that names it."""
    if not path.is_file():
        raise CouplerError(
            f"{path} is missing, without which nobody can say what the run decided: give the folder of a run, or its "
            "ledger.h5 with the folder ledger beside it."
        )
    try:
        # Without a lock: files of a ledger are replaced, never changed.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise CouplerError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: BaseException) -> str:
    return (
        f"{path} cannot be read ({str(error).strip().partition(chr(10))[0]}): it is cut short or no ledger, and what "
        "is left would be another run. Restore it from a copy, or run the case again."
    )


def _read(path: Path, file: h5py.File, name: str) -> Table:
    """Read a table from the segments themselves: HDF5 shows zeros in the place of one that is missing."""
    table = file[name]
    if not table.is_virtual:
        return _rows(path, table, len(table))
    parts = []
    for source in table.virtual_sources():
        length = source.vspace.get_select_npoints()
        with _opened(path.parent / source.file_name) as segment:
            found = segment[name]
            if len(found) < length:
                raise ValueError(f"it has {len(found)} of {length} {name}")
            parts.append(_rows(path.parent / source.file_name, found, length))
    return np.concatenate([np.zeros(0, TABLES[name]), *parts])


def _rows(path: Path, table: h5py.Dataset, length: int) -> Table:
    """Read the first rows of a table of one file; a file that claims more than it can hold is not believed."""
    dtype = TABLES[table.name.rpartition("/")[2]]
    if length * dtype.itemsize > _MOST_COMPRESSED * path.stat().st_size:
        raise ValueError(f"it claims {length} rows")
    rows = np.zeros(length, dtype)
    rows[...] = table[:length]
    return rows
