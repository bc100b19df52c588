"""Kuramoto-Sivashinsky equation: many independent members, each a periodic line of L = 22 that is chaotic in time.

    u_t = -u u_x - u_xx - u_xxxx

Y. Kuramoto, Prog. Theor. Phys. Suppl. 64 (1978) 346; G. I. Sivashinsky, Acta Astronaut. 4 (1977) 1177. L = 22 is the
smallest line that is turbulent for good: P. Cvitanovic, R. L. Davidchack, E. Siminos, SIAM J. Appl. Dyn. Syst. 9 (2010)
1. Everything is scaled. The mean of u never changes and is zero here.

A member is a tile of one row without a halo, and an element: the operator advances all its points at once, and nothing
goes from member to member. The truth is ETDRK4 in Fourier space,
S. M. Cox, P. C. Matthews, J. Comput. Phys. 176 (2002) 430, with the coefficients as contour integrals, A.-K. Kassam,
L. N. Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.operator import Operator
from coupler.tile import Tile

if TYPE_CHECKING:
    from coupler.grid import Grid

Floats = NDArray[np.float64]
_ROOTS = 32  # of unity on half a circle: the coefficients are exact to rounding from 16 on
_START_MODES = 4


class KuramotoSivashinsky(Kernel):
    """Members along the first axis of the grid, their points along the second, which holds one member or several.

    Parameters
    ----------
    L : float
        Length of a member's line; the grid's own length is for pictures only.
    points : int
        Points of a member, a power of two and at least 16; the upper third of the modes is left zero (2/3 rule).
    substep : float
        Longest step of the truth.
    spinup : float
        Time before t = 0 in which the members leave their random start.
    seed : int
        Of the members' starts, 0 or more.

    Attributes
    ----------
    flow : Operator
        u of a member -> u after dt. At tolerance the worst of its points is wrong by 0.02,
        1.7 % of the standard deviation of u: a perturbation of that size takes 80 to reach the size of u.

    Raises
    ------
    PluginError
        If a parameter is out of its range.
    """

    fields = (Field("u"),)
    halo = 0
    dimensions = (2,)

    def __init__(
        self, *, L: float = 22.0, points: int = 64, substep: float = 0.2, spinup: float = 100.0, seed: int = 0
    ) -> None:
        _check(points, seed, L=L, substep=substep, spinup=spinup)
        self.L, self.points, self.substep, self.spinup, self.seed = L, points, substep, spinup, seed
        self._twiddles = np.exp(-2j * np.pi * np.arange(points // 2) / points)
        tile = Tile((1, points), halo=0)
        self.flow = Operator(self.advance, inputs=("u",), outputs=("u",), atol=0.02, rtol=0.0, tile=tile)

    def advance(self, inputs: Floats, dt: float) -> Floats:
        """Advance every member by ``dt``: the truth of ``flow``, (..., points) -> the same shape.

        Collective: no.
        """
        members = inputs.reshape(-1, self.points).copy()
        steps = math.ceil(dt / self.substep * (1.0 - 1e-12))
        if steps > 0:
            _advance(members, steps, self._coefficients(dt / steps), self._twiddles)
        return members.reshape(inputs.shape)

    def start(self, state: State, grid: "Grid") -> None:
        """Draw the lowest modes of every member by its own number, and let it run for ``spinup``."""
        drawn = np.array([self._draw(int(member)) for member in grid.number((1, self.points))])
        state["u"].interior[...] = self.advance(drawn, self.spinup).reshape(grid.local_shape)

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        """Ask for the flow; then the mean, which the equation keeps and a surrogate lets drift, is put back to zero."""
        evaluate(self.flow, state, dt)
        members = state["u"].interior.reshape(-1, self.points)  # a view, as there is no halo
        members -= members.mean(axis=1, keepdims=True)

    def spectrum(self, members: Floats) -> Floats:
        """Give the energy of every mode, (..., points) -> (..., points // 2), mode 0 first.

        With u = sum of u_k exp(2 pi i k x / L) it is |u_k|^2 / 2 of k and -k together; all of it is half the mean u^2.
        """
        modes = np.fft.rfft(members, axis=-1)[..., : self.points // 2] / self.points
        energy: Floats = np.abs(modes) ** 2
        energy[..., 0] /= 2.0
        return energy

    def _draw(self, member: int) -> Floats:
        random = np.random.default_rng((self.seed, member))
        angle = 2.0 * np.pi * np.arange(self.points) / self.points
        waves = [
            amplitude * np.cos(mode * angle + phase)
            for mode, (amplitude, phase) in enumerate(random.random((_START_MODES, 2)) * (1.0, 2.0 * np.pi), start=1)
        ]
        return np.sum(waves, axis=0)

    def _coefficients(self, h: float) -> NDArray[np.complex128]:
        """Give what ETDRK4 multiplies by, (7, points): E, E2, Q, f1, f2, f3 of the linear part, and -i q / 2."""
        modes = np.fft.fftfreq(self.points, 1.0 / self.points)
        wavenumber = 2.0 * np.pi / self.L * modes
        linear = wavenumber**2 - wavenumber**4
        circle = np.exp(1j * np.pi * (np.arange(1, _ROOTS + 1) - 0.5) / _ROOTS)
        z = h * linear[:, None] + circle
        means = [
            (np.exp(z / 2) - 1) / z,
            (-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3,
            (2 + z + np.exp(z) * (z - 2)) / z**3,
            (-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3,
        ]
        weights = [h * mean.real.mean(axis=1) for mean in means]
        advection = np.where(np.abs(modes) < self.points / 3, -0.5j * wavenumber, 0.0)
        return np.array([np.exp(h * linear), np.exp(h * linear / 2), *weights, advection])


def _check(points: int, seed: int, **parameters: float) -> None:
    if points < 16 or points & (points - 1):
        raise PluginError(f"points = {points} must be a power of two from 16 on, which the Fourier transform wants.")
    if seed < 0:
        raise PluginError(f"seed = {seed} must be a whole number >= 0.")
    for name, value in parameters.items():
        if not (0 <= value < math.inf and (value > 0 or name == "spinup")):
            raise PluginError(f"{name} = {value} must be a positive number, or for spinup zero.")


@njit(nogil=True)
def _transform(values, twiddles, work):
    """Fourier transform in place by Stockham's radix-2 algorithm, which needs no bit reversal; ``work`` is spoilt."""
    n = len(values)
    source, target = values, work
    groups, stride = n // 2, 1
    while groups >= 1:
        for group in range(groups):
            factor = twiddles[group * stride]
            for i in range(stride):
                a, b = source[i + stride * group], source[i + stride * (group + groups)]
                target[i + stride * 2 * group] = a + b
                target[i + stride * (2 * group + 1)] = (a - b) * factor
        source, target = target, source
        groups //= 2
        stride *= 2
    if source is not values:
        values[:] = source


@njit(nogil=True)
def _nonlinear(modes, advection, twiddles, work, out):
    """Fourier modes of -u u_x = -(u^2 / 2)_x; the inverse transform is that of the conjugate."""
    n = len(modes)
    for k in range(n):
        out[k] = modes[k].conjugate() / n
    _transform(out, twiddles, work)
    for i in range(n):
        out[i] = out[i].real * out[i].real
    _transform(out, twiddles, work)
    for k in range(n):
        out[k] *= advection[k]


@njit(cache=True, nogil=True)
def _advance(members, steps, coefficients, twiddles):
    """Advance members (n, points) in place by so many steps of ETDRK4."""
    E, E2, Q, f1, f2, f3, advection = coefficients
    n = members.shape[1]
    v, a, b, Nv, Na, Nb, Nc, work = np.empty((8, n), np.complex128)
    for member in members:
        v[:] = member
        _transform(v, twiddles, work)
        for _ in range(steps):
            _nonlinear(v, advection, twiddles, work, Nv)
            for k in range(n):
                a[k] = E2[k] * v[k] + Q[k] * Nv[k]
            _nonlinear(a, advection, twiddles, work, Na)
            for k in range(n):
                b[k] = E2[k] * v[k] + Q[k] * Na[k]
            _nonlinear(b, advection, twiddles, work, Nb)
            for k in range(n):
                b[k] = E2[k] * a[k] + Q[k] * (2.0 * Nb[k] - Nv[k])
            _nonlinear(b, advection, twiddles, work, Nc)
            for k in range(n):
                v[k] = E[k] * v[k] + f1[k] * Nv[k] + 2.0 * f2[k] * (Na[k] + Nb[k]) + f3[k] * Nc[k]
        for k in range(n):
            v[k] = v[k].conjugate() / n
        _transform(v, twiddles, work)
        for i in range(n):
            member[i] = v[i].real
