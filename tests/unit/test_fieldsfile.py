"""``fields.h5`` and ``fields.xdmf``: whole at every moment, and each says of the other what is true."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from coupler.errors import CouplerError, PluginError
from coupler.field import Field, State
from coupler.fieldsfile import FieldsFile
from coupler.grid import Grid

if TYPE_CHECKING:
    from tests.conftest import Processes

FIELDS = (Field("w", unit="mol/m3"), Field("température", unit="K"), Field("a"))
STEPS = ((0, 0.0), (5, 0.1 + 0.2), (10, 1e-300))

READ = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    print(*file["time"][:], *file["w"].shape)
"""


@pytest.fixture(params=[(5,), (4, 3), (3, 2, 4)], ids=["1-D", "2-D", "3-D"])
def grid(request: pytest.FixtureRequest) -> Iterator[Grid]:
    length = (1.0, 0.3, 7.0)[: len(request.param)]
    with Grid(request.param, length=length, halo=1, comm=MPI.COMM_SELF) as grid:
        yield grid


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fields.h5"


def _state(grid: Grid, step: int) -> State:
    state = grid.state(FIELDS)
    for number, local in enumerate(state.values()):
        local.array[...] = np.nan  # halos must not be written
        local.interior[...] = 1000 * step + 100 * number + grid.ids.reshape(grid.local_shape)
    return state


@pytest.fixture
def written(grid: Grid, path: Path) -> Path:
    file = FieldsFile(path, grid, FIELDS)
    for step, time in STEPS:
        file.write(_state(grid, step), step, time)
    return path


def _xdmf(path: Path) -> ET.Element:
    return ET.parse(path.with_suffix(".xdmf")).getroot()


def _numbers(item: ET.Element) -> list[float]:
    assert item.text is not None
    return [float(word) for word in item.text.split()]


def _dimensions(item: ET.Element) -> tuple[int, ...]:
    return tuple(int(word) for word in item.attrib["Dimensions"].split())


def test_every_step_of_every_field_is_there_without_its_halo(written: Path, grid: Grid) -> None:
    with h5py.File(written) as file:
        assert file["step"][:].tolist() == [step for step, _ in STEPS]
        assert file["time"][:].tolist() == [time for _, time in STEPS]  # to the last bit
        for name in (field.name for field in FIELDS):
            assert file[name].shape == (len(STEPS), *grid.shape)
            for index, (step, _) in enumerate(STEPS):
                np.testing.assert_array_equal(file[name][index], _state(grid, step)[name].interior)


def test_fields_keep_their_order_and_their_units(written: Path) -> None:
    with h5py.File(written) as file:
        names = [field.name for field in FIELDS]
        assert [name for name in file if name in names] == names
        assert [file[name].attrs["units"] for name in names] == ["mol/m3", "K", "1"]


def test_dimensions_are_labelled_with_time_and_cell_centres(written: Path, grid: Grid) -> None:
    with h5py.File(written) as file:
        for field in FIELDS:
            dimensions = file[field.name].dims
            assert len(dimensions) == grid.ndim + 1
            assert dimensions[0][0] == file["time"]
            for axis in range(grid.ndim):
                np.testing.assert_array_equal(dimensions[axis + 1][0][:], grid.centres(axis))
                assert len(dimensions[axis + 1][0]) == grid.shape[axis]


def test_the_description_names_the_datasets_as_they_are(written: Path) -> None:
    root = _xdmf(written)

    with h5py.File(written) as file:
        for item in root.iterfind(".//DataItem[@Format='HDF']"):
            assert item.text is not None
            name, dataset = item.text.split(":/")
            assert name == written.name
            assert _dimensions(item) == file[dataset].shape
            assert (item.attrib["NumberType"], int(item.attrib["Precision"])) == ("Float", file[dataset].dtype.itemsize)


def test_every_picture_of_the_description_is_one_step_of_the_data(written: Path, grid: Grid) -> None:
    pictures = _xdmf(written).findall(".//Grid/Grid")

    assert len(pictures) == len(STEPS)
    for index, (picture, (step, time)) in enumerate(zip(pictures, STEPS, strict=True)):
        value = picture.find("Time")
        assert value is not None
        assert float(value.attrib["Value"]) == time
        attributes = picture.findall("Attribute")
        assert [item.attrib["Name"] for item in attributes] == [field.name for field in FIELDS]
        for attribute in attributes:
            slab = attribute.find("DataItem[@ItemType='HyperSlab']")
            assert slab is not None
            selection, source = slab.findall("DataItem")
            start, stride, count = np.array(_numbers(selection), dtype=int).reshape(_dimensions(selection))
            assert start.tolist() == [index] + [0] * grid.ndim
            assert (stride == 1).all()
            assert _dimensions(slab) == (1,) * (3 - grid.ndim) + grid.shape
            assert source.text is not None
            with h5py.File(written) as file:
                chosen = file[source.text.split(":/")[1]][tuple(map(slice, start, start + count))]
            np.testing.assert_array_equal(
                chosen.reshape(grid.shape), _state(grid, step)[attribute.attrib["Name"]].interior
            )


def test_the_mesh_has_the_cells_and_the_size_of_the_grid(written: Path, grid: Grid) -> None:
    for picture in _xdmf(written).findall(".//Grid/Grid"):
        topology, geometry = picture.find("Topology"), picture.find("Geometry")
        assert topology is not None
        assert geometry is not None
        origin, spacing = map(_numbers, geometry.findall("DataItem"))

        cells = [nodes - 1 for nodes in _dimensions(topology)]

        assert cells == [1] * (3 - grid.ndim) + list(grid.shape)  # readers expect three dimensions
        assert origin == [0, 0, 0]
        assert spacing[3 - grid.ndim :] == list(grid.spacing)
        assert all(step > 0 for step in spacing)


def test_the_file_is_readable_from_outside_while_it_grows(grid: Grid, path: Path, processes: "Processes") -> None:
    file = FieldsFile(path, grid, FIELDS)
    with h5py.File(path) as empty:
        assert empty["w"].shape == (0, *grid.shape)

    for count, (step, time) in enumerate(STEPS[:2], start=1):
        file.write(_state(grid, step), step, time)
        said = processes.run([sys.executable, "-c", READ, str(path)], timeout=60).stdout.split()
        assert [float(word) for word in said] == [*(time for _, time in STEPS[:count]), count, *grid.shape]
        assert len(_xdmf(path).findall(".//Grid/Grid")) == count


def test_somebody_who_looks_at_the_file_does_not_end_the_run(path: Path, processes: "Processes") -> None:
    script = f"""
import subprocess, sys
from pathlib import Path
from mpi4py import MPI
from coupler.field import Field
from coupler.fieldsfile import FieldsFile
from coupler.grid import Grid
with Grid((4,), comm=MPI.COMM_SELF) as grid:
    file = FieldsFile(Path({str(path)!r}), grid, (Field("w"),))
    file.write(grid.state((Field("w"),)), 0, 0.0)
    look = f"import h5py; file = h5py.File({str(path)!r}); print('looking', flush=True); input()"
    reader = subprocess.Popen([sys.executable, "-c", look], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdout.readline() == b"looking\\n"
    file.write(grid.state((Field("w"),)), 1, 1.0)
    reader.communicate(b"\\n")
"""

    finished = processes.run([sys.executable, "-c", script], timeout=60)

    assert (finished.returncode, finished.stdout) == (0, "")
    with h5py.File(path) as file:
        assert file["w"].shape == (2, 4)


def test_times_may_be_numbers_of_numpy(path: Path) -> None:
    with Grid((3,), comm=MPI.COMM_SELF) as grid:
        FieldsFile(path, grid, FIELDS).write(_state(grid, 1), 1, np.float64(0.5))

    assert [item.attrib["Value"] for item in _xdmf(path).iter("Time")] == ["0.5"]


def test_a_file_is_never_overwritten(written: Path, grid: Grid) -> None:
    before = written.read_bytes()

    with pytest.raises(FileExistsError):
        FieldsFile(written, grid, FIELDS)

    assert written.read_bytes() == before


@pytest.mark.parametrize("name", ["time", "step", "axis0"])
def test_a_field_with_a_name_of_the_files_own_is_refused(path: Path, name: str) -> None:
    with (
        Grid((3,), comm=MPI.COMM_SELF) as grid,
        pytest.raises(PluginError, match=rf'A field is named "{name}", and so is something else in fields\.h5'),
    ):
        FieldsFile(path, grid, (Field("u"), Field(name)))

    assert not path.exists()


@pytest.mark.parametrize("segment_bytes", [1, 500, 2**20])
@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_file_that_is_cut_and_gone_on_with_has_every_picture_once(
    grid: Grid, path: Path, kept: int, segment_bytes: int
) -> None:
    file = FieldsFile(path, grid, FIELDS, segment_bytes=segment_bytes)
    for step, time in STEPS:
        file.write(_state(grid, step), step, time)

    again = FieldsFile(path, grid, FIELDS, segment_bytes=segment_bytes, pictures=kept)
    with h5py.File(path) as shown:
        assert shown["step"][:].tolist() == [step for step, _ in STEPS[:kept]]
    for step, time in STEPS[kept:]:
        again.write(_state(grid, step), step, time)

    assert again.pictures == len(STEPS)
    with h5py.File(path) as shown:
        assert shown["time"][:].tolist() == [time for _, time in STEPS]
        for index, (step, _) in enumerate(STEPS):
            np.testing.assert_array_equal(shown["w"][index], _state(grid, step)["w"].interior)
    picture = 8 * len(FIELDS) * math.prod(grid.shape)
    assert len(list(path.with_suffix("").iterdir())) <= min(len(STEPS), 2 + len(STEPS) * picture // segment_bytes)


def test_a_file_that_lost_pictures_is_not_gone_on_with(grid: Grid, written: Path) -> None:
    with pytest.raises(CouplerError, match=r"it has 3 of 4 pictures\), and the pictures of the run would have a hole"):
        FieldsFile(written, grid, FIELDS, pictures=4)
