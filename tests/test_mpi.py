"""Run tests/mpi under mpirun: every rank runs pytest on the same files, and a failure on one is a failure here."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import MpiRun

HERE = Path(__file__).parent
# The grid on three ranks as well: uneven blocks, and a middle rank with two different neighbours.
RUNS = [(2, HERE / "mpi"), (3, HERE / "mpi" / "test_grid.py"), (4, HERE / "mpi")]
# A rank that hangs prints where and ends the job, well before the outer limit.
INNER_LIMITS = ("-o", "timeout=120", "-o", "timeout_method=thread")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize(("ranks", "where"), RUNS, ids=[f"{where.stem}-{ranks}" for ranks, where in RUNS])
def test_every_rank_passes_the_mpi_tests(mpirun: "MpiRun", ranks: int, where: Path) -> None:
    options = [
        "--with-mpi",
        "-q",
        "-x",
        "--tb=short",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(HERE.parent),
    ]

    finished = mpirun(ranks, "-m", "pytest", *options, *INNER_LIMITS, str(where), timeout=570)

    assert finished.returncode == 0, finished.stdout
    assert "passed" in finished.stdout, finished.stdout
