"""``fields.h5`` and ``fields.xdmf``: pictures of the fields over time, for ParaView, xarray and plots.

Rank 0 is the aggregator: blocks are gathered to it field by field and it writes whole global arrays, into segments
``fields/00001.h5`` and so on. A segment that grows is written anew and put in its own place; ``fields.h5`` shows all of
them as one table per field. So every file is whole at every moment, whatever is killed.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
from coupler.checkpoint.image import ArrayFile
from coupler.errors import CouplerError, PluginError
from coupler.field import Field, State
from coupler.grid import Grid

SEGMENT_BYTES = 8 * 2**20
"""What a segment holds at least before the next is begun [bytes].

Pictures of B bytes in all have at most 1 + B / SEGMENT_BYTES segments, one more for each time the run was resumed, and
never more than there are pictures.
"""


class FieldsFile:
    """A growing HDF5 file with one dataset (time, *grid) per field; written by all ranks together.

    Parameters
    ----------
    path : Path
        ``fields.h5``; the XDMF description and the folder of segments go beside it.
    grid : Grid
        Decomposition the blocks come from.
    fields : sequence of Field
        What is written.
    segment_bytes : int
        Size at which a segment is full; tests have small ones.
    pictures : int, optional
        Go on with the file that is there, after so many pictures; what follows them is cut off.

    Raises
    ------
    PluginError
        If a field has a name that the file needs for itself.
    FileExistsError
        If there is such a file and nobody wants to go on with it.
    CouplerError
        If the file to go on with has fewer pictures, or cannot be read.

    Collective: yes, as every method.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        fields: Sequence[Field],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        pictures: int | None = None,
    ) -> None:
        check_names(fields)
        self._path, self._folder, self._grid, self._fields = path, path.with_suffix(""), grid, tuple(fields)
        self._segment_bytes = segment_bytes
        self._moments: list[_Moment] = []
        self._lengths: list[int] = []  # pictures by segment
        self._open = False
        if grid.rank == 0:
            if pictures is None:
                self._create()
            else:
                self._cut(pictures)
        grid.comm.Barrier()

    @property
    def pictures(self) -> int:
        """How many have been written; on rank 0."""
        return len(self._moments)

    def write(self, state: State, step: int, time: float) -> None:
        """Append the fields at this step; when this returns they are on the disk. Collective: yes."""
        if self._grid.rank > 0:
            for field in self._fields:
                self._grid.gather(state[field.name].interior)
            return
        if not self._open:
            self._lengths.append(0)
        self._append(state)
        self._lengths[-1] += 1
        self._moments.append(_Moment(int(step), float(time)))
        size = 8 * math.prod(self._grid.shape) * len(self._fields) * self._lengths[-1]
        self._open = size < self._segment_bytes
        self._show()

    def _create(self) -> None:
        if self._path.exists():
            raise FileExistsError(f"{self._path} exists, and pictures are never overwritten")
        self._folder.mkdir(exist_ok=True)
        self._show()

    def _segment(self, number: int) -> Path:
        return self._folder / f"{number:05d}.h5"

    def _append(self, state: State) -> None:
        """Write the last segment anew, with a picture more; rank 0 holds one field of it at a time."""
        path, length = self._segment(len(self._lengths)), self._lengths[-1]
        with replacing(path) as temporary:
            file = ArrayFile(temporary)
            try:
                for field in self._fields:
                    whole = self._grid.gather(state[field.name].interior)
                    assert whole is not None
                    file.add(field.name, np.concatenate([*self._read(path, field.name, length), whole[np.newaxis]]))
                file.finish()
            finally:
                file.close()

    def _read(self, path: Path, name: str, length: int) -> list[NDArray[np.float64]]:
        """Give the pictures of a field that a segment has, in a list; nothing of a segment that is begun."""
        if not length:
            return []
        try:
            with h5py.File(path, "r", locking=False) as file:
                found = file[name][:length]
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise CouplerError(_unreadable(path, error)) from error
        if len(found) < length:
            raise CouplerError(_unreadable(path, f"it has {len(found)} of {length} pictures"))
        return [found]

    def _cut(self, pictures: int) -> None:
        """Keep so many pictures; killed in between, the same cut again ends the same."""
        try:
            with h5py.File(self._path, "r", locking=False) as file:
                steps, times = file["step"][:pictures].tolist(), file["time"][:pictures].tolist()
                lengths = file["segments"][:].tolist()
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise CouplerError(_unreadable(self._path, error)) from error
        if len(steps) < pictures:
            raise CouplerError(_unreadable(self._path, f"it has {len(steps)} of {pictures} pictures"))
        self._moments = [_Moment(step, time) for step, time in zip(steps, times, strict=True)]
        while pictures:
            self._lengths.append(min(pictures, lengths[len(self._lengths)]))
            pictures -= self._lengths[-1]
        # What a segment holds beyond its length is not shown, and written over with the next picture.
        self._open = False
        self._show()
        for path in self._folder.glob("*.h5"):
            if path.stem.isdigit() and int(path.stem) > len(self._lengths):
                path.unlink(missing_ok=True)

    def _show(self) -> None:
        """Write the file that shows all segments as one table per field, then the description for ParaView."""
        shape, image = self._grid.shape, io.BytesIO()
        with h5py.File(image, "w", track_order=True) as file:  # fields in the order of the kernel
            file.create_dataset("time", data=np.array([moment.time for moment in self._moments], np.float64))
            file.create_dataset("step", data=np.array([moment.step for moment in self._moments], np.int64))
            file.create_dataset("segments", data=np.array(self._lengths, np.int64))
            file["time"].make_scale("time")
            file["step"].dims[0].attach_scale(file["time"])
            scales = []
            for axis, cells in enumerate(shape):
                spacing = self._grid.spacing[axis]
                file[_AXES[axis]] = (np.arange(cells) + 0.5) * spacing
                file[_AXES[axis]].make_scale(_AXES[axis])
                scales.append(file[_AXES[axis]])
            for field in self._fields:
                data = self._shown(file, field.name)
                data.attrs["units"] = field.unit
                data.dims[0].attach_scale(file["time"])
                for axis, scale in enumerate(scales):
                    data.dims[axis + 1].attach_scale(scale)
        _put(self._path, image)
        with replacing(self._path.with_suffix(".xdmf")) as temporary:
            times = [moment.time for moment in self._moments]
            temporary.write_text(_xdmf(self._path.name, self._grid, self._fields, times), encoding="utf-8")

    def _shown(self, file: h5py.File, name: str) -> h5py.Dataset:
        """Make the table of a field, over all segments; their paths in it are relative to it."""
        shape = (len(self._moments), *self._grid.shape)
        if not self._moments:
            return file.create_dataset(name, shape=shape, dtype=np.float64)
        layout, start = h5py.VirtualLayout(shape, np.float64), 0
        for number, length in enumerate(self._lengths, start=1):
            source = f"{self._folder.name}/{self._segment(number).name}"
            layout[start : start + length] = h5py.VirtualSource(
                source, name, shape=(length, *self._grid.shape), dtype=np.float64
            )
            start += length
        return file.create_virtual_dataset(name, layout)


class _Moment(NamedTuple):
    """When a picture was taken."""

    step: int
    time: float


def _put(path: Path, image: io.BytesIO) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def _unreadable(path: Path, why: object) -> str:
    said = str(why).strip().partition(chr(10))[0]
    return (
        f"{path} cannot be used ({said}), and the pictures of the run would have a hole: restore it from a copy, or "
        "run the case again."
    )


_AXES = ("axis0", "axis1", "axis2")
_RESERVED = ("time", "step", "segments", *_AXES)


def check_names(fields: Sequence[Field]) -> None:
    """Refuse fields whose names stand for something else in the file.

    Raises
    ------
    PluginError
        If there is such a field.
    """
    for field in fields:
        if field.name in _RESERVED:
            raise PluginError(
                f'A field is named "{field.name}", and so is something else in fields.h5 '
                f"({', '.join(_RESERVED)}): give it another name."
            )


def _xdmf(file: str, grid: Grid, fields: Sequence[Field], times: Sequence[float]) -> str:
    """Describe the HDF5 file: a uniform mesh (one layer of cells thick below three dimensions) with cell values."""
    shape = (1,) * (3 - grid.ndim) + tuple(grid.shape)
    spacing = (min(grid.spacing),) * (3 - grid.ndim) + tuple(grid.spacing)
    nodes = " ".join(str(cells + 1) for cells in shape)
    stored = " ".join(str(cells) for cells in grid.shape)
    parts = [
        '<?xml version="1.0"?>\n<Xdmf Version="3.0"><Domain>',
        '<Grid Name="fields" GridType="Collection" CollectionType="Temporal">',
    ]
    for index, time in enumerate(times):
        parts.append(f'<Grid Name="step"><Time Value="{time!r}"/>')
        parts.append(
            f'<Topology TopologyType="3DCoRectMesh" Dimensions="{nodes}"/><Geometry GeometryType="ORIGIN_DXDYDZ">'
        )
        parts.append('<DataItem Dimensions="3" Format="XML">0 0 0</DataItem>')
        parts.append(
            f'<DataItem Dimensions="3" Format="XML">{" ".join(repr(float(step)) for step in spacing)}</DataItem>'
            "</Geometry>"
        )
        for field in fields:
            parts.append(f'<Attribute Name={quoteattr(field.name)} AttributeType="Scalar" Center="Cell">')
            parts.append(_hyperslab(file, field.name, index, len(times), grid, stored))
            parts.append("</Attribute>")
        parts.append("</Grid>")
    parts.append("</Grid></Domain></Xdmf>\n")
    return "\n".join(parts)


def _hyperslab(file: str, name: str, index: int, count: int, grid: Grid, stored: str) -> str:
    rank = grid.ndim + 1
    start = " ".join(["0"] * grid.ndim)
    whole = f'Dimensions="{count} {stored}" NumberType="Float" Precision="8"'
    # VTK's reader takes as many numbers as the three dimensions of the mesh's cells say, not the file's.
    cells = " ".join(["1"] * (3 - grid.ndim) + [stored])
    return (
        f'<DataItem ItemType="HyperSlab" Dimensions="{cells}"><DataItem Dimensions="3 {rank}" Format="XML">'
        f"{index} {start} {' '.join(['1'] * rank)} 1 {stored}</DataItem>"
        f'<DataItem {whole} Format="HDF">{file}:/{name}</DataItem></DataItem>'
    )
