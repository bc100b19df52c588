"""The contract of a kernel: what the simulation relies on when it starts and steps one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from coupler.check.lines import CheckLine, Line, go_through, same_bits
from coupler.check.operator import check_operator
from coupler.field import State
from coupler.grid import Grid
from coupler.kernel import Kernel, check_kernel, gather, scatter
from coupler.operator import Operator

if TYPE_CHECKING:
    from mpi4py import MPI

# Few cells, none of the sides equal: an exchanged axis shows.
_SIDES = {1: (16,), 2: (8, 7), 3: (6, 5, 4)}
_STEPS = 3


@dataclass(frozen=True)
class _Call:
    operator: Operator
    inputs: NDArray[np.float64]
    dt: float


class _Truths:
    """An ``evaluate`` that answers the same question with the same bits, and remembers what it was asked.

    A truth that is not repeatable has a line of its own and must not make the kernel fail another one.
    """

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self._answers: dict[tuple[Operator, float, bytes], NDArray[np.float64]] = {}

    def __call__(self, operator: Operator, state: State, dt: float) -> None:
        inputs = gather(operator, state)
        self.calls.append(_Call(operator, inputs, dt))
        question = (operator, dt, inputs.tobytes())
        if question not in self._answers:
            self._answers[question] = operator.evaluate_truth(inputs.copy(), dt)
        scatter(operator, state, self._answers[question])


@dataclass(frozen=True)
class KernelCase:
    """A kernel and a small periodic grid.

    Parameters
    ----------
    kernel : Kernel
        What to check.
    grid : Grid
        Where to run it.
    dt : float
        Time step.
    """

    kernel: Kernel
    grid: Grid
    dt: float
    truths: _Truths = field(default_factory=_Truths)

    def started(self) -> State:
        """Give a fresh state at t = 0."""
        state = self.grid.state(self.kernel.fields)
        self.kernel.start(state, self.grid)
        return state

    def step(self, state: State) -> State:
        """Advance a state by one step; give it back."""
        self.kernel.step(state, self.grid, self.dt, self.truths)
        state.time += self.dt
        return state


def check_whole_kernel(kernel: Kernel, dt: float) -> list[CheckLine]:
    """Go through the contract of a kernel in every number of dimensions it declares, and of its operators.

    On several ranks every rank does the same by itself, and then all together see whether the decomposition
    makes a difference.

    Collective: yes.
    """
    lines = go_through(_DECLARATION, kernel)
    if not all(line.passed for line in lines):
        return lines
    calls: list[_Call] = []
    for dimensions in kernel.dimensions:
        with _small_case(kernel, dimensions, dt) as case:
            found = go_through(_LINES, case, f"{dimensions}-D: ")
            lines += found + _on_all_ranks(case, found)
            calls += case.truths.calls
    for name in kernel.operators:
        lines += _check_own_operator(kernel, name, calls, dt)
    return lines


def check_kernel_operator(kernel: Kernel, name: str, dt: float) -> list[CheckLine]:
    """Go through the contract of one operator of a kernel, on elements from the kernel's own first steps.

    Collective: yes.
    """
    check_kernel(kernel)
    with _small_case(kernel, kernel.dimensions[0], dt) as case:
        go_through((_STEPPING,), case)
        return _check_own_operator(kernel, name, case.truths.calls, dt)


def _check_own_operator(kernel: Kernel, name: str, calls: list[_Call], dt: float) -> list[CheckLine]:
    operator = kernel.operators[name]
    mine = [call for call in calls if call.operator is operator]
    none = np.empty((0, len(operator.signature.inputs)))
    elements = np.concatenate([none, *(call.inputs for call in mine)])
    asked_dt = mine[0].dt if mine else dt
    finite = elements[np.isfinite(elements).all(axis=1)]
    return check_operator(operator.bound_to(kernel.fields), finite, asked_dt, about=f"operator {name}: ")


@contextmanager
def _small_case(kernel: Kernel, dimensions: int, dt: float) -> Iterator[KernelCase]:
    """Put a kernel on a small grid of this rank's own; a grid is the door to MPI, so it lends the communicator."""
    with Grid((2**20,), halo=0) as everyone:
        alone = cast("MPI.Intracomm", everyone.comm.Split(everyone.rank))
        widest = max(kernel.halo, 1)
        grain = kernel.grain(dimensions)
        first, *others = (side + 2 * kernel.halo for side in _SIDES[dimensions])
        cells = (first + everyone.size * widest, *others)
        shape = tuple(count * side for count, side in zip(cells, grain, strict=True))
        with Grid(shape, halo=kernel.halo, grain=grain, comm=alone) as grid:
            yield KernelCase(kernel, grid, dt)
        alone.Free()


def _on_all_ranks(case: KernelCase, found: list[CheckLine]) -> list[CheckLine]:
    """Compare this rank's block of a run on all ranks with the run on one.

    Not a :class:`Line`: were an exception turned into a complaint here, the other ranks would wait for ever in
    the exchange; as it is the job is aborted. So it is tried only where everything else passed.
    """
    with Grid(case.grid.shape, halo=case.kernel.halo, grain=case.grid.grain) as grid:
        fit = all(grid.comm.allgather(all(line.passed for line in found)))
        if grid.size == 1 or not fit:
            return []
        alone, parts = case.started(), KernelCase(case.kernel, grid, case.dt)
        mine = parts.started()
        for _ in range(_STEPS):
            case.step(alone)
            parts.step(mine)
        block = tuple(map(slice, grid.start, grid.stop))
        different = [name for name in mine if not same_bits(mine[name].interior, alone[name].interior[block])]
        everywhere = sorted(set().union(*grid.comm.allgather(different)))
    wrong = f"{', '.join(everywhere)} have other bits than on one rank." if everywhere else ""
    promise = f"{grid.ndim}-D: start and {_STEPS} steps are bitwise the same on {grid.size} ranks as on one"
    return [CheckLine(promise, not wrong, wrong)]


def _declares_fields_and_operators(kernel: Kernel) -> str:
    check_kernel(kernel)
    return ""


def _declares_dimensions(kernel: Kernel) -> str:
    wrong = [number for number in kernel.dimensions if number not in _SIDES]
    if wrong or not kernel.dimensions:
        return f"dimensions = {kernel.dimensions}: name one or more of 1, 2 and 3."
    return ""


def _starts_within_bounds(case: KernelCase) -> str:
    for name, local in case.started().items():
        values, lowest, highest = local.interior, local.field.lower, local.field.upper
        if not np.isfinite(values).all():
            return f'"{name}" is not finite at t = 0: fill every cell of the interior.'
        if values.min() < lowest or values.max() > highest:
            return (
                f'"{name}" is between {values.min():g} and {values.max():g} at t = 0, outside of {local.field.bounds}.'
            )
    return ""


def _starts_repeatably(case: KernelCase) -> str:
    one, other = case.started(), case.started()
    names = [name for name in one if not same_bits(one[name].interior, other[name].interior)]
    return f"the second time {', '.join(names)} had other bits: seed what is random." if names else ""


def _stays_finite(case: KernelCase) -> str:
    state = case.started()
    for number in range(1, _STEPS + 1):
        case.step(state)
        for name, local in state.items():
            if not np.isfinite(local.interior).all():
                return (
                    f'"{name}" is not finite after step {number} with dt = {case.dt:g}: '
                    "if that is too long a step, --set run.dt=1e-6."
                )
    return ""


def _calls_declared_operators(case: KernelCase) -> str:
    declared = list(case.kernel.operators.values())
    case.step(case.started())
    if not case.truths.calls:
        return "it never calls evaluate, so nothing is coupled: evaluate(self.NAME, state, dt)."
    stranger = next((call.operator for call in case.truths.calls if call.operator not in declared), None)
    if stranger is not None:
        return f"it evaluates {stranger}, which is no attribute of the kernel: no surrogate is ever asked for it."
    return ""


def _steps_repeatably(case: KernelCase) -> str:
    one, other = case.step(case.started()), case.step(case.started())
    names = [name for name in one if not same_bits(one[name].interior, other[name].interior)]
    return f"the second time {', '.join(names)} had other bits: keep no state in the kernel." if names else ""


def _exchanges_before_it_reads(case: KernelCase) -> str:
    clean, poisoned = case.started(), case.started()
    for local in poisoned.values():
        inside = local.interior.copy()
        local.array[...] = np.nan
        local.interior[...] = inside
    case.step(clean)
    case.step(poisoned)
    names = [name for name in clean if not same_bits(clean[name].interior, poisoned[name].interior)]
    if names:
        return f"{', '.join(names)} depend on what was in the halo before: call grid.exchange(state) before reading it."
    return ""


def _steps_copies_alike(case: KernelCase) -> str:
    """Try a twin window in small: what a kernel remembers of one state leaks into the other."""
    alone = case.started()
    for _ in range(_STEPS):
        case.step(alone)
    state, twin = case.step(case.started()), case.grid.state(case.kernel.fields)
    twin.copy_from(state)
    for _ in range(_STEPS - 1):
        case.step(state)
        case.step(twin)
    names = [
        name
        for name in alone
        if not same_bits(alone[name].interior, state[name].interior)
        or not same_bits(state[name].interior, twin[name].interior)
    ]
    return f"{', '.join(names)} had other bits: what a step needs of earlier ones belongs into fields." if names else ""


_DECLARATION = (
    Line("fields are declared, and operators over them", _declares_fields_and_operators),
    Line("its numbers of dimensions are declared", _declares_dimensions),
)
_STEPPING = Line(f"{_STEPS} steps leave all fields finite", _stays_finite, needs=(_starts_within_bounds,))
_LINES = (
    Line("start fills all fields with finite values within their bounds", _starts_within_bounds),
    Line("start is bitwise repeatable", _starts_repeatably, needs=(_starts_within_bounds,)),
    _STEPPING,
    Line(
        "a step evaluates declared operators and no others", _calls_declared_operators, needs=(_starts_within_bounds,)
    ),
    Line("a step is bitwise repeatable", _steps_repeatably, needs=(_starts_repeatably, _stays_finite)),
    Line(
        "a copy of a state, stepped in turn with it, goes the same way, as twin windows need",
        _steps_copies_alike,
        needs=(_stays_finite, _steps_repeatably),
    ),
    Line(
        "a step exchanges halos before it reads them",
        _exchanges_before_it_reads,
        needs=(_stays_finite, _steps_repeatably, _steps_copies_alike),
    ),
)
