"""The working directory, where run folders go: can it be written, is there room, does locking work."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from coupler.doctor.finding import Finding

_TIGHT_BYTES = 2**30
_FULL_BYTES = 100 * 2**20


def examine_storage(folder: Path | None = None) -> list[Finding]:
    """Look at a folder, the working directory if None.

    Collective: no.
    """
    place = folder or Path.cwd()
    return [_room(place), _locking(place)]


def _room(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free in {place}"
    if free < _FULL_BYTES:
        return Finding("disk", "wrong", found, "coupler run CASE.toml --out DIR, on a disk with room")
    if free < _TIGHT_BYTES:
        return Finding("disk", "note", found, "coupler run CASE.toml --set run.output_every=0 writes least")
    return Finding("disk", "ok", found)


def _locking(place: Path) -> Finding:
    """Lock a file as HDF5 does: some network file systems refuse, and then every HDF5 file does."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # HDF5's
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of networks
            except OSError as error:
                return _refused(f"refused in {place}: {error.strerror}")
    except OSError as error:
        found = f"{place} cannot be written: {error.strerror}"
        return Finding("file locks", "wrong", found, "coupler run CASE.toml --out DIR, or change to another folder")
    return Finding("file locks", "ok", f"flock and fcntl work in {place}{_setting()}")


def _refused(found: str) -> Finding:
    """Without locks HDF5 opens nothing, unless it was told to do without."""
    if os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0", "BEST_EFFORT"):
        return Finding("file locks", "ok", found + _setting())
    return Finding("file locks", "wrong", found, "export HDF5_USE_FILE_LOCKING=FALSE")


def _setting() -> str:
    setting = os.environ.get("HDF5_USE_FILE_LOCKING")
    return "" if setting is None else f"; HDF5_USE_FILE_LOCKING = {setting}"
