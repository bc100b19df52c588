"""Runs that record their truth: the same files on any number of ranks, by either door, with or without a surrogate."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mpi4py import MPI

from coupler import Coupling, Operator
from coupler.config import case_from
from coupler.errors import ConfigError
from coupler.kernels.bz import BZ
from coupler.tape import Tape

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple, RunFiles, Start

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
PHYSICS = ("controller.mode=physics", "output.tape=true", "output.pictures=false")
# Blocks of different sizes on four ranks.
SPIRALS = ("grid.shape=[31,22]", "run.steps=20")
HEAT = ("grid.shape=[9,7]", "run.steps=10")
# After MPI has started: its own shared memory is files, too.
SCRIPT = """
import resource
from mpi4py import MPI
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
from coupler.cli import main
main()
"""


def tapes(run: "RunFiles") -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run.path / "tape").iterdir()}


@pytest.mark.parametrize(("case", "small"), [("bz.toml", SPIRALS), ("heat.toml", HEAT)], ids=["bz", "heat"])
def test_the_tape_is_the_same_bytes_on_any_number_of_ranks(couple: "Couple", case: str, small: tuple[str, ...]) -> None:
    alone, *others = (couple(case, ranks, *small, *PHYSICS) for ranks in (1, 2, 4))

    assert len(tapes(alone)) == 1
    for other in others:
        assert tapes(other) == tapes(alone)


def test_the_tape_holds_what_the_operator_gave_for_every_element_of_every_step(couple: "Couple") -> None:
    run = couple("bz.toml", 2, *SPIRALS, *PHYSICS)
    reaction = BZ(s=5.0, w=0.05, q=2e-3, f=1.4).reaction

    tape = Tape(run.path)

    assert tape.steps.tolist() == list(range(1, 21))
    assert tape.elements == run.summary.elements
    for call in tape:
        np.testing.assert_array_equal(call.ids, np.arange(31 * 22))
        np.testing.assert_array_equal(call.truth, reaction.evaluate_truth(call.inputs, call.dt))


def test_recording_leaves_the_run_as_it_is(couple: "Couple") -> None:
    taped, untaped = couple("bz.toml", 2, *SPIRALS, *PHYSICS), couple("bz.toml", 2, *SPIRALS, PHYSICS[0], PHYSICS[2])

    assert taped.summary.state_sha256 == untaped.summary.state_sha256
    assert not (untaped.path / "tape").exists()


@pytest.mark.ray
def test_a_surrogate_that_is_watched_does_not_change_the_tape(couple: "Couple") -> None:
    settings = ("grid.shape=[40,40]", "run.steps=24", "output.tape=true", "output.pictures=false")
    shadow = couple("bz.toml", 2, *settings, "controller.mode=shadow")
    physics = couple("bz.toml", 2, *settings, "controller.mode=physics")
    assert shadow.summary.models, "no model ever answered, so nothing was watched"

    watched, bare = Tape(shadow.path), Tape(physics.path)

    assert (watched.head.mode, bare.head.mode) == ("shadow", "physics")
    assert len(watched) == len(bare) == 24
    for one, other in zip(watched, bare, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.truth, other.truth)


def test_a_part_of_steps_and_elements_is_a_part_of_the_tape(couple: "Couple") -> None:
    part = ("output.tape_every=4", "output.tape_share=0.25")
    alone, both = (couple("bz.toml", ranks, *SPIRALS, *PHYSICS, *part) for ranks in (1, 2))

    whole, tape = Tape(couple("bz.toml", 2, *SPIRALS, *PHYSICS).path), Tape(both.path)

    assert tapes(alone) == tapes(both)
    assert tape.steps.tolist() == [4, 8, 12, 16, 20]
    ids = tape[0].ids
    assert 114 < len(ids) < 227  # a quarter of 682 and five deviations
    for call in tape:
        np.testing.assert_array_equal(call.ids, ids)
        np.testing.assert_array_equal(call.truth, whole.at(call.step).truth[ids])


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_loop_of_ones_own_is_recorded_with_ranks_that_have_nothing(mpirun: "MpiRun", tmp_path: Path) -> None:
    case = tmp_path / "case.toml"
    case.write_text('[controller]\nmode = "physics"\n[output]\ntape = true\n')

    finished = mpirun(2, str(HERE / "plugins" / "own_loop.py"), str(case))

    assert finished.returncode == 0, finished.stdout
    pair, one = (Tape(tmp_path / "run", name) for name in ("pair", "one"))
    assert (len(pair), len(one)) == (40, 40)
    assert {call.call for call in pair} == {0}
    assert {call.call for call in one} == {1}
    # Every third step of a rank is without elements, and ids begin with 0 on rank 0 and with 500 on rank 1.
    for call in pair:
        first, second = bool((call.ids < 500).any()), bool((call.ids >= 500).any())
        assert (first, second) == ((call.step - 1) % 3 != 0, call.step % 3 != 0)
        np.testing.assert_array_equal(call.truth, call.inputs * np.exp(-call.dt))


@pytest.mark.parametrize("count", [0, 1])
def test_no_element_and_one_are_recorded(tmp_path: Path, count: int) -> None:
    with _coupling(tmp_path) as coupling:
        coupling.evaluate(np.ones((count, 2)), np.arange(count) + 7, 0.1)
        coupling.end_step()

    (call,) = Tape(tmp_path / "run")
    assert (call.step, call.call, call.dt) == (1, 0, 0.1)
    assert call.ids.tolist() == [7] * count


def test_what_comes_after_the_last_end_of_a_step_is_recorded_too(tmp_path: Path) -> None:
    with _coupling(tmp_path) as coupling:
        coupling.end_step()
        coupling.evaluate(np.ones((3, 2)), np.arange(3), 0.1)
        coupling.evaluate(np.ones((3, 2)), np.arange(3), 0.2)

    assert [(call.step, call.call, call.dt) for call in Tape(tmp_path / "run")] == [(2, 0, 0.1), (2, 1, 0.2)]


def test_inputs_are_kept_as_they_were_when_the_loop_writes_over_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 4, 2))
    with _coupling(tmp_path) as coupling:
        for step in range(3):
            place = coupling.inputs(4)
            place[...] = values[step]
            coupling.evaluate(place, np.arange(4), 0.1)[...] = np.nan
            place[...] = np.nan
            coupling.end_step()

    for call, expected in zip(Tape(tmp_path / "run"), values, strict=True):
        np.testing.assert_array_equal(call.inputs, expected)


def test_a_run_of_no_steps_has_a_tape_of_none(couple: "Couple") -> None:
    run = couple("heat.toml", 2, "run.steps=0", *PHYSICS)

    assert len(Tape(run.path)) == 0


@pytest.mark.parametrize("mode", ["certified", "surrogate"])
def test_a_tape_of_what_is_not_computed_is_refused_before_anything_starts(
    start: "Start", tmp_path: Path, mode: str
) -> None:
    run = start("heat.toml", 2, f"controller.mode={mode}", "output.tape=true")

    finished = run.running.end(60)

    assert finished.returncode == 2
    (said,) = [line for line in finished.stdout.splitlines() if line.startswith("coupler:")]
    assert f'output.tape = true records the truth of every element, and with controller.mode = "{mode}"' in said
    assert 'set controller.mode to "physics" or "shadow", or leave output.tape out' in said
    assert not run.files.path.exists()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"tape_share": 0.0}, "output.tape_share = 0.0: input should be greater than 0"),
        ({"tape_share": 1.5}, "output.tape_share = 1.5: input should be less than or equal to 1"),
        ({"tape_share": float("nan")}, "output.tape_share = nan: "),
        ({"tape_every": 0}, "output.tape_every = 0: input should be greater than or equal to 1"),
        ({"tapes": True}, 'there is no key "output.tapes". Did you mean "tape"?'),
    ],
    ids=str,
)
def test_wrong_keys_of_a_tape_are_named(output: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        case_from({"controller": {"mode": "physics"}, "output": output}, folder=HERE)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.usefixtures("nothing_left_behind")
def test_a_full_disk_ends_the_run_with_a_sentence(mpirun: "MpiRun", tmp_path: Path, ranks: int) -> None:
    settings = [word for setting in ("grid.shape=[60,60]", "run.steps=10", *PHYSICS) for word in ("--set", setting)]

    finished = mpirun(ranks, "-c", SCRIPT, "run", str(HERE / "heat.toml"), *settings, "--out", str(tmp_path / "run"))

    assert finished.returncode == 2, finished.stdout
    # mpirun says something as well, sometimes on the same line.
    said = f"coupler: The tape {tmp_path / 'run' / 'tape' / 'exchange-00001.h5'} cannot be written (File too large)"
    assert finished.stdout.count(said) == 1, finished.stdout
    assert "Traceback" not in finished.stdout
    assert list((tmp_path / "run" / "tape").iterdir()) == []
    assert not (tmp_path / "run" / "summary.json").exists()


def _coupling(folder: Path) -> Coupling:
    operator = Operator(lambda inputs, dt: inputs / 2, inputs=("a", "b"), outputs=("a", "b"), atol=1e-3, rtol=1e-3)
    case = case_from({"controller": {"mode": "physics"}, "output": {"tape": True}}, folder=folder)
    return Coupling(operator, case=case, comm=MPI.COMM_SELF, out=folder / "run")
