"""Mechanism files on disk: where they are found, their YAML, and their sections with the units in force.

A section may be of another file, ``gri30.yaml/species``; that file is sought beside the first and among the shipped.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from coupler.errors import PluginError, did_you_mean
from coupler.kernels.units import Units

SHIPPED = Path(__file__).resolve().parent / "mechanisms"


@dataclass(frozen=True)
class Section:
    """Where species or reactions are taken from, and which."""

    where: str  # "species", or "gri30.yaml/species"
    what: Any  # "all", "declared-species", "none", or a list of names


def sections(given: Any, default: str) -> Iterable[Section]:
    """Yield what a phase says of its species or reactions: a word, names, or sections each with a word or names."""
    if isinstance(given, str) or (default == "species" and all(isinstance(item, (str, int)) for item in given)):
        yield Section(default, given)
    else:
        for item in given:
            for where, what in item.items() if isinstance(item, Mapping) else ((str(item), "all"),):
                yield Section(str(where), what)


def entries(path: Path, where: str) -> Iterable[tuple[Mapping[str, Any], Units]]:
    """Yield the entries of a section, of this file or of ``other.yaml/section``, with the units in force."""
    file, _, section = where.rpartition("/")
    path = found(file, path.parent) if file else path
    document = document_of(path)
    if section not in document:
        raise PluginError(f'there is no section "{section}" in {path.name}.{did_you_mean(section, document)}')
    units = Units(document.get("units", {}))
    for entry in document[section] or ():
        if set(entry) == {"units"}:
            units = Units(entry["units"], units)
        else:
            yield entry, units


def found(name: str | Path, folder: Path) -> Path:
    """Find a file by its path, relative to a folder, or among the shipped ones.

    Raises
    ------
    PluginError
        If it is in neither.
    """
    for path in (folder / name, SHIPPED / name):
        if path.is_file():
            return path
    shipped = sorted(path.name for path in SHIPPED.glob("*.yaml"))
    raise PluginError(
        f"There is no mechanism file {name}: give the path of one in Cantera's YAML, or one of {', '.join(shipped)}."
    )


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2 as Cantera reads it: ``NO`` is nitric oxide and ``1e5`` a number."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?\d+", "-+0123456789"),
    ("float", r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", "-+.0123456789"),
    ("null", r"~|null|", "~n\0"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


@cache
def document_of(path: Path) -> Mapping[str, Any]:
    """Parse a file, once.

    Raises
    ------
    PluginError
        If it is not a mapping in YAML.
    """
    try:
        document = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:  # also numbers of thousands of digits
        raise PluginError(f"the file is not YAML: {error}") from None
    except OSError as error:
        raise PluginError(f"the file cannot be read: {error.strerror}.") from None
    if not isinstance(document, Mapping):
        raise PluginError("the file is not a mechanism: it should hold phases, species and reactions.")
    return document
