"""Long-time statistics of chaotic runs with a surrogate in the loop, against physics, on two ranks; takes minutes."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.summary import read_summary

if TYPE_CHECKING:
    from tests.conftest import MpiRun

pytestmark = [pytest.mark.validation, pytest.mark.e2e, pytest.mark.ray, pytest.mark.timeout(2400)]

LAUNCH = Path(__file__).parents[2] / "launch"


def run(mpirun: "MpiRun", name: str, folder: Path, *settings: str) -> Path:
    words = [word for setting in ("output.pictures=false", *settings) for word in ("--set", setting)]
    command = ("-m", "coupler", "run", str(LAUNCH / name / "case.toml"), *words, "--out", str(folder))
    finished = mpirun(2, *command, timeout=1100.0)
    assert finished.returncode == 0, finished.stdout
    return folder


def compared(mpirun: "MpiRun", name: str, physics: Path, certified: Path) -> subprocess.CompletedProcess[str]:
    return mpirun(1, str(LAUNCH / name / "compare.py"), str(physics), str(certified))


@pytest.mark.parametrize("name", ["lorenz96", "kuramoto_sivashinsky"])
def test_a_certified_climate_is_that_of_physics_within_the_sampling_error(
    mpirun: "MpiRun", tmp_path: Path, name: str
) -> None:
    physics = run(mpirun, name, tmp_path / "physics", "controller.mode=physics", "kernel.params.seed=1")
    certified = run(mpirun, name, tmp_path / "certified", "kernel.params.seed=2")

    finished = compared(mpirun, name, physics, certified)

    print(finished.stdout)
    summary = read_summary(certified / "summary.json")
    assert finished.returncode == 0, finished.stdout
    # It is a test of the surrogate only if it did most of the work, and the certificate must have held meanwhile.
    assert summary.decisions.accepted > 0.5 * summary.elements
    assert summary.certificate.loss_bound_per_decision < summary.certificate.target
