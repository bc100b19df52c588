"""Benchmarks: the scripts of ``benchmarks/`` by name, each measured beside its rivals in one run.

Each runs in a process of its own: threads, Ray and MPI of one are nothing to the next.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import coupler
from coupler.errors import ConfigError, CouplerError, did_you_mean
from coupler.plugin import load_object

Row = Mapping[str, str | int | float]

_ROOT = Path(coupler.__file__).resolve().parents[1]
_FOLDER = "benchmarks"
# One thread per process: whoever compares several says so.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# What a benchmark may need to end its ranks, servers and Ray when it is interrupted [s].
_GRACE_SECONDS = 60.0


def available() -> dict[str, Path]:
    """Find the benchmarks of this checkout, by name.

    Raises
    ------
    ConfigError
        If the package is installed without them.
    """
    scripts = {path.stem: path for path in sorted((_ROOT / _FOLDER).glob("*.py")) if not path.stem.startswith("_")}
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
    CouplerError
        If one fails; what it said stands above.
    """
    scripts = available()
    for name in names:
        if name not in scripts:
            raise ConfigError(f'There is no benchmark "{name}".{did_you_mean(name, scripts)}')
    rows: list[Row] = []
    for name in names or scripts:
        found = _run(name)
        report(name, found)
        rows.extend(found)
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a JSON list."""
    path.write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")


def _run(name: str) -> list[Row]:
    """Run one in a process of its own, where the checkout can be imported."""
    with tempfile.TemporaryDirectory(prefix="coupler-bench-") as folder:
        path = Path(folder) / "rows.json"
        paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        surroundings = {**dict.fromkeys(_THREADS, "1"), **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-c", f"from {__name__} import main; main()", name, str(path)]
        status = _status(subprocess.Popen(command, env=surroundings, start_new_session=True))
        if status != 0:
            raise CouplerError(f'The benchmark "{name}" failed (exit status {status}); what it said stands above.')
        return cast("list[Row]", json.loads(path.read_text(encoding="utf-8")))


def _status(process: "subprocess.Popen[bytes]") -> int:
    """Wait for its end; if we are interrupted, so is it, once, and it has time to clean up."""
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        process.kill()
        process.wait()
        raise


def main() -> None:
    """Run the benchmark named on the command line here, and write its rows to the file named after it."""
    name, path = sys.argv[1:]
    run = cast("Callable[[], list[Row]]", load_object(f"{_FOLDER}.{name}:run"))
    try:
        write(run(), Path(path))
    except KeyboardInterrupt:  # whoever interrupts says so
        sys.exit(128 + signal.SIGINT)
