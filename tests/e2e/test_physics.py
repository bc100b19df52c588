"""Physics alone: the same bits on any number of ranks, by any door, and with every answer of a surrogate refused."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mpi4py import MPI

from coupler.grid import Grid
from coupler.kernel import Kernel, evaluate_truth
from coupler.kernels.bz import BZ
from coupler.kernels.heat import Heat

if TYPE_CHECKING:
    from tests.conftest import MpiRun
    from tests.e2e.conftest import Couple

pytestmark = pytest.mark.e2e

PHYSICS = "controller.mode=physics"
# Blocks of different sizes on three ranks, and on four.
SMALL = ("grid.shape=[31,22]", "run.steps=20", "output.pictures=false")
SCRIPT = f"""
import sys
from pathlib import Path
from coupler import Simulation
from coupler.config import read_case

simulation = Simulation(read_case(sys.argv[1], {[*SMALL, PHYSICS]}), out=Path("by-script"))
summary = simulation.run()
simulation.close()
print("hash", summary.state_sha256)
"""


def stepped(kernel: Kernel, grid: Grid, *, dt: float, steps: int) -> str:
    """Step a kernel without the coupler and hash what comes out."""
    with grid:
        state = grid.state(kernel.fields)
        kernel.start(state, grid)
        for _ in range(steps):
            kernel.step(state, grid, dt, evaluate_truth)
        return hashlib.sha256(b"".join(local.interior.astype("<f8").tobytes() for local in state.values())).hexdigest()


def spirals(*, steps: int) -> str:
    grid = Grid((31, 22), length=(72.0, 72.0), periodic=False, comm=MPI.COMM_SELF)
    return stepped(BZ(s=5.0, w=0.05, q=2e-3, f=1.4), grid, dt=0.1, steps=steps)


@pytest.fixture(scope="module")
def by_hand() -> str:
    return spirals(steps=20)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_physics_is_bitwise_the_kernel_stepped_by_hand(couple: "Couple", by_hand: str, ranks: int) -> None:
    run = couple("bz.toml", ranks, *SMALL, PHYSICS)

    assert run.summary.state_sha256 == by_hand
    assert run.summary.ranks == ranks
    assert run.summary.decisions.disabled == run.summary.elements == 20 * 31 * 22
    assert run.summary.reasons == {"physics": run.summary.elements}


@pytest.mark.ray
def test_a_surrogate_whose_answers_are_all_refused_leaves_the_physics_bitwise_alone(
    couple: "Couple", by_hand: str
) -> None:
    learning = ("learning.first=2000", "surrogate.params.epochs=2")

    run = couple("bz.toml", 2, *SMALL, *learning, "controller.threshold=0")

    assert run.summary.state_sha256 == by_hand
    assert run.summary.models
    assert run.summary.decisions.accepted == 0
    assert run.summary.decisions.audited > 0
    assert run.summary.decisions.fallback > run.summary.elements / 2


def test_a_run_of_no_steps_ends_with_the_start(couple: "Couple") -> None:
    none = couple("bz.toml", 2, *SMALL, PHYSICS, "run.steps=0")

    assert none.summary.state_sha256 == spirals(steps=0)
    assert none.summary.elements == none.summary.steps == 0
    assert none.metrics == []
    assert len(none.ledger) == 0


def test_a_rank_may_own_a_single_cell(couple: "Couple") -> None:
    run = couple("heat.toml", 4, "grid.shape=[2,2]", "run.steps=5", PHYSICS)

    assert run.summary.state_sha256 == stepped(Heat(), Grid((2, 2), comm=MPI.COMM_SELF), dt=0.05, steps=5)
    assert run.summary.elements == 5 * 4


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_script_is_the_same_run_as_the_command_line(
    couple: "Couple", mpirun: "MpiRun", tmp_path: Path, by_hand: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)

    finished = mpirun(2, "script.py", str(Path(__file__).with_name("bz.toml")))

    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.count(f"hash {by_hand}") == 2
    typed = couple("bz.toml", 2, *SMALL, PHYSICS)
    written = {path.name for path in (tmp_path / "by-script").iterdir()}
    assert written == {path.name for path in typed.path.iterdir()}
    assert (tmp_path / "by-script" / "case.toml").read_bytes() == (typed.path / "case.toml").read_bytes()
