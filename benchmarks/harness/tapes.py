"""Recorded truth of real operators: what a model, trained on the first steps, would have answered on all later ones.

Everything is made in this process and kept in memory: the kernel goes on by its own truth, whatever the model says.
"""

from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler import plugin
from coupler.field import State
from coupler.grid import Grid
from coupler.kernel import Kernel, gather, scatter
from coupler.learning.answers import answers
from coupler.operator import Operator
from coupler.redraw import ErrorStream, stream_from_arrays
from coupler.surrogate import Samples, Surrogate

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Tape:
    """How to record an operator.

    Parameters
    ----------
    name : str
        Of the stream.
    kernel : str
        Plug-in name of the kernel; its first operator is recorded.
    params : mapping
        Keyword arguments of the kernel.
    shape, length : tuple
        Of the grid.
    dt : float
        Time step.
    shadow, steps : int
        Steps whose truth the model learns from, and steps after them.
    epochs : int
        Of the training: many make an exact model, few a doubtful one.
    """

    name: str
    kernel: str
    params: dict[str, Any]
    shape: tuple[int, int]
    length: tuple[float, float]
    dt: float
    shadow: int
    steps: int
    epochs: int
    periodic: bool = False
    surrogate: dict[str, Any] = field(default_factory=lambda: {"members": 3, "width": 24, "depth": 1})


TAPES = (
    Tape(
        "bz",
        "coupler.kernels.bz:BZ",
        {"s": 5.0, "w": 0.05, "q": 2e-3, "f": 1.4},
        (64, 64),
        (72.0, 72.0),
        0.35,
        shadow=40,
        steps=260,
        epochs=40,
    ),
    Tape(
        "brusselator",
        f"{_ROOT / 'launch/custom_kernel/brusselator.py'}:Brusselator",
        {"substeps": 40},
        (64, 64),
        (1.0, 1.0),
        0.1,
        shadow=40,
        steps=260,
        epochs=30,
        periodic=True,
    ),
)
"""Spiral waves and chemical waves, each a million decisions after training."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What a tape holds, and what it cost.

    Parameters
    ----------
    stream : ErrorStream
        Of the steps after the training, inputs included.
    truth_seconds, answer_seconds : float
        Of an element, in this process: by the operator, and by the model in torch [s].
    """

    stream: ErrorStream
    truth_seconds: float
    answer_seconds: float


def record(tape: Tape, *, seed: int = 1) -> ErrorStream:
    """Record a tape, and give its stream alone."""
    return recording(tape, seed=seed).stream


def recording(tape: Tape, *, seed: int = 1) -> Recording:
    """Run a kernel, train a model on its first steps, and measure what the model says on the others.

    Parameters
    ----------
    tape : Tape
        What to run.
    seed : int
        Of the training.

    Collective: no; the grid is this process's own.
    """
    kernel = plugin.build(plugin.load(tape.kernel, Kernel), tape.params, key="kernel.params")
    (operator,) = kernel.operators.values()
    operator = operator.bound_to(kernel.fields)
    elements = _Recorder(operator)
    with Grid(tape.shape, length=tape.length, periodic=tape.periodic, halo=kernel.halo, comm=MPI.COMM_SELF) as grid:
        state = grid.state(kernel.fields)
        kernel.start(state, grid)
        for _ in range(tape.shadow + tape.steps):
            kernel.step(state, grid, tape.dt, elements.evaluate)
    learned, later = elements.split(tape.shadow)
    model = plugin.build(
        plugin.load("coupler.models.mlp_ensemble:MLPEnsemble", Surrogate),
        {**tape.surrogate, "epochs": tape.epochs},
        operator.signature,
        key="surrogate.params",
    )
    model.fit(_some(learned, 30_000, seed, tape.dt), seed=seed)
    start = perf_counter()
    said = [answers(model, inputs, np.full(len(inputs), tape.dt)) for inputs, _ in later]
    seconds = perf_counter() - start
    errors = [operator.signature.error(mean, truth) for (mean, _), (_, truth) in zip(said, later, strict=True)]
    stream = stream_from_arrays(tape.name, [score for _, score in said], errors, [inputs for inputs, _ in later])
    return Recording(stream, elements.seconds, seconds / max(stream.score.size, 1))


class _Recorder:
    """The truth of every call, kept."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._calls: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._seconds: list[float] = []

    @property
    def seconds(self) -> float:
        """Of an element: the median of the calls, as the first one compiles [s]."""
        return float(np.median(self._seconds))

    def evaluate(self, operator: Operator, state: State, dt: float) -> None:
        inputs = gather(self._operator, state)
        start = perf_counter()
        truth = self._operator.evaluate_truth(inputs, dt)
        self._seconds.append((perf_counter() - start) / max(len(inputs), 1))
        self._calls.append((inputs, truth))
        scatter(self._operator, state, truth)

    def split(self, at: int) -> tuple[list[Any], list[Any]]:
        return self._calls[:at], self._calls[at:]


def _some(calls: list[Any], most: int, seed: int, dt: float) -> Samples:
    inputs, truth = (np.concatenate(parts) for parts in zip(*calls, strict=True))
    rows = np.random.default_rng(seed).permutation(len(inputs))[:most]
    return Samples(inputs[rows], np.full(len(rows), dt), truth[rows])
