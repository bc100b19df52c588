"""Data for others: one call each, whatever is missing is said."""

from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch.utils.data import DataLoader

from coupler.data import (
    field_arrays,
    ledger_frame,
    read_samples,
    sample_dataset,
    sample_frame,
    tape_dataset,
    tape_frame,
)
from coupler.errors import ConfigError, CouplerError
from coupler.field import Field
from coupler.fieldsfile import FieldsFile
from coupler.grid import Grid
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.operator import Operator, Signature
from coupler.records import Reason
from coupler.tape import TapeCall, TapeHead, TapeWriter
from tests.unit.written_run import write_run

ROWS = 10


def _signature() -> Signature:
    operator = Operator(lambda inputs, dt: inputs, inputs=("a", "b"), outputs=("a", "b"), atol=1.0, rtol=0.0)
    return operator.signature


def _batch(first: int = 0) -> SampleBatch:
    rows = np.arange(first, first + ROWS)
    return SampleBatch(
        inputs=np.stack([rows, 2.0 * rows], axis=1),
        dt=np.full(ROWS, 0.5),
        truth=np.stack([3.0 * rows, 4.0 * rows], axis=1),
        step=np.full(ROWS, 1 + first, np.int64),
        call=np.zeros(ROWS, np.int64),
        ids=rows.astype(np.int64),
        reason=np.full(ROWS, Reason.AUDIT, np.uint8),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = SampleStore(tmp_path / "samples", "reaction", _signature())
    store.append(_batch(ROWS))
    store.append(_batch())
    (tmp_path / "tape").mkdir()
    tape = TapeWriter(tmp_path / "tape", TapeHead("reaction", _signature(), "physics", 1, 1.0), segment_bytes=2**20)
    batch = _batch()
    tape.add(TapeCall(1, 0, 0.5, batch.ids, batch.inputs, batch.truth))
    tape.close()
    return tmp_path


def test_samples_of_all_segments_come_in_order_with_their_names(run: Path) -> None:
    samples = read_samples(run)

    assert (samples.operator, samples.inputs, samples.outputs) == ("reaction", ("a", "b"), ("a", "b"))
    assert samples.batch.ids.tolist() == list(range(2 * ROWS))


def test_a_data_set_of_samples_or_of_a_tape_makes_batches(run: Path) -> None:
    for dataset, count in ((sample_dataset(run), 2 * ROWS), (tape_dataset(run), ROWS)):
        batches = list(DataLoader(dataset, batch_size=count))

        assert isinstance(dataset, torch.utils.data.Dataset)
        assert len(dataset) == count and len(batches) == 1
        assert batches[0].inputs.shape == batches[0].truth.shape == (count, 2)
        assert torch.equal(batches[0].truth[:, 0], 3 * batches[0].inputs[:, 0])
        assert batches[0].inputs.dtype == torch.float64


def test_a_damaged_or_missing_segment_is_named(run: Path) -> None:
    path = run / "samples" / "reaction-00001.h5"
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(CouplerError, match=r"reaction-00001\.h5 cannot be read"):
        read_samples(run)
    with pytest.raises(CouplerError, match=r'There are no samples of "reactoin" .* Did you mean "reaction"'):
        read_samples(run, "reactoin")
    with pytest.raises(CouplerError, match="holds no samples"):
        read_samples(run / "tape" / "nowhere")


def test_several_operators_must_be_told_apart(run: Path) -> None:
    SampleStore(run / "samples", "other", _signature()).append(_batch())

    with pytest.raises(CouplerError, match="samples of other, reaction, where one"):
        read_samples(run)


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed: pip install 'coupler[data]'")
def test_ledger_tape_and_samples_are_data_frames(run: Path, tmp_path: Path) -> None:
    ledger = ledger_frame(write_run(tmp_path / "written"))
    samples, tape = sample_frame(run), tape_frame(run)

    assert list(samples.columns) == [*tape.columns[:4], "reason", *tape.columns[4:]]
    assert (samples["truth.b"] == 2 * samples["inputs.b"]).all() and (samples["reason"] == "audit").all()
    assert len(tape) == ROWS
    assert "accepted" in ledger.columns


@pytest.mark.skipif(find_spec("pandas") is not None, reason="pandas is installed, so nothing is missing")
def test_without_pandas_it_is_said_what_to_type(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'coupler\[data\]'"):
        sample_frame(run)
    with pytest.raises(ConfigError, match=r"pip install 'coupler\[data\]'"):
        tape_frame(run)


@pytest.fixture(params=[(5,), (4, 3), (3, 2, 4)], ids=["1-D", "2-D", "3-D"])
def fields(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kinds = (Field("u", unit="K"), Field("w"))
    with Grid(request.param, halo=1, comm=MPI.COMM_SELF) as grid:
        state = grid.state(kinds)
        file = FieldsFile(tmp_path / "fields.h5", grid, kinds)
        for step in range(3):
            state["u"].interior[...] = step
            state["w"].interior[...] = np.arange(state["w"].interior.size).reshape(grid.local_shape)
            file.write(state, step, 0.5 * step)
    return tmp_path


@pytest.mark.skipif(
    find_spec("xarray") is None or find_spec("h5netcdf") is None,
    reason="xarray or h5netcdf is not installed: pip install 'coupler[data]'",
)
def test_xarray_opens_the_fields_with_time_and_axes_as_coordinates(fields: Path) -> None:
    with field_arrays(fields) as data:
        assert data["u"].dims[0] == "time"
        assert data["time"].values.tolist() == [0.0, 0.5, 1.0]
        assert data["step"].dims == ("time",)
        assert data["u"].attrs["units"] == "K"
        assert float(data["u"].sel(time=1.0).mean()) == 2.0
        assert float(data["axis0"][0]) == pytest.approx(0.5 / data.sizes["axis0"])


@pytest.mark.skipif(find_spec("vtkmodules") is None, reason="VTK is not installed: pip install vtk")
def test_the_reader_of_paraview_finds_every_step_bit_by_bit(fields: Path) -> None:
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOXdmf2 import vtkXdmfReader

    reader = vtkXdmfReader()
    reader.SetFileName(str(fields / "fields.xdmf"))
    for step in range(3):
        reader.UpdateTimeStep(0.5 * step)
        found = reader.GetOutputDataObject(0)
        while found.IsA("vtkMultiBlockDataSet"):
            found = found.GetBlock(0)
        with h5py.File(fields / "fields.h5") as file:
            for name in ("u", "w"):
                shown = vtk_to_numpy(found.GetCellData().GetArray(name))
                np.testing.assert_array_equal(shown, file[name][step].ravel())


@pytest.mark.skipif(find_spec("xarray") is not None, reason="xarray is installed, so nothing is missing")
def test_without_xarray_it_is_said_what_to_type(fields: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'coupler\[data\]'"):
        field_arrays(fields)
