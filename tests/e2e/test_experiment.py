"""Experiments as they are typed: on a tape and in whole runs, several at once, killed and taken up again."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.config import read_case
from coupler.experiment import Experiment, read_plan
from coupler.summary import read_summary

if TYPE_CHECKING:
    from tests.conftest import Processes
    from tests.e2e.conftest import Couple

pytest.importorskip("pandas", reason="the extra [experiment] is not installed")
pytest.importorskip("tensorboardX", reason="the extra [experiment] is not installed")
pytestmark = [pytest.mark.e2e, pytest.mark.ray]

HERE = Path(__file__).parent
RECORDED = ("controller.mode=physics", "output.tape=true")
PLAN = """
case = "{case}"
{what}
[set]
"learning.first" = 500
"surrogate.params.epochs" = 40
[grid]
"controller.audit_rate" = [0.1, 0.2]
"""
LONGEST_SECONDS = 240.0


@dataclass(frozen=True)
class Typed:
    """An experiment's file and folder."""

    file: Path
    folder: Path

    @property
    def command(self) -> list[str]:
        return ["python", "-m", "coupler", "experiment", str(self.file), "--out", str(self.folder)]

    @property
    def outcomes(self) -> list[Path]:
        return sorted(self.folder.glob("configurations/*/outcome.json"))


def typed(folder: Path, what: str) -> Typed:
    file = folder / "plan.toml"
    file.write_text(PLAN.format(case=HERE / "heat.toml", what=what))
    return Typed(file, folder / "experiment")


@pytest.fixture(scope="module")
def tape(couple: "Couple") -> Path:
    return couple("heat.toml", 2, *RECORDED).path


@pytest.mark.usefixtures("nothing_left_behind")
def test_an_experiment_on_a_tape_that_was_killed_goes_on_where_it_was(
    processes: "Processes", tape: Path, tmp_path: Path
) -> None:
    ours = typed(tmp_path, f'tape = "{tape}"')
    running = processes.start(ours.command)
    running.until(lambda: len(ours.outcomes) == 1, within=LONGEST_SECONDS)
    first = ours.outcomes[0]
    written = first.stat().st_mtime_ns
    os.kill(running.pid, signal.SIGKILL)
    assert running.end(timeout=LONGEST_SECONDS).returncode != 0
    assert not processes.wait(LONGEST_SECONDS)

    finished = processes.run(ours.command, timeout=LONGEST_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert first.stat().st_mtime_ns == written
    results = Experiment(read_plan(ours.file), ours.file, ours.folder).collect()
    assert [one.status for one in results.outcomes] == ["finished", "finished"]
    assert results.missing == 0
    assert all(one.accepted_share > 0 and one.true_loss < 0.02 for one in results.outcomes)
    assert (ours.folder / "table.parquet").exists()
    assert (ours.folder / "pareto.png").exists()
    assert results.best is not None
    best = read_case(ours.folder / "best.toml")
    assert best.controller.audit_rate == results.best.settings["controller.audit_rate"]
    assert best.learning.first == 500


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_task_of_a_job_array_does_its_share_in_whole_runs(processes: "Processes", tmp_path: Path) -> None:
    ours = typed(tmp_path, "ranks = 2")

    finished = processes.run([*ours.command, "--only", "2/2"], timeout=LONGEST_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert len(ours.outcomes) == 1
    run = ours.outcomes[0].parent / "run"
    assert read_summary(run / "summary.json").ranks == 2
    assert read_case(run / "case.toml").controller.audit_rate == 0.2


def test_a_configuration_that_cannot_be_is_named_and_the_others_go_on(
    processes: "Processes", tape: Path, tmp_path: Path
) -> None:
    ours = typed(tmp_path, f'tape = "{tape}"')
    ours.file.write_text(ours.file.read_text() + '"learning.mode" = ["asynchronous"]\n')

    finished = processes.run([*ours.command, "--only", "1/2"], timeout=LONGEST_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert "A tape goes by faster than a run" in " ".join(finished.stdout.split())


@pytest.mark.parametrize("only", ["0/2", "3/2", "a/b", "1/"])
def test_a_share_that_cannot_be_is_one_sentence(processes: "Processes", tmp_path: Path, only: str) -> None:
    ours = typed(tmp_path, "")

    finished = processes.run([*ours.command, "--only", only], timeout=60)

    assert finished.returncode == 2
    assert "write K/N with K from 1 to N" in finished.stdout
    assert "Traceback" not in finished.stdout
