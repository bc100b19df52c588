"""Belousov-Zhabotinsky reaction: the three-variable Oregonator with diffusion, in 1 or 2 dimensions.

    x' = s (y + x (1 - q x - y)) + Dx laplace(x)          x: HBrO2
    y' = (f z - (1 + x) y) / s    + Dy laplace(y)          y: Br-
    z' = w (x - z)                + Dz laplace(z)          z: Ce(4+)

R. J. Field, R. M. Noyes, J. Chem. Phys. 60 (1974) 1877. Everything is scaled: concentrations to their Oregonator
units, time to OREGO's (about 0.16 s). The defaults are the stiff test problem OREGO, f = 1 included; spirals want a
grid that resolves the front, so milder parameters: see ``docs/kernels/bz.md``.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.kernels import rosenbrock
from coupler.kernels.diffusion import diffuse
from coupler.operator import Operator

if TYPE_CHECKING:
    from coupler.grid import Grid


class BZ(Kernel):
    """Oregonator reaction-diffusion by Strang splitting: half the diffusion, the reaction, half the diffusion.

    In this order the expensive part is called once per step, with the whole ``dt``. Edges that are not periodic let
    nothing through.

    Parameters
    ----------
    s, w, q, f : float
        The Oregonator's parameters [1]; rates are per unit of scaled time. Scaled another way (Tyson & Fife):
        epsilon = w / s.
    diffusion : sequence of 3 float
        Dx, Dy, Dz [length2/time], >= 0.
    rtol, atol : float
        Tolerance of one step of the integrator that is the truth.

    Attributes
    ----------
    reaction : Operator
        (x, y, z) -> (x, y, z) after dt in one cell. At tolerance an answer is wrong by 0.1 % plus 1e-5 of what
        x and z reach, 1/q, and 1e-3 in y, whose threshold of excitation is near 1. A slow step changes z by
        about w dt, some 2 %: a looser tolerance would pass "nothing changes" as an answer.

    Raises
    ------
    PluginError
        If a parameter is not positive or there are not three diffusivities >= 0.
    """

    fields = (Field("x", bounds=(0, None)), Field("y", bounds=(0, None)), Field("z", bounds=(0, None)))
    halo = 1
    dimensions = (1, 2)

    def __init__(
        self,
        *,
        s: float = 77.27,
        w: float = 0.161,
        q: float = 8.375e-6,
        f: float = 1.0,
        diffusion: tuple[float, float, float] = (1.0, 1.0, 0.6),
        rtol: float = 1e-6,
        atol: float = 1e-8,
    ) -> None:
        _check(s=s, w=w, q=q, f=f, rtol=rtol, atol=atol)
        if len(diffusion) != 3 or not all(0 <= value < math.inf for value in diffusion):
            raise PluginError(f"diffusion = {diffusion} must be three finite numbers >= 0, one each for x, y and z.")
        self.parameters = np.array([s, w, q, f], dtype=np.float64)
        self.diffusivities = {field.name: float(value) for field, value in zip(self.fields, diffusion, strict=True)}
        self.rtol, self.atol = rtol, np.full(3, atol)
        self.reaction = Operator(
            self.react, inputs=("x", "y", "z"), outputs=("x", "y", "z"), atol=(1e-5 / q, 1e-3, 1e-5 / q), rtol=1e-3
        )

    def react(self, inputs: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Integrate the Oregonator over ``dt`` in every cell: the truth of ``reaction``; NaN where it fails.

        Parameters
        ----------
        inputs : ndarray (n, 3)
            x, y, z.
        dt : float
            Time to advance by.

        Returns
        -------
        ndarray (n, 3)

        Collective: no.
        """
        outputs = np.empty_like(inputs)
        steps = np.empty(inputs.shape[0], dtype=np.int64)
        _advance(inputs, self.parameters, dt, self.rtol, self.atol, outputs, steps)
        return outputs

    def start(self, state: State, grid: "Grid") -> None:
        """Wind the phase of the oscillation around points: one spiral, or a counter-rotating set where it is periodic.

        A bounded axis has its centre in the middle, a periodic one has two, a quarter from either end. In one
        dimension the phase runs once along the axis, which makes travelling waves.
        """
        cycle = self._cycle()
        along = [_winding(grid.centres(axis), grid.length[axis], grid.periodic[axis]) for axis in range(grid.ndim)]
        if grid.ndim == 1:
            phase = grid.centres(0) / grid.length[0]
        else:
            phase = np.empty(grid.local_shape)
            _angle(along[0], along[1], phase)
        index = np.minimum((phase * len(cycle)).astype(np.intp), len(cycle) - 1)
        for column, field in enumerate(self.fields):
            state[field.name].interior[...] = cycle[index, column]

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        diffuse(state, grid, self.diffusivities, dt / 2)
        evaluate(self.reaction, state, dt)
        diffuse(state, grid, self.diffusivities, dt / 2)

    def _cycle(self) -> NDArray[np.float64]:
        """Follow one oscillation of a single cell, (m, 3), from one excitation to the next.

        A cell that comes to rest has only the first one; the tail of it stands in for the rest.
        """
        _, w, q, f = self.parameters
        dt, level = 0.02 / w, 0.1 / q
        cell = np.array([[0.3 / q, f, 0.1 / q]])
        found: list[NDArray[np.float64]] = []
        excitations: list[int] = []
        while len(excitations) < 2 and len(found) < 10_000:
            after = self.react(cell, dt)
            if cell[0, 0] < level <= after[0, 0]:
                excitations.append(len(found))
            found.append(after[0])
            cell = after
        first, last = excitations if len(excitations) == 2 else (0, 500)
        return np.array(found[first:last])


def _check(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0 < value < math.inf:
            raise PluginError(f"{name} = {value} must be a positive number: the Oregonator means nothing without.")


def _winding(centres: NDArray[np.float64], length: float, periodic: bool) -> NDArray[np.float64]:
    """Give a coordinate that is zero at the spirals' centres, and periodic where the axis is."""
    if periodic:
        return np.array([math.sin(2.0 * math.pi * (value / length - 0.25)) for value in centres])
    return centres / length - 0.5


@njit(cache=True, nogil=True)
def _angle(across, along, phase):
    """Angle around the zeros of both, in turns from 0 to 1; scalar by scalar, so the blocks make no difference."""
    for i in range(across.size):
        for j in range(along.size):
            phase[i, j] = (math.atan2(along[j], across[i]) / (2.0 * math.pi)) % 1.0


@njit(nogil=True)
def _rhs(y, parameters, out):
    s, w, q, f = parameters[0], parameters[1], parameters[2], parameters[3]
    out[0] = s * (y[1] + y[0] * (1.0 - q * y[0] - y[1]))
    out[1] = (f * y[2] - (1.0 + y[0]) * y[1]) / s
    out[2] = w * (y[0] - y[2])


@njit(nogil=True)
def _jacobian(y, parameters, out):
    s, w, q, f = parameters[0], parameters[1], parameters[2], parameters[3]
    out[0, 0], out[0, 1], out[0, 2] = s * (1.0 - 2.0 * q * y[0] - y[1]), s * (1.0 - y[0]), 0.0
    out[1, 0], out[1, 1], out[1, 2] = -y[1] / s, -(1.0 + y[0]) / s, f / s
    out[2, 0], out[2, 1], out[2, 2] = w, 0.0, -w


@njit(cache=True, nogil=True, error_model="numpy")
def _advance(rows, parameters, duration, rtol, atol, out, steps):
    rosenbrock.integrate(_rhs, _jacobian, 3, rows, parameters, duration, rtol, atol, out, steps)
