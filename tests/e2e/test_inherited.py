"""Runs that begin with a model: one that was trained on recorded truth, or one that another run has left."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from coupler.cli import app
from coupler.errors import CouplerError
from coupler.learning.registry import Registry
from coupler.learning.store import SampleStore
from coupler.playback.kept import KeptTruth
from coupler.records import Reason
from tests.e2e.conftest import RunFiles

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

HEAT = Path(__file__).with_name("heat.toml")
PLUGINS = Path(__file__).with_name("plugins")
PHYSICS = ("controller.mode=physics", "output.tape=true")
ANSWERED = "controller.mode=surrogate"
OFF, COLLECT = "learning.mode=off", "learning.mode=collect"
# Deterministic, and never trained: there are not so many samples in the whole run.
NEVER = "learning.first=60000"


@pytest.fixture(scope="module")
def taped(couple: "Couple") -> "RunFiles":
    return couple("heat.toml", 2, *PHYSICS)


@pytest.fixture(scope="module")
def trained(taped: "RunFiles", lasting_mpirun: "MpiRun") -> Path:
    """Give the folder of a training on a tape."""
    folder = lasting_mpirun.processes.folder / "trained"
    finished = lasting_mpirun(1, "-m", "coupler", "train", str(taped.path), "--out", str(folder), "--samples", "9000")
    assert finished.returncode == 0, finished.stdout
    assert f"learning.start={folder}" in finished.stdout
    return folder


def command(*words: str) -> None:
    """Type a command that ends in this process."""
    CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)


def from_trained(folder: Path) -> str:
    return f"learning.start={folder}"


def test_a_model_trained_on_a_tape_answers_from_the_first_step_on(couple: "Couple", trained: Path) -> None:
    run = couple("heat.toml", 2, from_trained(trained), ANSWERED)

    first, card = run.summary.models[0], Registry(trained / "models").card("exchange", 1)
    assert (first.version, first.step, first.sha256) == (1, 1, card.sha256)
    assert Reason.NO_MODEL not in run.reasons()
    assert run.metrics[0]["version"] == 1


@pytest.mark.parametrize("learning", [(), (NEVER,)], ids=["that learns on", "that learns no more"])
def test_a_run_with_a_model_to_begin_with_is_the_same_bits_on_any_ranks_and_again(
    couple: "Couple", trained: Path, mpirun: "MpiRun", tmp_path: Path, learning: tuple[str, ...]
) -> None:
    settings = (from_trained(trained), ANSWERED, *learning)
    one, two, four = (couple("heat.toml", ranks, *settings) for ranks in (1, 2, 4))

    replayed = f"again-{one.path.name}"
    again = mpirun(2, "-m", "coupler", "replay", str(one.path), "--out", replayed)

    assert one.summary.decisions.accepted > 0
    assert one.summary.coin_seed != one.summary.seed
    assert one.summary.coin_seed == two.summary.coin_seed == RunFiles(tmp_path / replayed).summary.coin_seed
    assert one.summary.state_sha256 == two.summary.state_sha256 == four.summary.state_sha256
    assert one.summary.decisions == two.summary.decisions == four.summary.decisions
    assert again.returncode == 0, again.stdout
    assert "bitwise the same" in again.stdout


def test_without_learning_the_threshold_moves_all_the_same(couple: "Couple", trained: Path) -> None:
    run = couple("heat.toml", 2, from_trained(trained), OFF, "controller.audit_rate=0.2")

    assert run.summary.retrainings == 0
    assert len({line["threshold"] for line in run.metrics}) > 1


def test_a_model_inside_of_every_rank_answers_from_the_first_step_on(couple: "Couple", trained: Path) -> None:
    settings = (from_trained(trained), ANSWERED, NEVER)

    inside = couple("heat.toml", 2, *settings, "exchange.transport=inprocess")

    assert inside.summary.state_sha256 == couple("heat.toml", 2, *settings).summary.state_sha256


def test_a_run_begins_with_the_version_that_answered_last_in_another(couple: "Couple", trained: Path) -> None:
    before = couple("heat.toml", 2, from_trained(trained), ANSWERED)

    after = couple("heat.toml", 2, f"learning.start={before.path}", ANSWERED, OFF)

    assert [model.sha256 for model in after.summary.models] == [before.summary.models[-1].sha256]


def test_a_run_with_a_model_to_begin_with_goes_on_without_that_folder(
    couple: "Couple", trained: Path, mpirun: "MpiRun", tmp_path: Path
) -> None:
    settings = (ANSWERED, NEVER, "run.checkpoint_every=20")
    undisturbed = couple("heat.toml", 2, from_trained(trained), *settings)
    begun, folder = tmp_path / "begun", tmp_path / "model"
    shutil.copytree(trained, folder)
    words = [word for setting in (*settings, from_trained(folder)) for word in ("--set", setting)]
    dying = f'kernel.name="{HEAT.parent}/plugins/kernels.py:Dying"'
    params = f'kernel.params={{file = "{tmp_path}/killed", rank = 1, step = 30}}'
    killed = mpirun(2, "-m", "coupler", "run", str(HEAT), *words, "--set", dying, "--set", params, "--out", str(begun))
    assert killed.returncode != 0
    shutil.rmtree(folder)

    resumed = mpirun(1, "-m", "coupler", "resume", str(begun))

    assert resumed.returncode == 0, resumed.stdout
    summary = RunFiles(begun).summary
    assert summary.models == undisturbed.summary.models
    assert summary.coin_seed == undisturbed.summary.coin_seed
    assert summary.state_sha256 == undisturbed.summary.state_sha256


WRONG_STARTS = {
    "no folder": ((), "there is no folder"),
    "another operator": (("operator.exchange.rtol=0.5",), "was trained for an operator with other rtol"),
}


@pytest.mark.parametrize(("settings", "sentence"), WRONG_STARTS.values(), ids=WRONG_STARTS)
def test_what_nobody_can_begin_with_is_said_before_anything_is_made(
    trained: Path, tmp_path: Path, settings: tuple[str, ...], sentence: str
) -> None:
    start = trained if settings else tmp_path / "nowhere"
    words = [word for setting in (from_trained(start), *settings) for word in ("--set", setting)]

    with pytest.raises(CouplerError, match=sentence):
        CliRunner().invoke(
            app,
            ["run", str(HEAT), *words, "--out", str(tmp_path / "run")],
            catch_exceptions=False,
            standalone_mode=False,
        )

    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_model_of_the_operator_and_a_damaged_one_are_named(trained: Path, tmp_path: Path) -> None:
    empty, damaged = tmp_path / "empty", tmp_path / "damaged"
    (empty / "models").mkdir(parents=True)
    shutil.copytree(trained, damaged)
    weights = damaged / "models" / "exchange-v0001.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    for folder, sentence in ((empty, "it has no model of exchange"), (damaged, "exchange-v0001.safetensors")):
        with pytest.raises(CouplerError, match=sentence):
            command("run", str(HEAT), "--set", from_trained(folder), "--out", str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


WRONG_TRAININGS = {
    "no truth": ((), "no truth to train on"),
    "an operator without a tape": (("--set", "operator.exchang.rtol=0.5"), 'Did you mean "exchange"'),
    "a parameter that does not exist": (("--set", "surrogate.params.widht=3"), 'Did you mean "width"'),
}


@pytest.mark.parametrize(("words", "sentence"), WRONG_TRAININGS.values(), ids=WRONG_TRAININGS)
def test_what_nobody_can_train_on_is_said_before_anything_is_made(
    couple: "Couple", taped: "RunFiles", tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    source = taped if words else couple("heat.toml", 2, PHYSICS[0])

    with pytest.raises(CouplerError, match=sentence):
        command("train", str(source.path), *words, "--out", str(tmp_path / "trained"))

    assert not (tmp_path / "trained").exists()


def test_a_training_overwrites_nothing_and_takes_several_tapes(
    couple: "Couple", taped: "RunFiles", trained: Path, tmp_path: Path
) -> None:
    other = couple("heat.toml", 1, *PHYSICS, "run.steps=20")
    words = ["train", str(taped.path), str(other.path), "--samples", "4000", "--out"]

    with pytest.raises(CouplerError, match="never overwritten"):
        command(*words, str(trained))
    command(*words, str(tmp_path / "both"))

    assert Registry(tmp_path / "both" / "models").versions("exchange") == [1]


def test_a_training_takes_what_a_coupled_run_kept_where_there_is_no_tape(
    couple: "Couple", taped: "RunFiles", trained: Path, tmp_path: Path
) -> None:
    coupled = couple("heat.toml", 2, from_trained(trained), COLLECT, "learning.buffer=1000", "learning.renewal=20")
    kept = SampleStore(coupled.path / "samples", "exchange", KeptTruth.find(coupled.path)[0].signature).read().samples

    command("train", str(taped.path), str(coupled.path), "--samples", "90000", "--out", str(tmp_path / "both"))
    again = couple("heat.toml", 2, from_trained(tmp_path / "both"), ANSWERED, OFF)

    learned = KeptTruth.find(tmp_path / "both")[0]
    rows = learned.samples(most=10**6)
    assert learned.elements > len(kept)
    assert {tuple(row) for row in kept.inputs} <= {tuple(row) for row in rows.inputs}
    assert Reason.NO_MODEL not in again.reasons()


def test_a_training_that_fails_leaves_nothing(couple: "Couple", tmp_path: Path) -> None:
    few = couple("heat.toml", 1, *PHYSICS, "run.steps=1", "grid.shape=[1,1]")

    with pytest.raises(CouplerError, match="are too few"):
        command("train", str(few.path), "--out", str(tmp_path / "trained"))

    assert not (tmp_path / "trained").exists()


def test_ranks_train_together_to_the_same_bits_every_time(
    couple: "Couple", taped: "RunFiles", mpirun: "MpiRun", tmp_path: Path
) -> None:
    for name in ("one", "two"):
        words = ("train", str(taped.path), "--set", "surrogate.params.members=2", "--out", name, "--samples", "9000")
        finished = mpirun(2, "-m", "coupler", *words)
        assert finished.returncode == 0, finished.stdout
        assert finished.stdout.count("learning.start=") == 1

    run = couple("heat.toml", 2, from_trained(tmp_path / "one"), "surrogate.params.members=2", ANSWERED, OFF)

    one, two = (Registry(tmp_path / name / "models").card("exchange", 1).sha256 for name in ("one", "two"))
    assert one == two == run.summary.models[0].sha256


APART = f"surrogate.name={PLUGINS}/models.py:Apart"
UNFIT = {
    "one member": ((), 2, "MLPEnsemble is trained by one process"),
    "more ranks than members": (
        ("surrogate.params.members=2",),
        3,
        "at most 2 processes with these parameters, and this is one of 3",
    ),
    "the first rank fails while one gathers": ((APART, "surrogate.params={fails=0}"), 2, "Error: rank 0 has lost"),
    "a rank fails while one gathers": ((APART, "surrogate.params={fails=1}"), 2, "Error: rank 1 has lost"),
    "a rank fails while one averages": (
        (APART, 'surrogate.params={fails=1, at="average"}'),
        2,
        "Error: rank 1 has lost",
    ),
}


@pytest.mark.parametrize(("settings", "ranks", "sentence"), UNFIT.values(), ids=UNFIT)
@pytest.mark.usefixtures("nothing_left_behind")
def test_ranks_that_cannot_train_together_say_why_once_and_leave_nothing(
    taped: "RunFiles", mpirun: "MpiRun", tmp_path: Path, settings: tuple[str, ...], ranks: int, sentence: str
) -> None:
    chosen = [word for setting in settings for word in ("--set", setting)]

    finished = mpirun(ranks, "-m", "coupler", "train", str(taped.path), *chosen, "--out", "trained", timeout=60)

    assert finished.returncode != 0
    assert finished.stdout.count(sentence) == 1, finished.stdout
    assert not (tmp_path / "trained").exists()


def test_one_rank_trains_what_only_one_can(taped: "RunFiles", mpirun: "MpiRun", tmp_path: Path) -> None:
    words = ("--set", f"surrogate.name={PLUGINS}/models.py:Exact", "--set", "surrogate.params={}", "--out", "trained")

    finished = mpirun(1, "-m", "coupler", "train", str(taped.path), *words)

    assert finished.returncode == 0, finished.stdout
    assert Registry(tmp_path / "trained" / "models").versions("exchange") == [1]


@pytest.mark.parametrize("where", [(), ("exchange.transport=inprocess",)], ids=["a server", "every rank"])
def test_a_run_that_collects_decides_as_one_that_does_not_and_keeps_its_truth(
    couple: "Couple", trained: Path, where: tuple[str, ...]
) -> None:
    settings = (from_trained(trained), "controller.economics=off", "exchange.deadline=60", *where)
    without = couple("heat.toml", 2, *settings, OFF)

    run = couple("heat.toml", 2, *settings, COLLECT, "learning.buffer=2000", "learning.renewal=20")

    (kept,) = KeptTruth.find(run.path)
    assert run.summary.state_sha256 == without.summary.state_sha256
    assert run.summary.retrainings == 0
    assert 0 < kept.elements < run.summary.elements - run.summary.decisions.accepted
    assert Reason.ACCEPTED not in kept.samples(most=10**6).reason


def test_a_run_that_collects_keeps_what_it_has_when_it_is_resumed(
    couple: "Couple", trained: Path, mpirun: "MpiRun", tmp_path: Path
) -> None:
    begins = (from_trained(trained), COLLECT, "exchange.transport=inprocess")
    settings = (*begins, "learning.buffer=1000", "learning.first=1000", "learning.renewal=4", "run.checkpoint_every=10")
    undisturbed, folder = couple("heat.toml", 2, *settings), tmp_path / "run"
    dying = f'kernel.name="{HEAT.parent}/plugins/kernels.py:Dying"'
    params = f'kernel.params={{file = "{tmp_path}/killed", rank = 1, step = 35}}'
    words = [word for setting in (*settings, dying, params) for word in ("--set", setting)]

    mpirun(2, "-m", "coupler", "run", str(HEAT), *words, "--out", str(folder))
    again = mpirun(2, "-m", "coupler", "resume", str(folder))

    (before,), (after,) = KeptTruth.find(undisturbed.path), KeptTruth.find(folder)
    assert again.returncode == 0, again.stdout
    assert len(list((folder / "samples").iterdir())) > 1
    assert np.array_equal(after.samples(most=10**6).inputs, before.samples(most=10**6).inputs)


def test_the_taught_flame_that_lies_in_launch_is_answered_for(couple: "Couple") -> None:
    launch = HEAT.parents[2] / "launch" / "reactive_flow"
    small = ("grid.shape=[32,8]", "grid.length=[8e-4,2e-4]", "run.steps=20", "controller.audit_rate=0.4")

    run = couple(
        str(launch / "flame_2d.toml"), 2, *small, from_trained(launch / "taught"), OFF, "exchange.transport=inprocess"
    )

    assert run.summary.decisions.accepted > 0
    assert run.summary.certificate.loss_bound_per_decision < 0.02


def test_a_run_without_a_model_has_nothing_to_collect(tmp_path: Path) -> None:
    with pytest.raises(CouplerError, match="there is no model: name one"):
        command("run", str(HEAT), "--set", COLLECT, "--out", str(tmp_path / "run"))
