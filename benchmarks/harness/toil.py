"""A kernel whose costs are known: heat on a plane, and in every cell a decay that takes as long as it is told to."""

import numpy as np
from numba import njit

from coupler import Field, Kernel, Operator


class Toil(Kernel):
    """Conduct, then decay.

    Parameters
    ----------
    substeps : int
        Of the decay in a step; some nanoseconds each.
    """

    fields = (Field("u", bounds=(0, None)), Field("rate", bounds=(0, None)))
    halo = 1
    dimensions = (2,)

    def __init__(self, *, substeps: int = 4000) -> None:
        self.substeps = substeps
        self.decay = Operator(self.decayed, inputs=("u", "rate"), outputs=("u",), atol=1e-3, rtol=1e-3)

    def decayed(self, inputs, dt):
        outputs = np.empty((len(inputs), 1))
        _decay(inputs, outputs, dt / self.substeps, self.substeps)
        return outputs

    def start(self, state, grid):
        x, y = (grid.centres(0) / grid.length[0])[:, None], (grid.centres(1) / grid.length[1])[None, :]
        state["u"].interior[...] = 2.0 + np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)
        state["rate"].interior[...] = 1.0 + 0.5 * np.cos(2 * np.pi * x) * np.sin(4 * np.pi * y)

    def step(self, state, grid, dt, evaluate):
        grid.exchange(state)
        u = state["u"].array
        u[1:-1, 1:-1] += 0.1 * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1])
        evaluate(self.decay, state, dt)
        state["u"].interior[...] += dt  # fed, so that there is always something to decay


@njit(cache=True)
def _decay(inputs, outputs, h, substeps):
    for row in range(inputs.shape[0]):
        u, rate = inputs[row, 0], inputs[row, 1]
        for _ in range(substeps):
            u -= h * rate * u * u / (1.0 + u)
        outputs[row, 0] = u
