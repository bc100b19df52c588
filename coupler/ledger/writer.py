"""Writing a ledger: segments that are complete or absent, and one small file that shows them as one table.

The last segment grows by being copied, added to and put in its own place, so at every moment every file can be read,
and a kill loses what had not been written. Once it holds :data:`SEGMENT_BYTES` it is compressed, and stays as it is.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
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
    """

    def __init__(self, path: Path, operators: Sequence[str], *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._path, self._folder = path, path.with_suffix("")
        if path.exists():
            raise FileExistsError(f"{path} exists, and a ledger is never overwritten")
        self._folder.mkdir()
        self._attributes = attributes(tuple(operators))
        self._segment_bytes = segment_bytes
        self._segments: list[dict[str, int]] = []  # rows by table
        self._open = False
        self._show()

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
        if self._open:
            self._seal()

    def _segment(self, number: int) -> Path:
        return self._folder / f"{number:05d}.h5"

    def _extend(self, rows: Mapping[str, Table]) -> None:
        path, counts = self._segment(len(self._segments)), self._segments[-1]
        with replacing(path) as temporary:
            if path.exists():
                shutil.copyfile(path, temporary)
            else:
                _create(temporary)
            # Without a lock: file systems of clusters often have none, and nobody else writes.
            with h5py.File(temporary, "r+", locking=False) as file:
                for name, table in rows.items():
                    if len(table):
                        file[name].resize(counts[name] + len(table), axis=0)
                        file[name][counts[name] :] = table.astype(TABLES[name], copy=False)
        for name, table in rows.items():
            counts[name] += len(table)

    def _seal(self) -> None:
        """Write the last segment anew, compressed: the same rows, so whoever looks meanwhile sees no difference."""
        path = self._segment(len(self._segments))
        with replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
            with h5py.File(path, "r", locking=False) as full:
                tables = {name: full[name][:] for name in TABLES}
            for name, table in tables.items():
                file.create_dataset(name, data=table, **(_COMPRESSED if len(table) else {}))
        self._open = False

    def _show(self) -> None:
        """Write the file that shows all segments as one table each; their paths in it are relative to it."""
        with replacing(self._path) as temporary, h5py.File(temporary, "w", locking=False) as file:
            for name, dtype in TABLES.items():
                lengths = [segment[name] for segment in self._segments]
                if any(lengths):
                    file.create_virtual_dataset(name, self._layout(name, lengths))
                else:
                    file.create_dataset(name, shape=(0,), dtype=dtype)
                file[name].attrs.update(self._attributes[name])

    def _layout(self, name: str, lengths: Sequence[int]) -> h5py.VirtualLayout:
        dtype, start = TABLES[name], 0
        layout = h5py.VirtualLayout((sum(lengths),), dtype)
        for number, length in enumerate(lengths, start=1):
            if length:
                source = f"{self._folder.name}/{self._segment(number).name}"
                layout[start : start + length] = h5py.VirtualSource(source, name, shape=(length,), dtype=dtype)
                start += length
        return layout


def _create(path: Path) -> None:
    with h5py.File(path, "w", locking=False) as file:
        for name, dtype in TABLES.items():
            chunk = max(_CHUNK_BYTES // dtype.itemsize, 1)
            file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(chunk,))


def _bytes(counts: Mapping[str, int]) -> int:
    return sum(count * TABLES[name].itemsize for name, count in counts.items())
