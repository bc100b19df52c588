"""The recorder on however many ranks it is started: the tape is that of one rank that had all elements."""

import hashlib

import numpy as np
import pytest
from mpi4py import MPI

from coupler.config import case_from
from coupler.coupling.nodes import Nodes
from coupler.coupling.recorder import TapeRecorder
from coupler.errors import FieldMismatch
from coupler.operator import Operator
from coupler.runfolder import RunFolder
from coupler.tape import Tape, TapeCall

pytestmark = pytest.mark.mpi

RANK, RANKS = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
STEPS, DT = 30, 0.5
OPERATORS = {
    "pair": Operator(lambda x, dt: x * dt, inputs=("a", "b"), outputs=("a", "b"), atol=1.0, rtol=1.0),
    "one": Operator(lambda x, dt: x[:, :1] * dt, inputs=("c", "d", "e"), outputs=("c",), atol=1.0, rtol=1.0),
}
NAMES = tuple(OPERATORS)


@pytest.fixture
def path(tmp_path):
    return MPI.COMM_WORLD.bcast(tmp_path)


def _everything(step, call):
    """A call's elements of all ranks; in some steps there are none."""
    ids = np.flatnonzero(np.arange(200) % (step % 4 + 1) == 0) if step % 5 else np.arange(0)
    columns = len(OPERATORS[NAMES[call]].signature.inputs)
    inputs = np.random.default_rng([step, call]).random((200, columns))[ids]
    return TapeCall(step, call, DT, ids, inputs, OPERATORS[NAMES[call]].evaluate_truth(inputs, DT))


def _mine(call, ranks):
    """This rank's part, in an order of its own; the last of several has nothing."""
    owners = (call.ids * 7919 + call.step) % max(1, ranks - 1)
    rows = np.flatnonzero(owners == RANK)
    rows = np.random.default_rng([RANK, call.step]).permutation(rows)
    return TapeCall(call.step, call.call, call.dt, call.ids[rows], call.inputs[rows], call.truth[rows])


def _record(path, comm, ranks, output, **bounds):
    folder = RunFolder(path)
    if comm.rank == 0:
        path.mkdir(exist_ok=True)
    comm.Barrier()
    case = case_from({"controller": {"mode": "physics"}, "output": {"tape": True, **output}}, folder=path)
    nodes = Nodes.of(comm)
    recorder = TapeRecorder(folder, nodes, OPERATORS, case, **bounds)
    for step in range(1, STEPS + 1):
        for call in range(2):
            recorder.record(call, _mine(_everything(step, call), ranks))
        recorder.end_step()
    recorder.finish()
    nodes.close()


def _hashes(path):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (path / "tape").iterdir()}


@pytest.mark.parametrize("bounds", [{}, {"gather_bytes": 3000}, {"gather_bytes": 0, "segment_bytes": 9000}], ids=str)
def test_every_call_is_on_its_tape_sorted_by_id(path, bounds):
    _record(path, MPI.COMM_WORLD, RANKS, {}, **bounds)
    MPI.COMM_WORLD.Barrier()  # only rank 0 writes

    for call, name in enumerate(NAMES):
        tape = Tape(path, name)
        assert len(tape) == STEPS
        for found in tape:
            expected = _everything(found.step, call)
            assert (found.call, found.dt) == (call, DT)
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.inputs, expected.inputs)
            np.testing.assert_array_equal(found.truth, expected.truth)
    MPI.COMM_WORLD.Barrier()


@pytest.mark.parametrize("output", [{}, {"tape_every": 3}, {"tape_share": 0.3}, {"tape_share": 1e-9}], ids=str)
def test_the_files_are_the_same_bytes_on_any_number_of_ranks(path, output):
    bounds = {"gather_bytes": 4000, "segment_bytes": 20_000}
    _record(path / "all", MPI.COMM_WORLD, RANKS, output, **bounds)
    if RANK == 0:
        _record(path / "alone", MPI.COMM_SELF, 1, output, **bounds)
        assert _hashes(path / "all") == _hashes(path / "alone")
        assert len(_hashes(path / "all")) >= 2
    MPI.COMM_WORLD.Barrier()


def test_a_share_is_the_same_elements_in_every_step(path):
    _record(path, MPI.COMM_WORLD, RANKS, {"tape_share": 0.3})
    MPI.COMM_WORLD.Barrier()

    chosen = {identity for call in Tape(path, "pair") for identity in call.ids.tolist()}
    assert 30 < len(chosen) < 90  # 60 of 200 and five deviations
    for call in Tape(path, "pair"):
        np.testing.assert_array_equal(call.ids, [i for i in _everything(call.step, 0).ids if i in chosen])
    MPI.COMM_WORLD.Barrier()


def test_a_run_without_a_step_has_tapes_that_say_so(path):
    case = case_from({"controller": {"mode": "shadow"}, "output": {"tape": True}}, folder=path)
    nodes = Nodes.of(MPI.COMM_WORLD)
    TapeRecorder(RunFolder(path), nodes, OPERATORS, case).finish()
    nodes.close()
    MPI.COMM_WORLD.Barrier()

    assert [len(Tape(path, name)) for name in NAMES] == [0, 0]
    MPI.COMM_WORLD.Barrier()


def test_what_was_flushed_is_on_disk_and_the_tape_goes_on(path):
    case = case_from({"controller": {"mode": "physics"}, "output": {"tape": True}}, folder=path)
    nodes = Nodes.of(MPI.COMM_WORLD)
    recorder = TapeRecorder(RunFolder(path), nodes, OPERATORS, case)
    for step in (1, 2, 3):
        recorder.record(0, _mine(_everything(step, 0), RANKS))
        recorder.end_step()
        if step == 2:
            recorder.flush()
            MPI.COMM_WORLD.Barrier()
            assert Tape(path, "pair").steps.tolist() == [1, 2]
    recorder.finish()
    nodes.close()
    MPI.COMM_WORLD.Barrier()

    assert Tape(path, "pair").steps.tolist() == [1, 2, 3]
    MPI.COMM_WORLD.Barrier()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dt": DT + RANK}, r"step 1: ranks called evaluate with dt = 0.5 and dt = .* in the same call"),
        ({"ids": np.arange(4)}, r"The id 0 was given to several elements of one call"),
    ],
    ids=["dt", "ids"],
)
def test_calls_of_ranks_that_do_not_fit_together_are_refused(path, changed, said):
    case = case_from({"controller": {"mode": "physics"}, "output": {"tape": True}}, folder=path)
    nodes = Nodes.of(MPI.COMM_WORLD)
    # One operator: after the first that does not fit rank 0 talks no more.
    recorder = TapeRecorder(RunFolder(path), nodes, {"pair": OPERATORS["pair"]}, case)
    ids = np.arange(4) + 4 * RANK
    call = {"step": 1, "call": 0, "dt": DT, "ids": ids, "inputs": np.ones((4, 2)), "truth": np.ones((4, 2))}
    recorder.record(0, TapeCall(**(call | changed)))

    if RANK == 0 and RANKS > 1:
        with pytest.raises(FieldMismatch, match=said):
            recorder.finish()
    else:
        recorder.finish()
    nodes.close()
