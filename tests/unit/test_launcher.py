"""What a process knows of the launcher that started it, by its environment alone."""

import os
import subprocess
import sys

import pytest

from coupler.errors import ConfigError
from coupler.launcher import for_ranks, is_first_rank, is_launched, is_rank, keep_to_itself, launched_processes
from coupler.mpirun import run_on_ranks

NAMES = {
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_MCA_btl",
}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_a_process_that_nobody_launched_is_the_first_and_only_one() -> None:
    assert (is_rank(), is_launched(), is_first_rank(), launched_processes()) == (False, False, True, 1)


@pytest.mark.parametrize(("rank", "size"), [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")])
def test_a_rank_knows_its_place_before_mpi_is_there(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv(rank, "2")
    monkeypatch.setenv(size, "4")

    assert (is_rank(), is_launched(), is_first_rank(), launched_processes()) == (True, True, False, 4)


def test_a_shell_in_a_step_of_a_batch_system_is_launched_and_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")

    assert (is_rank(), is_launched(), is_first_rank(), launched_processes()) == (False, True, True, 1)


def test_one_process_maps_no_memory_for_messages_and_ranks_that_it_starts_do() -> None:
    keep_to_itself()

    assert os.environ.pop("OMPI_MCA_btl") == "self"
    assert for_ranks({"OMPI_MCA_btl": "self", "LANG": "C"}) == {"LANG": "C"}


def test_what_the_user_says_about_messages_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_MCA_btl", "self,tcp")

    keep_to_itself()

    assert for_ranks(os.environ)["OMPI_MCA_btl"] == "self,tcp"


def test_a_rank_leaves_messages_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMIX_RANK", "0")

    keep_to_itself()

    assert "OMPI_MCA_btl" not in os.environ


def test_a_rank_starts_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_RANK", "0")

    with pytest.raises(ConfigError, match="--ranks starts mpirun, and this is under mpirun already"):
        run_on_ranks(2, ["doctor"], option="--ranks")


def test_asking_loads_neither_mpi_nor_numpy() -> None:
    asked = "import coupler.launcher, sys; print(sorted({'mpi4py', 'numpy'} & sys.modules.keys()))"

    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "[]"
