"""HDF5 files whose arrays are written by ourselves: HDF5 lays them out, plain writes fill them.

HDF5 itself may end the process when a disk is full. So it writes into memory only, and there only what describes the
arrays: a few kilobytes. The arrays go to the file one after the other, at the places HDF5 has given them.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

# Arrays are written and hashed in pieces of so many bytes: what is hashed is still in the cache.
_PIECE_BYTES = 4 * 2**20


class ArrayFile:
    """An HDF5 file that is being written: arrays one after the other.

    Parameters
    ----------
    path : Path
        The file; whatever is there is overwritten. It is no HDF5 file before :meth:`finish`.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._outline = _Outline()
        self._hdf = h5py.File(self._outline, "w", track_order=True)

    def add(self, name: str, array: NDArray[np.generic]) -> None:
        """Write an array (at least one dimension) with its SHA-256 as attribute.

        Raises
        ------
        OSError
            If there is no room for it.

        Collective: no.
        """
        data = np.ascontiguousarray(array)
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # the place is known from the beginning
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        space, kind = h5py.h5s.create_simple(data.shape), h5py.h5t.py_create(data.dtype, logical=True)
        made = h5py.h5d.create(self._hdf.id, name.encode(), kind, space, layout, links)
        digest = hashlib.sha256()
        if data.size:
            self._file.seek(made.get_offset())
            for piece in _pieces(data):
                digest.update(piece)
                self._file.write(piece)
        h5py.Dataset(made).attrs["sha256"] = digest.hexdigest()

    def finish(self) -> None:
        """Write the description of everything, and close.

        Raises
        ------
        OSError
            If there is no room for it.

        Collective: no.
        """
        self._hdf.close()
        for place, data in self._outline.written:
            self._file.seek(place)
            self._file.write(data)
        self._file.truncate(self._outline.size)
        self._file.close()

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._file.close()
        self._hdf.close()


def verified(path: Path, dataset: h5py.Dataset) -> bool:
    """Whether an array on disk is what its attribute says; read in pieces.

    Raises
    ------
    OSError, KeyError
        If it cannot be read, or has no checksum.

    Collective: no.
    """
    expected, digest = str(dataset.attrs["sha256"]), hashlib.sha256()
    left = dataset.id.get_storage_size()
    if left:
        with path.open("rb") as file:
            file.seek(dataset.id.get_offset())
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                digest.update(piece)
                left -= len(piece)
    return left == 0 and digest.hexdigest() == expected


class _Outline(io.RawIOBase):
    """Where HDF5 believes to write a file: what it wrote is kept, in its order; the rest are holes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[int, bytes]] = []
        self.size = self._place = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def write(self, data: Sequence[int]) -> int:  # type: ignore[override]
        piece = bytes(data)
        self.written.append((self._place, piece))
        self._place += len(piece)
        self.size = max(self.size, self._place)
        return len(piece)

    def readinto(self, room: memoryview) -> int:  # type: ignore[override]
        found = bytearray(len(room))
        for place, piece in self.written:
            first, last = max(place, self._place), min(place + len(piece), self._place + len(room))
            if first < last:
                found[first - self._place : last - self._place] = piece[first - place : last - place]
        room[:] = found
        self._place += len(room)
        return len(room)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._place if size is None else size
        return self.size


def _pieces(data: NDArray[np.generic]) -> list[memoryview]:
    whole = data.reshape(-1).view(np.uint8).data
    return [whole[start : start + _PIECE_BYTES] for start in range(0, len(whole), _PIECE_BYTES)]
