"""The environment of what a rank starts: without MPI's variables, able to import this very package."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import coupler

# Processes started from a rank inherit these and would try to join its MPI job.
_MPI_PREFIXES = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI_", "HYDRA_", "HYDI_")


def surroundings() -> dict[str, str]:
    """Give the variables for a process that is no rank; those of this one stay as they are, other threads read them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_MPI_PREFIXES)}
    package = str(Path(coupler.__file__).resolve().parents[1])
    # The working directory as well: a plug-in named package.module:Class may be there.
    paths = [package, str(Path.cwd()), *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def ray_environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Set this process's environment for what Ray starts inside, and set it back.

    Parameters
    ----------
    extra : mapping
        Variables on top.

    Collective: no; not for processes in which other threads work.
    """
    before, inside = dict(os.environ), {**surroundings(), **extra}
    os.environ.clear()
    os.environ.update(inside)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
