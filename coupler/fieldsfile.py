"""``fields.h5`` and ``fields.xdmf``: pictures of the fields over time, for ParaView, xarray and plots.

Rank 0 is the aggregator: blocks are gathered to it field by field and it writes whole global arrays. Where h5py
was built with MPI, every rank writes its own block instead.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.grid import Grid


class FieldsFile:
    """A growing HDF5 file with one dataset (time, *grid) per field; written by all ranks together.

    Parameters
    ----------
    path : Path
        ``fields.h5``; the XDMF description goes beside it.
    grid : Grid
        Decomposition the blocks come from.
    fields : sequence of Field
        What is written.

    Raises
    ------
    PluginError
        If a field has a name that the file needs for itself.

    Collective: yes, as every method.
    """

    def __init__(self, path: Path, grid: Grid, fields: Sequence[Field]) -> None:
        check_names(fields)
        self._path, self._grid, self._fields = path, grid, tuple(fields)
        self._times: list[float] = []
        if grid.rank == 0:
            self._create()
        grid.comm.Barrier()

    def write(self, state: State, step: int, time: float) -> None:
        """Append the fields at this step. Collective: yes."""
        if h5py.get_config().mpi:
            self._write_parallel(state, step, time)
        else:
            self._write_gathered(state, step, time)
        self._times.append(float(time))
        if self._grid.rank == 0:
            self._write_xdmf()

    def _create(self) -> None:
        shape = self._grid.shape
        with h5py.File(self._path, "x", track_order=True) as file:  # fields in the order of the kernel
            for name, kind in (("time", np.float64), ("step", np.int64)):
                file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=kind, chunks=(1024,))
            file["time"].make_scale("time")
            file["step"].dims[0].attach_scale(file["time"])
            scales = []
            for axis, cells in enumerate(shape):
                spacing = self._grid.spacing[axis]
                file[_AXES[axis]] = (np.arange(cells) + 0.5) * spacing
                file[_AXES[axis]].make_scale(_AXES[axis])
                scales.append(file[_AXES[axis]])
            for field in self._fields:
                data = file.create_dataset(
                    field.name, shape=(0, *shape), maxshape=(None, *shape), dtype=np.float64, chunks=(1, *shape)
                )
                data.attrs["units"] = field.unit
                data.dims[0].attach_scale(file["time"])
                for axis, scale in enumerate(scales):
                    data.dims[axis + 1].attach_scale(scale)

    def _write_gathered(self, state: State, step: int, time: float) -> None:
        wholes = {field.name: self._grid.gather(state[field.name].interior) for field in self._fields}
        if self._grid.rank > 0:
            return
        with self._open() as file:
            for name, whole in wholes.items():
                assert whole is not None
                _append(file[name], whole)
            # Last: a moment counts once its time is there.
            _append(file["step"], np.int64(step))
            _append(file["time"], np.float64(time))

    def _open(self) -> h5py.File:
        """Open the file without a lock: somebody who looks at it meanwhile must not end the run."""
        return h5py.File(self._path, "r+", locking=False)

    def _write_parallel(self, state: State, step: int, time: float) -> None:
        block = tuple(slice(start, stop) for start, stop in zip(self._grid.start, self._grid.stop, strict=True))
        with h5py.File(self._path, "r+", driver="mpio", comm=self._grid.comm) as file:
            for name in ("time", "step", *(field.name for field in self._fields)):
                file[name].resize(len(self._times) + 1, axis=0)
            for field in self._fields:
                file[field.name][(-1, *block)] = state[field.name].interior
            if self._grid.rank == 0:
                file["time"][-1], file["step"][-1] = time, step

    def _write_xdmf(self) -> None:
        path = self._path.with_suffix(".xdmf")
        temporary = path.with_suffix(".xdmf.tmp")
        temporary.write_text(_xdmf(self._path.name, self._grid, self._fields, self._times), encoding="utf-8")
        temporary.replace(path)


_AXES = ("axis0", "axis1", "axis2")
_RESERVED = ("time", "step", *_AXES)


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


def _append(data: h5py.Dataset, value: NDArray[np.float64] | np.float64 | np.int64) -> None:
    data.resize(len(data) + 1, axis=0)
    data[-1] = value


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
