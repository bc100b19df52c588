"""Writing a ledger: segments that are complete or absent, and one small file that shows them as one table.

The last segment grows by being copied, added to and put in its own place, so at every moment every file can be read,
and a kill loses what had not been written. Once it holds :data:`SEGMENT_BYTES` it is compressed, and stays as it is.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
from coupler.errors import CouplerError
from coupler.ledger.tables import TABLES, attributes

Table = NDArray[np.void]

SEGMENT_BYTES = 16 * 2**20
"""What a segment holds at least before the next is begun, uncompressed [bytes].

A ledger of B bytes of rows has at most 1 + B / SEGMENT_BYTES segments, whatever the number of steps, ranks and writes.
"""

_CHUNK_BYTES = 64 * 2**10
_COMPRESSED = {"chunks": True, "compression": "gzip", "compression_opts": 1, "shuffle": True}
_NOTHING: Mapping[str, Table] = MappingProxyType({})


class LedgerFile:
    """A growing ledger: ``ledger.h5``, which shows the segments ``ledger/00001.h5`` and so on as one.

    Parameters
    ----------
    path : Path
        The file that shows all; neither it nor a folder of the same name without suffix may exist.
    operators : sequence of str
        Names behind the column ``operator``.
    segment_bytes : int
        Size at which a segment is full; tests have small ones.
    rows : mapping of str to int, optional
        Go on with the ledger that is there, after so many rows of each table; what follows them is cut off.

    Raises
    ------
    CouplerError
        If the ledger that is there holds fewer rows.
    """

    def __init__(
        self,
        path: Path,
        operators: Sequence[str],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        rows: Mapping[str, int] | None = None,
    ) -> None:
        self._path, self._folder = path, path.with_suffix("")
        if rows is None:
            if path.exists():
                raise FileExistsError(f"{path} exists, and a ledger is never overwritten")
            self._folder.mkdir()
        self._attributes = attributes(tuple(operators))
        self._segment_bytes = segment_bytes
        self._segments: list[dict[str, int]] = []  # rows by table
        self._open = False
        if rows is None:
            self._show()
        else:
            self._cut(rows)

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table that have been written."""
        return {name: sum(segment[name] for segment in self._segments) for name in TABLES}

    def append(self, records: Table, others: Mapping[str, Table] = _NOTHING) -> None:
        """Add rows; when this returns they are on the disk, and everything there can be read.

        Parameters
        ----------
        records : ndarray of RECORD
            For the table ``records``.
        others : mapping of str to ndarray
            Rows of other tables, by name.
        """
        rows = {"records": records, **others}
        if not any(len(table) for table in rows.values()):
            return
        if not self._open:
            self._segments.append(dict.fromkeys(TABLES, 0))
            self._open = True
        self._extend(rows)
        self._show()
        if _bytes(self._segments[-1]) >= self._segment_bytes:
            self._seal()

    def close(self) -> None:
        """Compress the last segment; another call of :meth:`append` would begin a new one."""
        if self._open and any(self._segments[-1].values()):  # none of its rows may have come to the disk
            self._seal()

    def _segment(self, number: int) -> Path:
        return self._folder / f"{number:05d}.h5"

    def _extend(self, rows: Mapping[str, Table]) -> None:
        path, counts = self._segment(len(self._segments)), self._segments[-1]
        image = io.BytesIO(path.read_bytes() if any(counts.values()) else b"")
        with h5py.File(image, "r+" if any(counts.values()) else "w") as file:
            if not any(counts.values()):
                _create(file)
            for name, table in rows.items():
                if len(table):
                    file[name].resize(counts[name] + len(table), axis=0)
                    file[name][counts[name] :] = table.astype(TABLES[name], copy=False)
        _put(path, image)
        for name, table in rows.items():
            counts[name] += len(table)

    def _seal(self) -> None:
        """Write the last segment anew, compressed: the same rows, so whoever looks meanwhile sees no difference."""
        path = self._segment(len(self._segments))
        self._write_whole(path, self._read_whole(path))
        self._open = False

    def _cut(self, wanted: Mapping[str, int]) -> None:
        """Keep so many rows, and delete what follows; killed in between, the same cut again ends the same."""
        left = {name: wanted.get(name, 0) for name in TABLES}
        surplus: dict[Path, dict[str, Table]] = {}
        while any(left.values()):
            path = self._segment(len(self._segments) + 1)
            tables = self._read_whole(path)
            counts = {name: min(len(table), left[name]) for name, table in tables.items()}
            if not any(counts.values()):
                raise CouplerError(f"{path} holds no row of those that were there: the ledger is not that of this run.")
            if any(counts[name] < len(table) for name, table in tables.items()):
                surplus[path] = {name: table[: counts[name]] for name, table in tables.items()}
            self._segments.append(counts)
            left = {name: left[name] - counts[name] for name in TABLES}
        # First the file that shows them: at every moment it shows what is there.
        self._show()
        for path, tables in surplus.items():
            self._write_whole(path, tables)
        kept = len(self._segments)
        for path in self._folder.glob("*.h5"):
            if path.stem.isdigit() and int(path.stem) > kept:
                path.unlink(missing_ok=True)

    def _read_whole(self, path: Path) -> dict[str, Table]:
        try:
            with h5py.File(path, "r", locking=False) as full:
                return {name: full[name][:] for name in TABLES}
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            said = str(error).strip().partition(chr(10))[0]
            raise CouplerError(
                f"{path} cannot be read ({said}), and without its rows a ledger would have a hole: restore it from a "
                "copy, or run the case again."
            ) from error

    def _write_whole(self, path: Path, tables: Mapping[str, Table]) -> None:
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            for name, table in tables.items():
                file.create_dataset(name, data=table, **(_COMPRESSED if len(table) else {}))
        _put(path, image)

    def _show(self) -> None:
        """Write the file that shows all segments as one table each; their paths in it are relative to it."""
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            for name, dtype in TABLES.items():
                lengths = [segment[name] for segment in self._segments]
                if any(lengths):
                    file.create_virtual_dataset(name, self._layout(name, lengths))
                else:
                    file.create_dataset(name, shape=(0,), dtype=dtype)
                file[name].attrs.update(self._attributes[name])
        _put(self._path, image)

    def _layout(self, name: str, lengths: Sequence[int]) -> h5py.VirtualLayout:
        dtype, start = TABLES[name], 0
        layout = h5py.VirtualLayout((sum(lengths),), dtype)
        for number, length in enumerate(lengths, start=1):
            if length:
                source = f"{self._folder.name}/{self._segment(number).name}"
                layout[start : start + length] = h5py.VirtualSource(source, name, shape=(length,), dtype=dtype)
                start += length
        return layout


def _create(file: h5py.File) -> None:
    for name, dtype in TABLES.items():
        chunk = max(_CHUNK_BYTES // dtype.itemsize, 1)
        file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(chunk,))


def _put(path: Path, image: io.BytesIO) -> None:
    """Put a file in its place; made in memory, as HDF5 may end the process when it meets a full disk."""
    with replacing(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def _bytes(counts: Mapping[str, int]) -> int:
    return sum(count * TABLES[name].itemsize for name, count in counts.items())
