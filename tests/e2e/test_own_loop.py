"""The other door: scripts that keep their own loop, the examples of launch/, and what can be got wrong there."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mpi4py import MPI

from coupler import Coupling, Operator
from coupler.case import Case
from coupler.config import case_from
from coupler.errors import ConfigError, CouplerError, FieldMismatch, LifecycleError, PluginError
from coupler.ledger import read_ledger
from coupler.summary import read_summary

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
LAUNCH = HERE.parents[1] / "launch"
IDS = np.arange(3)


@pytest.mark.ray
@pytest.mark.usefixtures("nothing_left_behind")
def test_the_example_with_its_own_loop_runs(mpirun: "MpiRun", tmp_path: Path) -> None:
    finished = mpirun(2, str(LAUNCH / "own_loop" / "combustion.py"), "--steps", "20")

    assert finished.returncode == 0, finished.stdout
    summary = read_summary(tmp_path / "runs" / "combustion-001" / "summary.json")
    assert (summary.status, summary.steps, summary.elements) == ("finished", 20, 20 * 6000)
    assert summary.certificate.sentence in finished.stdout


def test_the_example_with_its_own_kernel_runs(couple: "Couple") -> None:
    case, settings = str(LAUNCH / "custom_kernel" / "case.toml"), ("run.steps=3", "grid.shape=[16,16]")

    alone, both = (couple(case, ranks, *settings, "controller.mode=physics").summary for ranks in (1, 2))

    assert both.elements == 3 * 16 * 16
    assert both.state_sha256 == alone.state_sha256


@pytest.mark.ray
@pytest.mark.usefixtures("nothing_left_behind")
def test_every_answer_reaches_its_element_however_many_there_are(mpirun: "MpiRun", tmp_path: Path) -> None:
    finished = mpirun(2, str(HERE / "plugins" / "own_loop.py"), str(HERE / "own_loop.toml"))

    assert finished.returncode == 0, finished.stdout
    summary, ledger = read_summary(tmp_path / "run" / "summary.json"), read_ledger(tmp_path / "run" / "ledger.h5")
    assert sum(dict(summary.decisions).values()) == summary.elements == ledger["reasons"].sum()
    assert summary.decisions.accepted > summary.elements / 2
    assert {model.operator for model in summary.models} == {"pair", "one"}
    # Every rank has a record of both calls of every step, with elements or without.
    assert len(ledger) == 2 * 2 * summary.steps == 160
    assert (ledger["reasons"].sum(axis=1) == 0).any()
    assert (ledger["reasons"].sum(axis=1) > 64).any()


@pytest.fixture
def coupling(tmp_path: Path) -> Coupling:
    return Coupling(half(), case=physics(), comm=MPI.COMM_SELF, out=tmp_path / "run")


@pytest.mark.parametrize(
    "call",
    [
        lambda coupling: coupling.evaluate(np.ones((3, 2)), IDS, 0.1),
        lambda coupling: coupling.inputs(3),
        lambda coupling: coupling.end_step(),
        lambda coupling: coupling.finish(),
        lambda coupling: coupling.folder,
        lambda coupling: coupling.progress,
    ],
    ids=["evaluate", "inputs", "end_step", "finish", "folder", "progress"],
)
def test_before_its_context_a_coupling_does_nothing(
    coupling: Coupling, tmp_path: Path, call: Callable[[Coupling], object]
) -> None:
    with pytest.raises(LifecycleError, match="use it inside `with coupling:`"):
        call(coupling)
    assert not (tmp_path / "run").exists()


def test_after_its_end_a_coupling_evaluates_nothing_and_cannot_start_again(coupling: Coupling) -> None:
    with coupling:
        coupling.end_step()
        coupling.finish()
        with pytest.raises(LifecycleError, match="has ended"):
            coupling.evaluate(np.ones((3, 2)), IDS, 0.1)
    with pytest.raises(LifecycleError, match="has ended"):
        coupling.end_step()
    with pytest.raises(LifecycleError, match="make another"), coupling:
        pass
    assert coupling.folder.summary.exists()


@pytest.mark.parametrize(
    ("inputs", "ids", "said"),
    [
        (np.ones((3, 1)), IDS, r"\(3, 1\); the operator takes \(n, 2\): a, b"),
        (np.ones(3), IDS, r"shape \(3,\); the operator takes"),
        (np.ones((3, 2)), np.arange(2), r"ids have shape \(2,\)"),
        (np.ones((3, 2)), np.ones(3), "type float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_words(
    coupling: Coupling, inputs: np.ndarray, ids: np.ndarray, said: str
) -> None:
    with coupling, pytest.raises(FieldMismatch, match=said):
        coupling.evaluate(inputs, ids, 0.1)


def test_of_several_operators_one_must_be_named(tmp_path: Path) -> None:
    named = {"left": half(), "right": half()}
    with Coupling(named, case=physics(), comm=MPI.COMM_SELF, out=tmp_path / "run") as coupling:
        with pytest.raises(FieldMismatch, match='for example operator="left"'):
            coupling.evaluate(np.ones((3, 2)), IDS, 0.1)
        with pytest.raises(FieldMismatch, match=r'no operator "rigth"\. Did you mean "right"'):
            coupling.evaluate(np.ones((3, 2)), IDS, 0.1, operator="rigth")
        assert (coupling.evaluate(np.ones((3, 2)), IDS, 0.1, operator="right") == 0.5).all()


def test_no_elements_are_an_answer_too(coupling: Coupling) -> None:
    with coupling:
        assert coupling.evaluate(np.empty((0, 2)), np.arange(0), 0.1).shape == (0, 2)


def test_a_coupling_of_nothing_is_refused() -> None:
    with pytest.raises(PluginError, match="at least one operator"):
        Coupling({}, case=physics(), comm=MPI.COMM_SELF)


def test_a_tolerance_for_an_operator_that_is_not_there_is_refused() -> None:
    case = case_from({"controller": {"mode": "physics"}, "operator": {"half": {"atol": 1.0}}}, folder=HERE)

    with pytest.raises(ConfigError, match=r'\[operator.half\]: there is no operator "half". Known: operator.'):
        Coupling(half(), case=case, comm=MPI.COMM_SELF)


def test_an_error_of_the_loop_reaches_the_user_and_frees_the_folder_s_files(coupling: Coupling) -> None:
    with pytest.raises(CouplerError, match="mine"), coupling:
        raise CouplerError("mine")
    assert not coupling.folder.summary.exists()


def half() -> Operator:
    return Operator(lambda inputs, dt: inputs / 2, inputs=("a", "b"), outputs=("a", "b"), atol=1e-3, rtol=1e-3)


def physics() -> Case:
    return case_from({"controller": {"mode": "physics"}}, folder=HERE)
