"""The launcher: whether the mpirun that is typed belongs to the MPI library that Python calls."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from coupler.doctor.finding import Finding

_SUBJECT = "mpirun"
_SAY_SECONDS = 10.0
# Families of MPI: how `mpirun --version` of each names itself. MPICH, Intel MPI and MVAPICH start each other's ranks.
OPEN_MPI = "Open MPI"
_FAMILIES = ((OPEN_MPI, ("Open MPI",)), ("MPICH", ("HYDRA", "MPICH", "Intel(R) MPI", "mvapich")))
_MPICH_LIKE = ("MPICH", "Intel MPI", "MVAPICH", "MVAPICH2", "Cray MPICH")


@dataclass(frozen=True)
class Launcher:
    """An mpirun.

    Parameters
    ----------
    path : str
        Where it is.
    family : str
        ``Open MPI``, ``MPICH``, or empty for one that is not known.
    version : str
        As it says; empty if it does not.
    """

    path: str
    family: str
    version: str


def examine_launcher(vendor: str, version: str, built: str) -> Finding:
    """Compare mpirun with the library that mpi4py has loaded.

    Parameters
    ----------
    vendor, version : str
        Of the library.
    built : str
        The interface that mpi4py was built for.

    Collective: no.
    """
    launcher = find_launcher()
    library = f"mpi4py calls {vendor} {version} (built for {built})"
    if launcher is None:
        beside = Path(sys.executable).parent
        advice = (
            f'export PATH="{beside}:$PATH"' if (beside / "mpirun").exists() else f"pip install {_package_of(vendor)}"
        )
        return Finding(_SUBJECT, "note", f"none on PATH; {library}", advice)
    found = f"{launcher.path}, {launcher.family or 'of an unknown kind'} {launcher.version}; {library}".strip()
    own_first = f'export PATH="{Path(sys.executable).parent}:$PATH"'
    if launcher.family and launcher.family != family_of(vendor):
        abi = "openmpi" if launcher.family == OPEN_MPI else "mpich"
        return Finding(
            _SUBJECT,
            "wrong",
            f"{found}: every rank that it starts would believe to be alone",
            f"{own_first} and pip install {_package_of(vendor)}; or, to use that mpirun's library, export "
            f"MPI4PY_MPIABI={abi}",
        )
    if launcher.family == OPEN_MPI and _main_version(launcher.version) != _main_version(version):
        return Finding(_SUBJECT, "wrong", f"{found}: another main version", own_first)
    return Finding(_SUBJECT, "ok", found)


def find_launcher() -> Launcher | None:
    """Ask the mpirun on PATH who it is; None if there is none."""
    path = shutil.which("mpirun")
    return None if path is None else _ask(path)


def family_of_launcher(path: str) -> str:
    """Ask an mpirun of which family it is; empty if it does not say."""
    return _ask(path).family


def _ask(path: str) -> Launcher:
    try:
        # Without the variables of a job that this may be in: some launchers would believe to be started by themselves.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "OMPI_", "PRTE_"))}
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_SAY_SECONDS, check=False, env=kept
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    family = next((name for name, words in _FAMILIES if any(word in said for word in words)), "")
    version = re.search(r"\d+\.\d+(\.\d+)?", said)
    return Launcher(path, family, version[0] if version else "")


def family_of(vendor: str) -> str:
    """Say to which family a library belongs whose vendor mpi4py names."""
    return "MPICH" if vendor in _MPICH_LIKE else vendor


def _package_of(vendor: str) -> str:
    return "mpich" if family_of(vendor) == "MPICH" else "openmpi"


def _main_version(version: str) -> str:
    return version.partition(".")[0]
