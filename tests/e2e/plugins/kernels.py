"""Kernels that try what a run does with them."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from coupler import Field, Kernel, Operator
from coupler.kernels.heat import Heat


class Patient(Heat):
    """Takes its time, as expensive kernels do, until a file is there that says not to."""

    def __init__(self, *, file: str, seconds: float = 0.02) -> None:
        self.file, self.seconds = Path(file), seconds
        super().__init__()

    def step(self, state, grid, dt, evaluate):
        if not self.file.exists():
            time.sleep(self.seconds)
        super().step(state, grid, dt, evaluate)


class Failing(Heat):
    """Conducts heat until its truth fails on one rank: it raises, or it returns what it did not declare."""

    def __init__(self, *, rank: int, step: int, raises: bool = True) -> None:
        self.rank, self.last, self.raises, self.number = rank, step, raises, 0
        super().__init__()

    def relax(self, inputs, dt):
        if not self.here or self.number < self.last:
            return super().relax(inputs, dt)
        if self.raises:
            raise ArithmeticError("the lattice has melted")
        return super().relax(inputs, dt)[:, :1]

    def start(self, state, grid):
        self.here = grid.rank == self.rank
        super().start(state, grid)

    def step(self, state, grid, dt, evaluate):
        self.number += 1
        super().step(state, grid, dt, evaluate)


class Leaving(Heat):
    """Conducts heat until one rank leaves in the midst of the run, with this code."""

    def __init__(self, *, code: int | str) -> None:
        self.code, self.number = code, 0
        super().__init__()

    def step(self, state, grid, dt, evaluate):
        self.number += 1
        if grid.rank == 1 and self.number == 3:
            sys.exit(self.code)
        super().step(state, grid, dt, evaluate)


class BlowingUp(Heat):
    """Conducts heat until a cell of the last rank is no number any more."""

    number = 0

    def step(self, state, grid, dt, evaluate):
        self.number += 1
        super().step(state, grid, dt, evaluate)
        if grid.rank == grid.comm.size - 1 and self.number == 6:
            state["electron"].interior[0, 0] = np.nan


class Decays(Kernel):
    """Three quantities, each with an operator of its own, and each operator with a batch of its own size."""

    fields = (Field("nan"), Field("shape"), Field("error"))
    halo = 0

    def __init__(self) -> None:
        for field in self.fields:
            setattr(
                self, field.name, Operator(decay, inputs=(field.name,), outputs=(field.name,), atol=1e-3, rtol=1e-3)
            )

    def start(self, state, grid):
        for local in state.values():
            local.interior[...] = 1.0 + grid.ids.reshape(grid.local_shape) / np.prod(grid.shape)

    def step(self, state, grid, dt, evaluate):
        for operator in self.operators.values():
            evaluate(operator, state, dt)


def decay(inputs, dt):
    return inputs * np.exp(-dt)


class Fades(Kernel):
    """One quantity that decays and is fed; from a step on it may decay faster than before."""

    fields = (Field("level", bounds=(0, None)),)
    halo = 0

    def __init__(self, *, faster_from: int = 0) -> None:
        self.faster_from, self.number = faster_from, 0
        self.fading = Operator(self.fade, inputs=("level",), outputs=("level",), atol=1e-3, rtol=1e-3)

    def fade(self, inputs, dt):
        rate = 30.0 if 0 < self.faster_from <= self.number else 1.0
        return inputs * np.exp(-rate * dt)

    def start(self, state, grid):
        state["level"].interior[...] = 1.0 + grid.ids.reshape(grid.local_shape) / np.prod(grid.shape)

    def step(self, state, grid, dt, evaluate):
        self.number += 1
        evaluate(self.fading, state, dt)
        state["level"].interior[...] += 0.01


class Dying(Heat):
    """Conducts heat until one rank is killed in the midst of a step, once: the file says that it has been."""

    def __init__(self, *, file: str, rank: int, step: int) -> None:
        self.file, self.rank, self.last, self.number = Path(file), rank, step, 0
        super().__init__()

    def step(self, state, grid, dt, evaluate):
        self.number += 1
        if grid.rank == self.rank and self.number == self.last and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().step(state, grid, dt, evaluate)
