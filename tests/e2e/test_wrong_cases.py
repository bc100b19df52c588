"""What a user can get wrong in a case: one sentence and exit code 2, at once, and nothing is made or started.

The settings are numbered. Most are tried in this process, where the command line raises the sentence that ``main`` says
before it ends with code 2; of every kind one, and whatever needs ranks or Ray, in a process of its own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from coupler.cli import app
from coupler.errors import CouplerError

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from tests.conftest import MpiRun, Processes

pytestmark = pytest.mark.e2e

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
    "run.seed=-1": "run.seed = -1",
    "run.dt=nan": "run.dt = nan",
    "controller.delta=1.0": "controller.delta = 1.0",
    "controller.audit_rate=0": "controller.audit_rate",
    "exchange.transport=pigeon": "exchange.transport = 'pigeon'",
    "exchange.deadline=-1.0": "exchange.deadline = -1.0",
    "learning.recent=0.95": "are shares of one buffer and come to 1.05",
    "ray.servers=": "ray.servers = ''",
    "output.tape_share=2.0": "output.tape_share = 2.0",
    "run=3": "write section.key=value",
    "run.steps.many=3": '"steps"',
    "surrogate.threads=0": "surrogate.threads = 0",
}
TOGETHER = {
    "a tape without truth": (("output.tape=true",), "output.tape = true records the truth of every element"),
    "servers that nobody asks": (
        ("exchange.transport=inprocess", "ray.servers=GPU"),
        'ray.servers = "GPU" asks for servers',
    ),
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


def numbered(settings: dict[str, str], first: int) -> list["ParameterSet"]:
    rows = enumerate(settings.items(), start=first)
    return [pytest.param(setting, said, id=f"{number:02d} {setting}") for number, (setting, said) in rows]


HERE_TRIED = numbered({**READING, **BUILDING}, 1)
OF_EVERY_KIND = {setting: said for kind in (READING, BUILDING) for setting, said in list(kind.items())[:1]}


@pytest.mark.parametrize(("setting", "said"), HERE_TRIED)
def test_a_wrong_setting_is_one_sentence_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)

    sentence = refused_here(tmp_path, "--set", PHYSICS, "--set", setting)

    assert said in sentence


@pytest.mark.parametrize(("settings", "said"), TOGETHER.values(), ids=TOGETHER)
def test_settings_that_do_not_go_together_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)

    sentence = refused_here(tmp_path, *(word for setting in settings for word in ("--set", setting)))

    assert said in sentence


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize(("setting", "said"), numbered({**OF_EVERY_KIND, **STARTING}, len(HERE_TRIED) + 1))
def test_a_wrong_setting_ends_the_process_with_code_2(processes: "Processes", setting: str, said: str) -> None:
    extra = [] if setting in STARTING else ["--set", PHYSICS]

    sentence = refused(processes, str(HEAT), *extra, "--set", setting)

    assert said in sentence


def test_there_are_two_dozen_at_least() -> None:
    assert len(HERE_TRIED) + len(STARTING) + len(TOGETHER) >= 24


@pytest.mark.ray
@pytest.mark.usefixtures("nothing_left_behind")
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


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that takes no file: by its mode, and where root does not mind that, on a read-only file system."""
    folder = tmp_path / "unwritable"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        return
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"root may write everywhere, and nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize("mode", ["physics", "certified"])
def test_a_folder_that_cannot_be_written_is_one_sentence_of_all_ranks(
    mpirun: "MpiRun", unwritable: Path, mode: str
) -> None:
    out = unwritable / "run"

    finished = mpirun(
        2, "-m", "coupler", "run", str(HEAT), "--out", str(out), "--set", f"controller.mode={mode}", timeout=60
    )

    assert finished.returncode == 2
    assert f"coupler: The run folder {out} cannot be written (" in finished.stdout
    assert "Traceback" not in finished.stdout
    assert not list(unwritable.iterdir())


def test_more_ranks_than_cells_is_one_sentence_of_all_ranks(mpirun: "MpiRun", tmp_path: Path) -> None:
    finished = mpirun(5, "-m", "coupler", "run", str(HEAT), "--set", "grid.shape=[2,2]", "--out", "never")

    assert finished.returncode == 2, finished.stdout
    (sentence,) = sentences(finished.stdout)
    assert "5 ranks cannot share grid.shape = [2, 2]" in sentence
    assert "mpirun -n 4" in sentence
    assert not (tmp_path / "never").exists()


def refused_here(folder: Path, *arguments: str) -> str:
    """Run a case that cannot be in this process, and give the sentence; the folder holds afterwards what it held."""
    (folder / "mine.txt").write_text("mine")
    before = contents(folder)

    result = CliRunner().invoke(app, ["run", str(HEAT), *arguments, "--out", "never"])

    assert isinstance(result.exception, CouplerError), (result.output, result.exception)
    assert contents(folder) == before
    return str(result.exception)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder."""
    return {
        str(place.relative_to(folder)): place.read_bytes() if place.is_file() else None for place in folder.rglob("*")
    }


def refused(processes: "Processes", *arguments: str) -> str:
    """Run a case that cannot be and give the sentence that says so."""
    before = {name for name in contents(processes.folder) if not name.startswith("output-")}
    finished = run(processes, *arguments, "--out", "never")
    assert finished.returncode == 2, finished.stdout
    assert {name for name in contents(processes.folder) if not name.startswith("output-")} == before
    found = sentences(finished.stdout)
    assert len(found) == 1, finished.stdout
    return found[0]


def run(processes: "Processes", *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run([sys.executable, "-m", "coupler", "run", *arguments], timeout=SOON_SECONDS)


def sentences(said: str) -> list[str]:
    """Lines that are neither the run's description of itself nor Open MPI's farewell."""
    assert "Traceback" not in said, said
    return [line for line in said.splitlines() if line.startswith("coupler: ")]
