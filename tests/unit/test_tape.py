"""Tapes on disk: what was written is read again, in few files, and whatever is wrong with one is said in a sentence."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coupler.errors import CouplerError, FieldMismatch
from coupler.field import Field
from coupler.learning.store import SampleStore
from coupler.learning.trainer import TrainingOutcome, TrainingTask, train
from coupler.operator import Signature
from coupler.records import Reason
from coupler.tape import SEGMENT_BYTES, Tape, TapeCall, TapeHead, TapeWriter, most_segments
from tests.unit.full_disk import files_of_at_most

SIGNATURE = Signature(
    inputs=(Field("a", unit="mol/m3", bounds=(0, None)), Field("b", unit="K")),
    outputs=(Field("a", unit="mol/m3", bounds=(0, None)),),
    atol=(1e-3,),
    rtol=(1e-2,),
    conserved={},
)
HEAD = TapeHead("reaction", SIGNATURE, "physics")
# One id, two inputs, one output.
ELEMENT_BYTES = 32
COUNT = 50
COLUMNS = ("ids", "inputs", "truth")


def _call(step: int, count: int = COUNT, *, call: int = 0, dt: float = 0.5) -> TapeCall:
    """A decay whose speed depends on b."""
    random = np.random.default_rng([step, call])
    a, b = 10 ** random.uniform(-2, 1, count), random.uniform(-1, 1, count)
    truth = (a * np.exp(-dt * (1 + b**2)))[:, None]
    return TapeCall(step, call, dt, np.arange(count) * 3, np.stack([a, b], axis=1), truth)


def _write(folder: Path, calls: list[TapeCall], head: TapeHead = HEAD, *, segment_bytes: int = SEGMENT_BYTES) -> None:
    folder.mkdir(exist_ok=True)
    writer = TapeWriter(folder, head, segment_bytes=segment_bytes)
    for call in calls:
        writer.add(call)
    writer.close()


def _assert_same(found: TapeCall, expected: TapeCall) -> None:
    assert (found.step, found.call, found.dt) == (expected.step, expected.call, expected.dt)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a tape of ten steps in five segments of two calls each."""
    _write(tmp_path / "tape", [_call(step) for step in range(1, 11)], segment_bytes=2 * COUNT * ELEMENT_BYTES)
    return tmp_path


def test_what_was_written_is_read_again_by_all_ways(run: Path) -> None:
    tape = Tape(run, "reaction")

    assert len(tape) == 10
    assert tape.head == HEAD
    assert tape.signature == SIGNATURE
    for position, call in enumerate(tape):
        _assert_same(call, _call(position + 1))
        _assert_same(tape[position], call)
        _assert_same(tape.at(position + 1, 0), call)
    _assert_same(tape[-1], _call(10))


def test_a_tape_is_found_by_run_folder_or_its_own_with_a_name_or_without(run: Path) -> None:
    for tape in (Tape(run), Tape(run / "tape"), Tape(str(run), "reaction")):
        assert (tape.operator, tape.folder, len(tape)) == ("reaction", run / "tape", 10)


def test_a_tape_says_what_is_on_it(run: Path) -> None:
    tape = Tape(run)

    assert tape.steps.tolist() == list(range(1, 11))
    assert tape.dt.tolist() == [0.5]
    assert tape.elements == 10 * COUNT
    assert [file.name for file in tape.files] == [f"reaction-0000{number}.h5" for number in range(1, 6)]


def test_a_tape_prints_itself_as_a_tree(run: Path) -> None:
    size = sum(file.stat().st_size for file in (run / "tape").iterdir())

    assert repr(Tape(run)).splitlines() == [
        f'Tape of "reaction" in {run / "tape"}: mode physics, every step, all elements',
        "├── inputs    a [mol/m3], b [K]",
        "├── outputs   a [mol/m3] ± (0.001 + 0.01|a|)",
        "├── steps     1 … 10 (10 of them, 1 call each)",
        "├── elements  500",
        "├── dt        0.5",
        f"└── bytes     {size} in 5 files",
    ]


def test_a_part_of_a_run_prints_as_such(tmp_path: Path) -> None:
    head = TapeHead("reaction", SIGNATURE, "shadow", every=5, share=0.25)
    _write(tmp_path / "tape", [_call(5), _call(5, call=1, dt=0.1), _call(10)], head)

    lines = repr(Tape(tmp_path)).splitlines()

    assert lines[0].endswith("mode shadow, every 5. step, 0.25 of the elements")
    assert lines[3].endswith("5 … 10 (2 of them, 1 to 2 calls each)")
    assert lines[5].endswith("0.1 … 0.5")


def test_a_tape_without_a_call_is_a_tape(tmp_path: Path) -> None:
    _write(tmp_path / "tape", [])

    tape = Tape(tmp_path)

    assert (len(tape), tape.elements, tape.steps.size, list(tape)) == (0, 0, 0, [])
    assert len(tape.samples(most=5)) == 0
    assert "steps     none\n" in repr(tape)
    with pytest.raises(CouplerError, match="has no step 1: it holds no call at all"):
        tape.at(1)


@pytest.mark.parametrize("counts", [[0], [1], [0, 1, 0], [3, 0, 20_000]], ids=str)
def test_calls_of_any_number_of_elements_are_kept(tmp_path: Path, counts: list[int]) -> None:
    calls = [_call(step, count) for step, count in enumerate(counts, start=1)]

    _write(tmp_path / "tape", calls)

    for found, expected in zip(Tape(tmp_path), calls, strict=True):
        _assert_same(found, expected)


def test_what_is_not_finite_is_kept_bit_by_bit(tmp_path: Path) -> None:
    strange = np.array([[np.nan], [np.inf], [-0.0]])
    call = TapeCall(1, 0, 0.5, np.arange(3), np.hstack([strange, strange]), strange)

    _write(tmp_path / "tape", [call])

    assert Tape(tmp_path)[0].inputs.tobytes() == call.inputs.tobytes()
    assert Tape(tmp_path)[0].truth.tobytes() == call.truth.tobytes()


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 40), max_size=20), segment_bytes=st.integers(1, 3000))
def test_there_are_no_more_files_than_the_formula_says(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], segment_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("tape")
    calls = [_call(step, count) for step, count in enumerate(counts, start=1)]

    _write(folder, calls, segment_bytes=segment_bytes)

    assert 1 <= len(Tape(folder).files) <= most_segments(sum(call.nbytes for call in calls), segment_bytes)
    assert len(Tape(folder)) == len(calls)


def test_a_long_run_has_few_files() -> None:
    """A day of a million elements with ten columns: ten thousand steps."""
    day = 10_000 * (32 + 1_000_000 * 88)

    assert most_segments(day) == 6557


def test_an_element_takes_eight_bytes_for_its_id_and_every_column(tmp_path: Path) -> None:
    call = _call(1, 100_000)
    _write(tmp_path / "tape", [call])

    (file,) = Tape(tmp_path).files

    assert call.nbytes == 100_000 * ELEMENT_BYTES + 32
    # Head, index and checksums.
    assert call.nbytes < file.stat().st_size < call.nbytes + 30_000


def test_the_same_calls_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    _write(tmp_path / "again", [_call(step) for step in range(1, 11)], segment_bytes=2 * COUNT * ELEMENT_BYTES)

    for file in Tape(run).files:
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_what_a_resumed_run_writes_again_stands_in_place_of_what_was_there(run: Path) -> None:
    writer = TapeWriter(run / "tape", HEAD)
    for step in range(6, 13):
        writer.add(_call(step, 7))
    writer.close()

    tape = Tape(run)

    assert tape.steps.tolist() == list(range(1, 13))
    assert [len(call) for call in tape] == [COUNT] * 5 + [7] * 7


def test_columns_are_a_table_of_all_elements(tmp_path: Path) -> None:
    calls = [_call(1, 2), _call(1, 1, call=1, dt=0.25), _call(2, 2)]
    _write(tmp_path / "tape", calls)

    columns = Tape(tmp_path).columns()

    assert list(columns) == ["step", "call", "id", "dt", "inputs.a", "inputs.b", "truth.a"]
    assert columns["step"].tolist() == [1, 1, 1, 2, 2]
    assert columns["call"].tolist() == [0, 0, 1, 0, 0]
    assert columns["dt"].tolist() == [0.5, 0.5, 0.25, 0.5, 0.5]
    np.testing.assert_array_equal(columns["inputs.b"], np.concatenate([call.inputs[:, 1] for call in calls]))
    assert Tape(tmp_path).columns(since=2)["id"].tolist() == [0, 3]


def test_samples_are_drawn_from_the_steps_asked_for_and_from_everywhere_in_them(run: Path) -> None:
    tape = Tape(run)

    found = tape.samples(since=3, until=8, most=120)

    assert len(found) == 120
    assert set(found.step) == set(range(3, 9))
    # A hypergeometric number of mean 20 and deviation 3.7 per step: five deviations.
    assert (abs(np.bincount(found.step)[3:] - 20) < 19).all()
    assert set(found.reason) == {Reason.PHYSICS}
    for step in (3, 8):
        mine, call = found.take(found.step == step), tape.at(step)
        rows = np.searchsorted(call.ids, mine.ids)
        np.testing.assert_array_equal(mine.inputs, call.inputs[rows])
        np.testing.assert_array_equal(mine.truth, call.truth[rows])
        assert (mine.dt == call.dt).all()


def test_samples_do_not_depend_on_how_many_are_looked_at_at_once(run: Path) -> None:
    """Few samples are thinned many times on the way, many never."""
    few, many = Tape(run).samples(most=30), Tape(run).samples(most=300)

    names = [set(zip(one.step.tolist(), one.ids.tolist(), strict=True)) for one in (few, many)]
    assert (len(names[0]), len(names[1])) == (30, 300)
    assert names[0] < names[1]


@pytest.mark.parametrize(("most", "found"), [(None, 500), (500, 500), (10_000, 500), (0, 0)])
def test_as_many_samples_as_there_are_can_be_had(run: Path, most: int | None, found: int) -> None:
    batch = Tape(run).samples(most=most)

    assert len(batch) == found
    assert (np.lexsort((batch.ids, batch.call, batch.step)) == np.arange(found)).all()


def test_the_trainer_learns_from_a_tape(tmp_path: Path) -> None:
    _write(tmp_path / "tape", [_call(step, 500) for step in range(1, 6)])
    tape = Tape(tmp_path)
    SampleStore(tmp_path / "samples", tape.operator, tape.signature).append(tape.samples(until=3, most=1200))

    outcome = _trained(tmp_path, tape)

    assert outcome.candidate is not None
    # A tenth is held out.
    assert 1000 < outcome.candidate.samples < 1200


def _trained(folder: Path, tape: Tape) -> TrainingOutcome:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(
            TrainingTask(
                operator=tape.operator,
                surrogate="coupler.models.mlp_ensemble:MLPEnsemble",
                params={"members": 1, "width": 8, "depth": 1, "epochs": 3},
                signature=tape.signature.to_json(),
                samples=str(folder / "samples"),
                models=str(folder / "models"),
                capacity=5000,
                seed=1,
                seconds=None,
                cap=5.0,
                target=0.1,
                step=3,
                incumbent=None,
            )
        )
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda tape: tape.at(11), r"has no step 11: it holds steps 1 to 10, every 1\. step\. tape.steps lists them"),
        (lambda tape: tape.at(3, 1), r"has no call 1 of step 3: it holds steps 1 to 10"),
    ],
    ids=["step", "call"],
)
def test_a_call_that_is_not_there_is_named(run: Path, ask: Callable[[Tape], object], said: str) -> None:
    with pytest.raises(CouplerError, match=said):
        ask(Tape(run))


@pytest.mark.parametrize("position", [10, -11])
def test_a_position_beyond_the_end_is_an_index_error_as_in_any_sequence(run: Path, position: int) -> None:
    with pytest.raises(IndexError):
        Tape(run)[position]


def test_another_operator_is_asked_for_by_its_nearest_name(run: Path) -> None:
    with pytest.raises(
        CouplerError, match=r'no tape of "reactoin" in .*/tape\. Did you mean "reaction"\? A run writes'
    ):
        Tape(run, "reactoin")


def test_of_several_tapes_one_must_be_named(run: Path) -> None:
    _write(run / "tape", [_call(1)], TapeHead("decay", SIGNATURE, "physics"))

    with pytest.raises(CouplerError, match="holds tapes of decay, reaction, where one was asked for without a name"):
        Tape(run)
    assert len(Tape(run, "decay")) == 1


@pytest.mark.parametrize("path", ["", "nothing here"])
def test_where_there_is_no_tape_that_is_said(tmp_path: Path, path: str) -> None:
    with pytest.raises(CouplerError, match="holds no tape, where one was asked for without a name: check the path"):
        Tape(tmp_path / path)
    with pytest.raises(CouplerError, match='no tape of "reaction" in'):
        Tape(tmp_path / path, "reaction")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _replace_by_text(file: Path) -> None:
    file.write_text("a tape\n" * 1000)


def _replace_by_other_hdf5(file: Path) -> None:
    with h5py.File(file, "w") as other:
        other["ids"] = np.arange(3)


def _forget_a_column(file: Path) -> None:
    with h5py.File(file, "r+") as tape:
        del tape["truth"]


def _shorten_a_column(file: Path) -> None:
    with h5py.File(file, "r+") as tape:
        tape["truth"].resize(COUNT, axis=0)


def _turn_calls_around(file: Path) -> None:
    with h5py.File(file, "r+") as tape:
        tape["step"][:] = tape["step"][:][::-1]


def _break_the_signature(file: Path) -> None:
    with h5py.File(file, "r+") as tape:
        del tape["signature"]
        tape["signature"] = "{}"


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _empty,
        _replace_by_text,
        _replace_by_other_hdf5,
        _forget_a_column,
        _shorten_a_column,
        _turn_calls_around,
        _break_the_signature,
    ],
)
def test_a_file_that_is_no_whole_tape_is_named(run: Path, damage: Callable[[Path], None]) -> None:
    file = run / "tape" / "reaction-00003.h5"
    damage(file)

    with pytest.raises(CouplerError) as caught:
        Tape(run)
    assert str(caught.value).startswith(f"The tape {file} cannot be read (")
    assert "\n" not in str(caught.value)


def test_what_a_disk_lost_among_the_rows_is_found_when_they_are_read(run: Path) -> None:
    file = run / "tape" / "reaction-00003.h5"
    data = file.read_bytes()
    place = data.index(_call(5).truth.tobytes())
    file.write_bytes(data[:place] + b"\x00" * 8 + data[place + 8 :])
    tape = Tape(run)

    _assert_same(tape.at(4), _call(4))
    with pytest.raises(CouplerError, match=r"reaction-00003\.h5 cannot be read"):
        tape.at(5)


def test_a_missing_segment_is_named(run: Path) -> None:
    (run / "tape" / "reaction-00003.h5").unlink()

    with pytest.raises(CouplerError, match=r"segment .*reaction-00003\.h5 is missing while later ones are there"):
        Tape(run)


def test_a_tape_under_another_name_is_refused(run: Path) -> None:
    (run / "tape" / "reaction-00001.h5").rename(run / "tape" / "decay-00001.h5")

    with pytest.raises(
        CouplerError, match=r'decay-00001\.h5 says that it is of the operator "reaction", not of "decay"'
    ):
        Tape(run, "decay")


def test_segments_of_two_runs_are_not_taken_for_one(run: Path) -> None:
    other = Signature(SIGNATURE.inputs, SIGNATURE.outputs, atol=(1.0,), rtol=SIGNATURE.rtol)
    _write(run / "tape", [_call(20)], TapeHead("reaction", other, "physics"))

    with pytest.raises(FieldMismatch, match=r"reaction-00006\.h5 has other columns, units or tolerances"):
        Tape(run)


def test_a_hidden_half_of_a_killed_writer_is_not_looked_at(run: Path) -> None:
    (run / "tape" / ".reaction-00006.h5.part").write_bytes(b"half")

    assert len(Tape(run)) == 10


def test_a_full_disk_is_a_sentence_and_leaves_what_was_written(run: Path) -> None:
    writer = TapeWriter(run / "tape", HEAD)
    writer.add(_call(11, 10_000))

    with files_of_at_most(100_000), pytest.raises(CouplerError) as caught:
        writer.close()

    assert str(caught.value).startswith(f"The tape {run / 'tape' / 'reaction-00006.h5'} cannot be written (File too la")
    assert len(list((run / "tape").iterdir())) == 5
    assert len(Tape(run)) == 10
    writer.close()
    assert len(Tape(run)) == 11


def test_a_folder_that_is_gone_is_a_sentence_too(tmp_path: Path) -> None:
    writer = TapeWriter(tmp_path / "tape", HEAD)

    with pytest.raises(CouplerError, match=r"cannot be written \(No such file or directory\)"):
        writer.close()


def test_what_is_saved_in_between_can_be_read_and_makes_no_more_files(tmp_path: Path) -> None:
    calls = [_call(step) for step in range(1, 5)]
    writer = TapeWriter(tmp_path, HEAD)

    for call in calls[:3]:
        writer.add(call)
        writer.save()
    saved = [call.step for call in Tape(tmp_path)]
    again = TapeWriter(tmp_path, HEAD)  # killed, and resumed after step 2
    for call in calls[2:]:
        again.add(call)
    again.close()

    assert saved == [1, 2, 3]
    assert [call.step for call in Tape(tmp_path)] == [1, 2, 3, 4]
    assert len(Tape(tmp_path).files) == 2
