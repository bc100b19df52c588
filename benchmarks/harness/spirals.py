"""Spiral waves as several benchmarks run them: the reaction of ``launch/bz``, so many cells of its size per rank."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpi4py import MPI

PARAMETERS: dict[str, Any] = {"s": 5.0, "w": 0.05, "q": 2e-3, "f": 1.4}
DT = 0.35
_CELL_LENGTH = 1.125


def sections(ranks: int, cells: int, steps: int) -> dict[str, dict[str, Any]]:
    """Give the sections of a case: ``cells`` along each of two axes per rank, and no pictures."""
    dims = MPI.Compute_dims(ranks, 2)
    return {
        "run": {"steps": steps, "dt": DT},
        "grid": {
            "shape": [cells * count for count in dims],
            "length": [_CELL_LENGTH * cells * count for count in dims],
        },
        "output": {"pictures": False},
    }


@contextmanager
def folder_of_all(comm: MPI.Intracomm) -> Iterator[Path]:
    """Give all ranks a folder that is there until all of them are through. Collective: yes."""
    folder = Path(comm.bcast(tempfile.mkdtemp(prefix="coupler-bench-") if comm.rank == 0 else None))
    try:
        yield folder
        comm.Barrier()
    finally:
        if comm.rank == 0:
            shutil.rmtree(folder)
