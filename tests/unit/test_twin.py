"""Twin windows: when they are, what their distance is, that they leave the run alone, and what is said of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.case import Case, ControllerSection
from coupler.clock import Stopwatch
from coupler.config import case_from
from coupler.field import Field, State
from coupler.grid import Grid
from coupler.kernel import Evaluate, evaluate_truth
from coupler.kernels.heat import Heat
from coupler.summary import TwinDistance, TwinWindow
from coupler.twin import Distance, TwinWindows, distances, sentence, window_line

SHAPE = (5, 4)
DT = 0.1
NUMBERS = st.floats(-1e150, 1e150, allow_subnormal=False)


@pytest.fixture
def grid() -> Iterator[Grid]:
    with Grid(SHAPE, halo=1, comm=MPI.COMM_SELF) as grid:
        yield grid


@dataclass
class Run:
    """A run of heat by physics alone, whose state a test may push; with a twin."""

    kernel: Heat
    grid: Grid
    state: State
    twins: TwinWindows
    stopwatch: Stopwatch

    def step(self, number: int, push: float = 0.0) -> TwinWindow | None:
        self.kernel.step(self.state, self.grid, DT, evaluate_truth)
        self.state.time = number * DT
        self.state["lattice"].interior[...] += push
        return self.twins.follow(number, self.state)


def _run(grid: Grid, kernel: Heat | None = None, /, *, steps: int, **section: int) -> Run:
    case: Case = case_from({"run": {"steps": steps, "dt": DT}, "controller": section}, folder=Path())
    kernel, stopwatch = Heat() if kernel is None else kernel, Stopwatch()
    state = grid.state(kernel.fields)
    kernel.start(state, grid)
    return Run(kernel, grid, state, TwinWindows(kernel, grid, case, stopwatch), stopwatch)


def _distance(one: NDArray[np.float64], physics: NDArray[np.float64]) -> Distance:
    with Grid(one.shape, halo=0, comm=MPI.COMM_SELF) as grid:
        run, twin = (grid.state((Field("u"),)) for _ in range(2))
        run["u"].interior[...], twin["u"].interior[...] = one, physics
        return distances(run, twin, grid)["u"]


@given(arrays(np.float64, (7,), elements=NUMBERS), arrays(np.float64, (7,), elements=NUMBERS))
def test_a_distance_is_the_root_mean_square_over_the_range_of_physics(
    one: NDArray[np.float64], physics: NDArray[np.float64]
) -> None:
    found = _distance(one, physics)

    difference, extent = np.abs(one - physics), physics.max() - physics.min()
    assert found.largest == difference.max()
    if found.largest == 0.0:
        assert found.rms_over_range == 0.0
    elif extent == 0.0:
        assert found.rms_over_range == math.inf
    else:
        share = difference / found.largest
        # Squares are rounded to 2**-52 of the largest one, and one cell at least is the largest.
        expected = found.largest * math.sqrt(np.mean(share**2)) / extent
        assert found.rms_over_range == pytest.approx(expected, rel=1e-13)


@given(
    arrays(np.float64, (12,), elements=NUMBERS), arrays(np.float64, (12,), elements=NUMBERS), st.permutations(range(12))
)
def test_a_distance_does_not_hang_on_the_order_of_the_cells(
    one: NDArray[np.float64], physics: NDArray[np.float64], order: list[int]
) -> None:
    assert _distance(one[order], physics[order]) == _distance(one, physics)


@pytest.mark.parametrize("place", ["run", "twin"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_distance_of_what_is_not_finite_is_no_number(place: str, value: float) -> None:
    broken, sound = np.array([1.0, value, 2.0]), np.arange(3.0)

    found = _distance(broken, sound) if place == "run" else _distance(sound, broken)

    assert math.isnan(found.rms_over_range)
    assert not math.isfinite(found.largest)


def test_a_single_cell_has_no_range_but_may_be_the_same() -> None:
    one, other = np.array([1.0]), np.array([1.5])

    assert _distance(one, one) == (0.0, 0.0)
    assert _distance(one, other) == (math.inf, 0.5)


@pytest.mark.parametrize(
    ("steps", "section", "windows"),
    [
        (30, {}, []),
        (30, {"twin_every": 10, "twin_steps": 3}, [(11, 3), (21, 3)]),
        (30, {"twin_every": 10, "twin_steps": 10}, [(11, 10), (21, 10)]),
        (22, {"twin_every": 10, "twin_steps": 3}, [(11, 3), (21, 2)]),
        (12, {"twin_every": 10, "twin_steps": 3}, [(11, 2)]),
        (3, {"twin_every": 1, "twin_steps": 1}, [(2, 1), (3, 1)]),
        (10, {"twin_every": 10, "twin_steps": 3}, []),
        (9, {"twin_every": 10, "twin_steps": 3}, []),
        (0, {"twin_every": 10, "twin_steps": 3}, []),
    ],
    ids=["never", "some", "all", "cut", "cut short", "each", "none begins", "too long", "no steps"],
)
def test_windows_follow_from_the_number_of_the_step(
    grid: Grid, steps: int, section: dict[str, int], windows: list[tuple[int, int]]
) -> None:
    run = _run(grid, steps=steps, **section)

    ended = [run.step(number) for number in range(1, steps + 1)]

    assert [(window.step, window.steps) for window in run.twins.windows] == windows
    assert [window for window in ended if window is not None] == run.twins.windows
    assert [len(window.fields["lattice"].growth) for window in run.twins.windows] == [length for _, length in windows]


def test_a_run_by_physics_alone_is_at_no_distance_from_its_twin(grid: Grid) -> None:
    run = _run(grid, steps=9, twin_every=3, twin_steps=3)

    for number in range(1, 10):
        run.step(number)

    nothing = TwinDistance(rms_over_range=0.0, largest=0.0, growth=[0.0] * 3)
    assert [window.fields for window in run.twins.windows] == [{"electron": nothing, "lattice": nothing}] * 2


class Counting(Heat):
    """Keeps the number of its steps to itself, against the contract, and lets it matter."""

    def step(self, state: State, grid: Grid, dt: float, evaluate: Evaluate) -> None:
        self.steps = getattr(self, "steps", 0) + 1
        super().step(state, grid, dt * (1.0 + 1e-6 * self.steps), evaluate)


def test_a_kernel_that_keeps_state_of_its_own_is_at_a_distance_from_itself(grid: Grid) -> None:
    run = _run(grid, Counting(), steps=4, twin_every=2, twin_steps=2)

    for number in range(1, 5):
        run.step(number)

    assert run.twins.windows[0].fields["lattice"].rms_over_range > 0.0


def test_a_distance_is_that_of_the_same_steps_by_physics_from_where_the_window_began(grid: Grid) -> None:
    run, alone = _run(grid, steps=8, twin_every=4, twin_steps=4), _run(grid, steps=8)
    for number in range(1, 5):
        run.step(number, push=1.0)
    alone.state.copy_from(run.state)

    measured = []
    for number in range(5, 9):
        run.step(number, push=1.0)
        alone.step(number)
        measured.append(distances(run.state, alone.state, grid))

    (window,) = run.twins.windows
    for name, distance in window.fields.items():
        assert distance.growth == [moment[name].rms_over_range for moment in measured]
        assert (distance.rms_over_range, distance.largest) == measured[-1][name]
    growth = window.fields["lattice"].growth
    assert growth == sorted(growth)
    assert growth[0] > 0.0


def test_the_run_has_the_bits_it_has_without_a_twin_and_the_seconds_are_the_twins(grid: Grid) -> None:
    run, alone = _run(grid, steps=6, twin_every=2, twin_steps=2), _run(grid, steps=6)
    seconds: dict[str, float] = {}

    for number in range(1, 7):
        alone.step(number, push=0.5)
        run.kernel.step(run.state, grid, DT, evaluate_truth)
        run.state["lattice"].interior[...] += 0.5
        halo = grid.exchange_seconds
        run.twins.follow(number, run.state)
        assert grid.exchange_seconds == halo
        seconds = run.stopwatch.seconds

    for name, local in run.state.items():
        np.testing.assert_array_equal(local.array, alone.state[name].array)
    assert {activity for activity, spent in seconds.items() if spent} == {"twin"}
    assert not any(alone.stopwatch.seconds.values())


def _window(step: int, growth: list[float], **other: list[float]) -> TwinWindow:
    fields = {"v": growth} | other
    return TwinWindow(
        step=step,
        steps=len(growth),
        fields={
            name: TwinDistance(rms_over_range=values[-1], largest=1.0, growth=values) for name, values in fields.items()
        },
    )


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        ([], "No step was run twice: the run ended before the first window, after 50 steps."),
        (
            [_window(51, [0.0, 0.0])],
            "Run twice over 1 window of 2 steps, the state did not move away from physics in any",
        ),
        (
            [
                _window(51, [0.001, 0.002], u=[0.0, 0.0]),
                _window(101, [0.003, 0.001], u=[0.0, 0.0]),
                _window(151, [0.0, 0.0], u=[0.0, 0.0]),
            ],
            (
                "Run twice over 3 windows of 2 steps, the state moved away from physics by at most 0.3 % of the range "
                "of v (root mean square over the cells; median of the windows 0.2 %)."
            ),
        ),
        (
            [_window(51, [0.0, 0.1]), _window(101, [0.2])],
            "Run twice over 2 windows of 2 steps (the last of 1), the state",
        ),
        (
            [_window(51, [0.1], u=[1.0]), _window(101, [math.nan], u=[9.0])],
            "Run twice over 2 windows of 1 step, the state was not finite any more: v in the window from step 101 on",
        ),
    ],
    ids=["none", "still", "moved", "cut", "not finite"],
)
def test_the_sentence_names_windows_field_and_denominator(windows: list[TwinWindow], said: str) -> None:
    assert sentence(windows, ControllerSection(twin_every=50)).startswith(said)


@pytest.mark.parametrize("mode", ["physics", "shadow"])
def test_where_the_truth_is_used_everywhere_a_distance_is_the_kernels_fault(mode: Any) -> None:
    section = ControllerSection(twin_every=50, mode=mode)

    assert "coupler check" in sentence([_window(51, [1e-9])], section)
    assert "coupler check" not in sentence([_window(51, [0.0])], section)


def test_a_line_on_the_screen_says_which_window_ended() -> None:
    line = window_line(_window(51, [0.0, 0.00123], u=[0.0, 0.0]))

    assert line == "step    52  away from physics after 2 steps run twice: 0.12 % of v, 0 % of u"


class _Driven(Heat):
    """Heated by a source that depends on the time."""

    def step(self, state, grid, dt, evaluate):
        super().step(state, grid, dt, evaluate)
        state["lattice"].interior[...] += dt * np.sin(state.time)


def test_a_twin_lives_at_the_time_of_the_step_it_runs_again(grid: Grid) -> None:
    run = _run(grid, _Driven(), steps=7, twin_every=3, twin_steps=2)
    for number in range(1, 8):
        run.step(number)

    assert [window.step for window in run.twins.windows] == [4, 7]
    assert all(window.fields["lattice"].largest == 0.0 for window in run.twins.windows)
