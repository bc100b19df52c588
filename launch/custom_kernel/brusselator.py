"""A kernel of one's own: the Brusselator on a periodic plane, in one file that is no part of any package.

    u' = a + u^2 v - (b + 1) u + D laplace(u)
    v' = b u - u^2 v           + D laplace(v)

Check it with ``coupler check launch/custom_kernel/brusselator.py:Brusselator``, run it with
``mpirun -n 2 coupler run launch/custom_kernel/case.toml``.
"""

import numpy as np
from numba import njit

from coupler import Field, Kernel, Operator


class Brusselator(Kernel):
    """Chemical waves: diffusion on every rank, the reaction cell by cell through the coupler."""

    fields = (Field("u", unit="mol/m3", bounds=(0, None)), Field("v", unit="mol/m3", bounds=(0, None)))
    halo = 1
    dimensions = (2,)

    def __init__(self, *, a: float = 1.0, b: float = 3.0, diffusivity: float = 2e-5, substeps: int = 400) -> None:
        self.rates, self.diffusivity, self.substeps = (a, b), diffusivity, substeps
        self.reaction = Operator(self.react, inputs=("u", "v"), outputs=("u", "v"), atol=1e-3, rtol=1e-3)

    def react(self, inputs, dt):
        """The truth: (n, 2) -> (n, 2), every row by itself."""
        outputs = np.empty_like(inputs)
        _runge_kutta(inputs, outputs, dt / self.substeps, self.substeps, *self.rates)
        return outputs

    def start(self, state, grid):
        """A steady state with a wave on it, from global coordinates, so the decomposition does not matter."""
        a, b = self.rates
        x, y = 2 * np.pi * grid.centres(0)[:, np.newaxis], 2 * np.pi * grid.centres(1)[np.newaxis, :]
        state["u"].interior[...] = a + 0.5 * np.sin(x) * np.sin(y)
        state["v"].interior[...] = b / a + 0.5 * np.cos(2 * x) * np.sin(y)

    def step(self, state, grid, dt, evaluate):
        """Diffuse, then react."""
        grid.exchange(state)
        for name in ("u", "v"):
            _diffuse(state[name].array, self.diffusivity * dt / grid.spacing[0] ** 2)
        evaluate(self.reaction, state, dt)


@njit(cache=True)
def _diffuse(c, number):
    old = c.copy()
    for i in range(1, c.shape[0] - 1):
        for j in range(1, c.shape[1] - 1):
            around = old[i - 1, j] + old[i + 1, j] + old[i, j - 1] + old[i, j + 1]
            c[i, j] += number * (around - 4.0 * old[i, j])


@njit(cache=True)
def _rate(u, v, a, b):
    made = u * u * v
    return a + made - (b + 1.0) * u, b * u - made


@njit(cache=True)
def _runge_kutta(inputs, outputs, h, substeps, a, b):
    for row in range(inputs.shape[0]):
        u, v = inputs[row, 0], inputs[row, 1]
        for _ in range(substeps):
            p1, q1 = _rate(u, v, a, b)
            p2, q2 = _rate(u + 0.5 * h * p1, v + 0.5 * h * q1, a, b)
            p3, q3 = _rate(u + 0.5 * h * p2, v + 0.5 * h * q2, a, b)
            p4, q4 = _rate(u + h * p3, v + h * q3, a, b)
            u += h / 6.0 * (p1 + 2.0 * p2 + 2.0 * p3 + p4)
            v += h / 6.0 * (q1 + 2.0 * q2 + 2.0 * q3 + q4)
        outputs[row, 0], outputs[row, 1] = u, v
