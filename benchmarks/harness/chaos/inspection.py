"""Inspection: every file of a run folder is opened and read, as whoever comes after a crash would."""

import json
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import h5py
from safetensors.numpy import load_file

# What must be there as soon as a run has a folder with a case in it.
_NEEDED = ("case.toml", "environment.json")


def unreadable(folder: Path) -> list[str]:
    """Give the files of a run folder that cannot be read, with the reason, and those that are missing.

    Hidden files are work in progress that was never given a name. The last line of a text file that grows may be cut.
    """
    found: list[str] = []
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    for path in files:
        read = _READERS.get(path.suffix)
        if read is not None:
            try:
                read(path)
            except Exception as error:  # noqa: BLE001, whatever a reader raises is what is looked for
                found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    if files:
        found += [f"{name}: missing" for name in _NEEDED if not (folder / name).is_file()]
    return found


def _hdf5(path: Path) -> None:
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: item[()] if isinstance(item, h5py.Dataset) else None)


def _lines(path: Path) -> None:
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            json.loads(line)


_READERS: dict[str, Callable[[Path], object]] = {
    ".h5": _hdf5,
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": _lines,
    ".safetensors": load_file,
    ".toml": lambda path: tomllib.loads(path.read_text()),
    ".xdmf": ET.parse,
}
