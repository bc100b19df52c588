"""The environment of what a rank starts: without MPI's variables, able to import this very package."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import coupler

# Processes started from a rank inherit these and would try to join its MPI job.
_MPI_PREFIXES = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI_", "HYDRA_", "HYDI_")


@contextmanager
def ray_environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Set the environment for what is started inside, and set it back.

    Parameters
    ----------
    extra : mapping
        Variables on top.

    Collective: no.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(_MPI_PREFIXES):
            del os.environ[name]
    package = str(Path(coupler.__file__).resolve().parents[1])
    # The working directory as well: a plug-in named package.module:Class may be there.
    paths = [package, str(Path.cwd()), *filter(None, before.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ.update({**extra, "PYTHONPATH": os.pathsep.join(paths)})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
