"""What coupler adds where the surrogate answers nothing, and what every call costs: against the same work by hand.

``physics/CELLS/ranks/N`` and ``disabled/CELLS/ranks/N`` are steps of spiral waves by ``coupler run``, with 64 x 64
cells per rank, which is little work, and with 128 x 128, the launch case on four ranks: in mode ``physics``, and
certified before there is a model, with server and arena at hand. The same kernel is stepped by hand with
``coupler.kernel.evaluate_truth``, a step of one and a step of the other in turns, in the same processes, and both come
to the same bits. A step counts as long as it takes the slowest rank.

``evaluate/N`` is one call with N elements of an operator that costs next to nothing, and ``answered/N`` one that a
model inside the rank has answered, with gate, audits, losses and the truth of what is refused; ``bare`` is what the
call could not do without: the operator itself, and the model's answer with as much truth.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numba import njit
from numpy.typing import NDArray

from benchmarks.harness import spirals
from benchmarks.harness.ranks import Crew, Worker
from benchmarks.harness.timing import Effort, Repeat, Row, each, in_turns, row
from coupler.clock import Stopwatch
from coupler.config import case_from
from coupler.controller import Controller, Limits
from coupler.coupling import Coupling
from coupler.coupling.route import Route
from coupler.exchange import InProcessTransport, SlotShape
from coupler.field import Field, State
from coupler.grid import Grid
from coupler.kernel import Evaluate, evaluate_truth
from coupler.kernels.bz import BZ
from coupler.operator import Operator
from coupler.records import Rows
from coupler.simulation import Simulation

RANKS = (1, 2)
STEPS = 200
# Along each of two axes, per rank.
CELLS = (64, 128)
ELEMENTS = (1, 32, 512, 65_536)
EFFORT = Effort(rounds=7, seconds=0.1, most=2000, least=20)
SITUATIONS: dict[str, dict[str, Any]] = {
    "physics": {"controller": {"mode": "physics"}},
    "disabled": {"controller": {"mode": "certified"}, "learning": {"mode": "off"}},
}
# Compilers and caches are warm then.
_WARM_STEPS = 20
# Longest that a run may take, Ray's start included [s].
_RUN_SECONDS = 600.0

Floats = NDArray[np.float64]


def run(
    ranks: Sequence[int] = RANKS,
    cells: Sequence[int] = CELLS,
    steps: int = STEPS,
    elements: Sequence[int] = ELEMENTS,
    effort: Effort = EFFORT,
) -> list[Row]:
    """Time steps and calls.

    Returns
    -------
    list of mapping
        ``case``, ``system`` (``bare``, ``coupler``; ``coupler-step`` is a call with the end of its step), ``n``,
        ``median_s``, ``p10_s``, ``p90_s``; of the coupled ones ``added_s``, beyond ``bare``, and ``added_share`` of it.
        ``added_share`` is the median over pairs of steps, and ``added_share_mean`` says what all steps took in sum.
    """
    rows = [
        found
        for across in cells
        for count in ranks
        for name in SITUATIONS
        for found in _steps(name, count, across, steps)
    ]
    for count in elements:
        rows += _calls(count, effort)
        rows += _answered(count, effort)
    return rows


def _steps(situation: str, ranks: int, cells: int, steps: int) -> list[Row]:
    with Crew(f"{__file__}:Stepper", ranks) as crew:
        everyone = crew.call("run", within=_RUN_SECONDS, situation=situation, cells=cells, steps=steps + _WARM_STEPS)
    bare, coupled = (
        np.max([rank[system] for rank in everyone], axis=0)[_WARM_STEPS:] for system in ("bare", "coupler")
    )
    case, added = f"{situation}/{cells}x{cells}/ranks/{ranks}", float(np.median(coupled - bare))
    return [
        row(case, "bare", bare, cells=cells * cells),
        row(
            case,
            "coupler",
            coupled,
            cells=cells * cells,
            added_s=added,
            added_share=added / float(np.median(bare)),
            added_share_mean=float(coupled.sum() / bare.sum()) - 1.0,
        ),
    ]


class Stepper(Worker):
    """A rank that steps a kernel by hand and by ``coupler run``, in turns."""

    def run(self, situation: str, cells: int, steps: int) -> dict[str, list[float]]:
        """Run a simulation and give the seconds of every step but the last, whose end nobody sees."""
        asked = SITUATIONS[situation] | spirals.sections(self.comm.size, cells, steps + 1)
        case = case_from(asked, folder=Path.cwd())
        with (
            spirals.folder_of_all(self.comm) as folder,
            Grid(case.grid.shape or (), length=case.grid.length, halo=BZ.halo, comm=self.comm) as grid,
        ):
            kernel = InTurns(grid)
            with closing(Simulation(case, comm=self.comm, kernel=kernel, out=folder / "run")) as simulation:
                simulation.run()
            assert kernel.agrees, "the coupled run has other bits than the kernel stepped by hand"
        begun, between = np.array(kernel.begun), np.array(kernel.between)
        return {"bare": (between - begun)[:-1].tolist(), "coupler": (begun[1:] - between[:-1]).tolist()}


class InTurns(BZ):
    """Spiral waves that are stepped by hand, too, before each step that a simulation asks for.

    Attributes
    ----------
    begun, between : list of float
        When each step by hand began, and when the simulation's began after it; that ends with the next one [s].
    agrees : bool
        Whether both have had the same bits up to now.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(**spirals.PARAMETERS)
        self.begun: list[float] = []
        self.between: list[float] = []
        self.agrees = True
        self._grid, self._twin = grid, grid.state(self.fields)
        super().start(self._twin, grid)

    def step(self, state: State, grid: Grid, dt: float, evaluate: Evaluate) -> None:
        """Step the twin by hand, then the state as the simulation wants it."""
        self.begun.append(time.perf_counter())
        super().step(self._twin, self._grid, dt, evaluate_truth)
        self.between.append(time.perf_counter())
        super().step(state, grid, dt, evaluate)
        if len(self.begun) <= _WARM_STEPS:  # a comparison would be a part of what is timed
            self.agrees &= all((state[name].interior == self._twin[name].interior).all() for name in state)


def _calls(count: int, effort: Effort) -> list[Row]:
    """One call of an operator in a loop of one's own, everything to the truth."""
    folder = Path(tempfile.mkdtemp(prefix="coupler-bench-"))
    inputs, ids, out = np.random.default_rng(0).random((count, 3)), np.arange(count), np.empty((count, 3))
    case = case_from(SITUATIONS["physics"], folder=folder)
    try:
        with Coupling(CHEAP, case=case, comm=MPI.COMM_SELF, out=folder / "run") as coupling:

            def call() -> None:
                coupling.evaluate(inputs, ids, spirals.DT, out=out)

            def step() -> None:
                coupling.evaluate(inputs, ids, spirals.DT, out=out)
                coupling.end_step()

            def calls(times: int) -> Floats:
                seconds: Floats = each(call)(times)
                coupling.end_step()
                return seconds

            bare: Repeat = each(lambda: CHEAP.evaluate_truth(inputs, spirals.DT))
            seconds = in_turns({"bare": bare, "coupler": calls, "coupler-step": each(step)}, effort)
        assert (out == CHEAP.evaluate_truth(inputs, spirals.DT)).all()
    finally:
        shutil.rmtree(folder)
    return _compared(f"evaluate/{count}", seconds)


def _answered(count: int, effort: Effort) -> list[Row]:
    """One call that a model inside the rank answers: nine of ten answers are taken, one in fifty is audited."""
    route = Route(
        CHEAP,
        Controller(mode="certified", audit_rate=0.02, threshold=0.9),
        seed=0,
        deadline=1.0,
        must_answer=False,
        stopwatch=Stopwatch(),
    )
    promoted = route.controller.promoted(route.state, 1, 1.0)
    route.state = replace(promoted, gate=replace(promoted.gate, stopped=False))
    route.limits = Limits.of(CHEAP.signature, np.zeros(3), np.ones(3))
    transport = route.line.transport = InProcessTransport(SlotShape(0, count, 3, 3), _answer, lambda version: None)
    rng, ids, out = np.random.default_rng(0), np.arange(count), np.empty((count, 3))
    place = route.inputs(count)
    place[...] = rng.random((count, 3))
    place[:, 2] = rng.permutation((np.arange(count) + 0.5) / count)  # the score
    record = route.evaluate(place, out, ids, spirals.DT, 1, 0)
    to_the_truth = place[: count - record.reasons[0]].copy()

    def bare() -> None:
        transport.ask(count, spirals.DT, 1)
        transport.answer(1.0)
        CHEAP.evaluate_truth(to_the_truth, spirals.DT)

    def call() -> None:
        route.evaluate(route.inputs(count), out, ids, spirals.DT, 1, 0)

    rows = _compared(f"answered/{count}", in_turns({"bare": each(bare), "coupler": each(call)}, effort))
    assert (out == CHEAP.evaluate_truth(place, spirals.DT)).all()
    return rows


def _compared(case: str, seconds: dict[str, Floats]) -> list[Row]:
    bare = float(np.median(seconds["bare"]))
    rows = [row(case, "bare", seconds["bare"])]
    for system in [name for name in seconds if name != "bare"]:
        added = float(np.median(seconds[system])) - bare
        rows.append(row(case, system, seconds[system], added_s=added, added_share=added / bare))
    return rows


def _scale(inputs: Floats, dt: float) -> Floats:
    outputs = np.empty_like(inputs)
    _scaled(inputs, 1.0 - dt, outputs)
    return outputs


def _answer(parts: Sequence[Rows], version: int) -> None:
    for rows in parts:
        _scaled(rows.inputs, 1.0 - rows.dt, rows.mean)
        rows.score[...] = rows.inputs[:, 2]


@njit(cache=True, nogil=True)
def _scaled(rows, factor, out):
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[i, j] = factor * rows[i, j]


COLUMNS = [Field(name, bounds=(0, None)) for name in ("x", "y", "z")]
CHEAP = Operator(_scale, inputs=COLUMNS, outputs=COLUMNS, atol=1e-3, rtol=1e-3)
