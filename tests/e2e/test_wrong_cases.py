"""What a user can get wrong in a case: one sentence and exit code 2, at once, and nothing is made or started."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import MpiRun, Processes

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nothing_left_behind")]

HEAT = Path(__file__).with_name("heat.toml")
# Reading a case takes a third of a second, MPI and torch some more; a busy machine several times that.
SOON_SECONDS = 60.0
PHYSICS = "controller.mode=physics"

READING = {
    "run.stps=3": 'there is no key "run.stps". Did you mean "steps"?',
    "runn.steps=3": 'there is no section "runn". Did you mean "run"?',
    "run.steps=many": "run.steps = 'many'",
    "run.steps=-1": "run.steps = -1",
    "run.dt=0.0": "run.dt = 0.0",
    "controller.mode=certain": "controller.mode = 'certain'",
    "learning.first=60001": "learning.first = 60001 samples never fit into learning.buffer = 60000",
    "controller.twin_every=-1": "controller.twin_every = -1",
    "controller.twin_steps=0": "controller.twin_steps = 0",
    "controller.twin_every=9": "controller.twin_steps = 10 is more than controller.twin_every = 9",
    "steps=3": "write section.key=value",
}
BUILDING = {
    "kernel.name=coupler.kernels.heet:Heat": 'Did you mean "heat"?',
    "kernel.name=coupler.kernels.heat:Heet": 'no "Heet" in coupler.kernels.heat. Did you mean "Heat"?',
    "kernel.name=absent.py:Heat": "absent.py",
    "kernel.name=coupler.field:Field": "is not a Kernel",
    "kernel.params.difusivity=3.0": 'no parameter "difusivity". Did you mean "diffusivity"?',
    "kernel.params.rate=-1.0": "must be finite and >= 0",
    "operator.exchang.atol=0.1": 'no operator "exchang". Did you mean "exchange"?',
    "operator.exchange.atol=[0.1, 0.1, 0.1]": "atol has 3 values for 2 outputs",
    "grid.shape=[4, 4, 4, 4]": "has 4 dimensions; Heat works in 1 or 2 or 3",
    "grid.periodic=[true]": "grid.periodic",
    "grid.length=[1.0]": "grid.length",
    "grid.shape=[0, 4]": "grid.shape",
}
STARTING = {
    "surrogate.name=coupler.models.mlp:MLP": 'no module "coupler.models.mlp"',
    "surrogate.params.widht=3": 'no parameter "widht". Did you mean "width"?',
    "ray.address=127.0.0.1:1": "Nobody listens at the Ray address 127.0.0.1:1",
}


@pytest.mark.parametrize(("setting", "said"), [*READING.items(), *BUILDING.items(), *STARTING.items()])
def test_a_wrong_setting_is_one_sentence(processes: "Processes", setting: str, said: str) -> None:
    extra = [] if setting in STARTING else ["--set", PHYSICS]

    sentence = refused(processes, str(HEAT), *extra, "--set", setting)

    assert said in sentence


@pytest.mark.ray
def test_a_gpu_that_is_not_there_is_one_sentence(processes: "Processes") -> None:
    sentence = refused(processes, str(HEAT), "--set", "surrogate.device=cuda:99")

    assert 'surrogate.device = "cuda:99", but torch sees' in sentence


def test_a_case_that_is_not_there_is_one_sentence(processes: "Processes", tmp_path: Path) -> None:
    (tmp_path / "heat.toml").touch()

    assert refused(processes, "hat.toml") == 'coupler: There is no case file hat.toml. Did you mean "heat.toml"?'


def test_a_case_that_is_no_toml_is_named_with_its_line(processes: "Processes", tmp_path: Path) -> None:
    (tmp_path / "case.toml").write_text("[run]\nsteps = = 3\n")

    assert refused(processes, "case.toml").startswith("coupler: case.toml is not valid TOML: ")


def test_a_wrong_key_of_a_file_is_named_with_its_line(processes: "Processes", tmp_path: Path) -> None:
    (tmp_path / "case.toml").write_text("[run]\nsteps = 3\nsead = 1\n")

    assert refused(processes, "case.toml").startswith('coupler: case.toml:3: there is no key "run.sead".')


def test_a_case_without_a_kernel_is_one_sentence(processes: "Processes", tmp_path: Path) -> None:
    (tmp_path / "case.toml").touch()

    assert "The case names no kernel" in refused(processes, "case.toml")


def test_a_plug_in_with_a_syntax_error_is_named_with_its_line(processes: "Processes", tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def step(:\n")

    sentence = refused(processes, str(HEAT), "--set", f"kernel.name={tmp_path}/broken.py:Kernel")

    assert "broken.py" in sentence
    assert "SyntaxError" in sentence
    assert "line 1" in sentence


def test_a_run_folder_that_is_a_file_is_one_sentence(processes: "Processes", tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")

    finished = run(processes, str(HEAT), "--set", PHYSICS, "--out", "taken")

    assert finished.returncode == 2
    assert sentences(finished.stdout) == ["coupler: --out taken is a file: give a folder."]
    assert (tmp_path / "taken").read_text() == "mine"


def test_more_ranks_than_cells_is_one_sentence_of_all_ranks(mpirun: "MpiRun", tmp_path: Path) -> None:
    finished = mpirun(5, "-m", "coupler", "run", str(HEAT), "--set", "grid.shape=[2,2]", "--out", "never")

    assert finished.returncode == 2, finished.stdout
    (sentence,) = sentences(finished.stdout)
    assert "5 ranks cannot share grid.shape = [2, 2]" in sentence
    assert "mpirun -n 4" in sentence
    assert not (tmp_path / "never").exists()


def refused(processes: "Processes", *arguments: str) -> str:
    """Run a case that cannot be and give the sentence that says so."""
    finished = run(processes, *arguments, "--out", "never")
    assert finished.returncode == 2, finished.stdout
    found = sentences(finished.stdout)
    assert len(found) == 1, finished.stdout
    assert not (processes.folder / "never").exists()
    return found[0]


def run(processes: "Processes", *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run([sys.executable, "-m", "coupler", "run", *arguments], timeout=SOON_SECONDS)


def sentences(said: str) -> list[str]:
    """Lines that are neither the run's description of itself nor Open MPI's farewell."""
    assert "Traceback" not in said, said
    return [line for line in said.splitlines() if line.startswith("coupler: ")]
