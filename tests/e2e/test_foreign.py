"""Truth in other languages: the examples of launch/foreign/ compiled, checked and run, and what goes wrong there."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from coupler.check import check_plugin
from coupler.errors import PluginError
from coupler.kernel import Kernel
from coupler.plugin import load_object
from coupler.summary import Summary, read_summary

if TYPE_CHECKING:
    from tests.conftest import MpiRun

pytestmark = pytest.mark.e2e

FOREIGN = Path(__file__).resolve().parents[2] / "launch" / "foreign"
LIBRARIES = {"c": "cc", "fortran": "gfortran"}
# Divides by what is zero only for one cell: a foreign function knows no exceptions.
BROKEN = """
#include <stddef.h>
#include <stdlib.h>
void burn(const double *inputs, double *outputs, ptrdiff_t rows, double dt, int substeps) {{
    for (ptrdiff_t i = 0; i < 2 * rows; ++i) outputs[i] = inputs[i] + 0.0 * dt * substeps;
    if (rows > 0) {what};
}}
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Copy the examples without what was compiled, so that a test neither finds nor leaves anything."""
    return Path(shutil.copytree(FOREIGN, tmp_path / "foreign", ignore=shutil.ignore_patterns("*.so", "__pycache__")))


@pytest.fixture(params=LIBRARIES)
def compiled(request: pytest.FixtureRequest, foreign: Path) -> Path:
    """Build the example of a language; give its folder."""
    return build(foreign / request.param)


@pytest.fixture
def in_c(foreign: Path) -> Path:
    """Build the C example; give its folder."""
    return build(foreign / "c")


@pytest.fixture
def reactors(foreign: Path) -> Path:
    """Give the folder of the Cantera example, where there is Cantera."""
    if importlib.util.find_spec("cantera") is None:
        pytest.skip("needs Cantera: pip install cantera")
    return foreign / "cantera"


def build(folder: Path) -> Path:
    compiler = LIBRARIES[folder.name]
    if shutil.which(compiler) is None:
        pytest.skip(f"needs a compiler, and there is no {compiler} on the PATH")
    finished = subprocess.run([folder / "build.sh"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return folder


KERNELS = {
    "c": ("flame.py:Flame", 2e-5),
    "fortran": ("bloom.py:Bloom", 0.05),
    "cantera": ("ignition.py:Ignition", 1e-6),
}


def kernel_of(folder: Path) -> Kernel:
    made = load_object(f"{folder}/{KERNELS[folder.name][0]}")
    assert isinstance(made, type) and issubclass(made, Kernel)
    return made()


def checked(folder: Path) -> list[str]:
    name, dt = KERNELS[folder.name]
    return [
        f"{line.line}: {line.detail}" for line in check_plugin(f"{folder}/{name}", [f"run.dt={dt}"]) if not line.passed
    ]


def run_physics(mpirun: "MpiRun", folder: Path, ranks: int, *settings: str) -> Summary:
    out = folder / f"run-{ranks}"
    overrides = [word for setting in ("controller.mode=physics", *settings) for word in ("--set", setting)]
    finished = mpirun(ranks, "-m", "coupler", "run", str(folder / "case.toml"), *overrides, "--out", str(out))
    assert finished.returncode == 0, finished.stdout
    return read_summary(out / "summary.json")


def test_a_compiled_truth_keeps_the_contract(compiled: Path) -> None:
    assert checked(compiled) == []


def test_a_reactor_that_is_used_again_keeps_the_contract(reactors: Path) -> None:
    assert checked(reactors) == []


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_case_with_a_compiled_truth_is_the_same_run_on_one_rank_and_on_two(mpirun: "MpiRun", compiled: Path) -> None:
    alone, both = (run_physics(mpirun, compiled, ranks, "run.steps=3") for ranks in (1, 2))

    assert alone.elements == both.elements > 0
    assert alone.state_sha256 == both.state_sha256


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_case_with_a_cantera_truth_is_the_same_run_on_one_rank_and_on_two(mpirun: "MpiRun", reactors: Path) -> None:
    alone, both = (run_physics(mpirun, reactors, ranks, "run.steps=2", "grid.shape=[16]") for ranks in (1, 2))

    assert alone.state_sha256 == both.state_sha256


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.ray
def test_the_loop_that_calls_c_through_cffi_runs(mpirun: "MpiRun", in_c: Path) -> None:
    if importlib.util.find_spec("cffi") is None:
        pytest.skip("needs cffi: pip install cffi")

    finished = mpirun(2, str(in_c / "ring.py"), "--steps", "10")

    assert finished.returncode == 0, finished.stdout
    assert "With probability" in finished.stdout


def test_c_burns_as_the_same_lines_in_python_do(in_c: Path) -> None:
    rows = np.random.default_rng(2).uniform((0.0, 400.0), (1.0, 2500.0), size=(50, 2))
    expected = rows.copy()
    heat = rows[:, 1] + 1200.0 * rows[:, 0]
    for _ in range(400):
        expected[:, 0] /= 1.0 + 2e-5 / 400 * 2e8 * np.exp(-9000.0 / (heat - 1200.0 * expected[:, 0]))

    burnt = kernel_of(in_c).operators["burning"].truth(rows, 2e-5)

    # Two libraries' exp may differ in the last digit, 400 times.
    np.testing.assert_allclose(burnt[:, 0], expected[:, 0], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(burnt[:, 1], heat - 1200.0 * expected[:, 0], rtol=1e-12)


@pytest.mark.parametrize(("language", "place"), [("c", "c"), ("fortran", "fortran")])
def test_a_library_that_is_not_there_is_one_sentence_with_what_to_type(
    foreign: Path, language: str, place: str
) -> None:
    with pytest.raises(PluginError, match=rf"not compiled yet\. Type .*/{place}/build\.sh"):
        kernel_of(foreign / language)


@pytest.mark.parametrize(("language", "variable"), [("c", "CC"), ("fortran", "FC")])
def test_a_compiler_that_is_not_there_is_one_sentence_with_what_to_type(
    foreign: Path, language: str, variable: str
) -> None:
    surroundings = {**os.environ, variable: "no-such-compiler"}

    finished = subprocess.run(
        [foreign / language / "build.sh"], capture_output=True, text=True, env=surroundings, check=False
    )

    assert finished.returncode == 1
    assert 'compiler "no-such-compiler": install one (apt-get install' in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_missing_cantera_is_one_sentence_with_what_to_type(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cantera", None)
    kernel = kernel_of(foreign / "cantera")

    with pytest.raises(PluginError, match="pip install cantera"):
        kernel.operators["reaction"].truth(np.ones((1, 10)), 1e-6)


def test_arrays_that_c_could_not_read_are_refused_before_it_is_called(in_c: Path) -> None:
    kernel = kernel_of(in_c)

    with pytest.raises(Exception, match="must have flags"):
        kernel.operators["burning"].truth(np.ones((4, 4))[:, ::2], 1e-5)


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_truth_that_crashes_ends_the_run_on_all_ranks_and_names_the_signal(mpirun: "MpiRun", in_c: Path) -> None:
    (in_c / "burn.c").write_text(BROKEN.format(what="abort()"))
    build(in_c)

    finished = mpirun(2, "-m", "coupler", "run", str(in_c / "case.toml"), "--set", "controller.mode=physics")

    assert finished.returncode != 0
    assert "signal 6" in finished.stdout.lower()
