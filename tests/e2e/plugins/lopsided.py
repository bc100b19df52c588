"""A kernel whose elements cost very different amounts of truth, nearly all of it on the first rank."""

import numpy as np
from numba import njit

from coupler import Field, Kernel, Operator


class Lopsided(Kernel):
    """Relaxes one quantity in many small steps, and in a hundred times as many where it is large."""

    fields = (Field("u", bounds=(0, None)),)
    halo = 0

    def __init__(self) -> None:
        self.relaxation = Operator(relax, inputs=("u",), outputs=("u",), atol=1e-6, rtol=1e-6)

    def start(self, state, grid):
        share = grid.ids.reshape(grid.local_shape) / np.prod(grid.shape)
        state["u"].interior[...] = np.where(share < 0.2, 20.0 + share, 1.0 + share)

    def step(self, state, grid, dt, evaluate):
        evaluate(self.relaxation, state, dt)


def relax(inputs, dt):
    return _relax(inputs, dt)


@njit(cache=True)
def _relax(inputs, dt):
    outputs = np.empty_like(inputs)
    for row in range(len(inputs)):
        value = inputs[row, 0]
        steps = 4_000 if value > 10.0 else 40
        for _ in range(steps):
            value += dt / steps * (1.0 - np.sqrt(value)) * 1e-2
        outputs[row, 0] = value
    return outputs
