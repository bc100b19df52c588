"""Benchmarks: the scripts of ``benchmarks/`` by name, each measured beside its rivals in one run."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import coupler
from coupler.errors import ConfigError, did_you_mean
from coupler.plugin import load_object

Row = Mapping[str, str | int | float]


def available() -> dict[str, Path]:
    """Find the benchmarks of this checkout, by name.

    Raises
    ------
    ConfigError
        If the package is installed without them.
    """
    folder = Path(coupler.__file__).resolve().parents[1] / "benchmarks"
    scripts = {path.stem: path for path in sorted(folder.glob("*.py"))}
    if not scripts:
        raise ConfigError("The benchmarks are no part of the installed package: run them from a checkout.")
    return scripts


def measure(names: Sequence[str], report: Callable[[str, list[Row]], None]) -> list[Row]:
    """Run benchmarks one after another.

    Parameters
    ----------
    names : sequence of str
        Which; all if empty.
    report : callable
        Told the name and rows of each as soon as it is done.

    Returns
    -------
    list of mapping
        All rows: ``case``, ``system``, ``n``, and for timings ``median_s``, ``p10_s``, ``p90_s``.

    Raises
    ------
    ConfigError
        If there is no benchmark of a name.
    """
    scripts = available()
    for name in names:
        if name not in scripts:
            raise ConfigError(f'There is no benchmark "{name}".{did_you_mean(name, scripts)}')
    rows: list[Row] = []
    for name in names or scripts:
        run = cast("Callable[[], list[Row]]", load_object(f"{scripts[name]}:run"))
        found = run()
        report(name, found)
        rows.extend(found)
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a JSON list."""
    path.write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")
