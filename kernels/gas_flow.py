"""How a gas mixture at constant pressure conducts, diffuses and is stirred: finite volumes that carry their mass along.

Every cell keeps its mass, so gas that expands takes its cell with it and no velocity appears: with the mass coordinate
z, dz = density / reference * dx, one dimension of an expanding gas is, exactly (F. A. Williams, "Combustion Theory",
section 5.2),

    Y_k' = d/dz (r^2 D_k W_k / W dX_k/dz  - correction),     r = density / reference
    h'   = d/dz (r conductivity / reference dT/dz  + sum_k h_k (flux of Y_k))

with mixture-averaged D_k for molar gradients; the correction, in proportion to Y_k, makes the fluxes add up to zero.
Along several axes the same equation is a model: see ``docs/kernels/reactive_flow.md``. Fluxes are of second order and
leave one cell for the next, so every species, every element and the enthalpy are conserved to rounding.

In time: RKL2, an explicit method of second order whose s stages reach as far as s^2 / 4 steps of Euler's (C. D. Meyer,
D. S. Balsara, T. D. Aslam, J. Comput. Phys. 257 (2014) 594).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import ConfigError
from coupler.field import State
from coupler.kernels import caloric, transport
from coupler.kernels.mechanism import Mechanism
from coupler.kernels.transport import Transport
from coupler.kernels.units import GAS_CONSTANT

if TYPE_CHECKING:
    from coupler.grid import Grid

# The bound takes every species and the heat by itself; what couples them adds less than this.
_SAFETY = 1.25
_MOST_STAGES = 99


@dataclass(frozen=True)
class Gas:
    """What transport must know of a mixture.

    Parameters
    ----------
    transport : Transport
        Fits of conductivity and diffusion.
    enthalpy : ndarray (species, 2, 6)
        Enthalpies as polynomials of T in ascending powers [J/kg/K^n], below and above ``middle``.
    middle : ndarray (species,)
        Temperatures between the two ranges [K].
    density : float
        The reference density [kg/m3].
    """

    transport: Transport
    enthalpy: NDArray[np.float64]
    middle: NDArray[np.float64]
    density: float


def gas_of(mechanism: Mechanism, density: float) -> Gas:
    """Collect what transport must know of a mechanism's gas, at a reference density [kg/m3].

    Raises PluginError if a species has no transport data.
    """
    coldest, hottest = mechanism.temperatures[:, 0].max(), mechanism.temperatures[:, 1].min()
    fits = transport.fit(mechanism, np.linspace(coldest, hottest, 60))
    polynomials = caloric.enthalpy_polynomials(mechanism.thermo, mechanism.weights)
    return Gas(fits, polynomials, mechanism.thermo[:, 0].copy(), density)


class Flow:
    """Advances the fields of a mixture; keeps room for intermediate results, never results.

    Parameters
    ----------
    gas : Gas
        Properties of the mixture.
    names : tuple of str
        Fields of the mass fractions, in the order of the gas.
    """

    def __init__(self, gas: Gas, names: tuple[str, ...]) -> None:
        self.gas, self.names = gas, names
        self._room = _Room(len(names), 0)

    def advance(self, state: State, grid: "Grid", velocity: NDArray[np.float64] | None, dt: float) -> None:
        """Conduct, diffuse and stir for ``dt``; nothing flows through edges that are not periodic.

        Parameters
        ----------
        state : State
            With "temperature" [K], "pressure" [Pa], the same everywhere, and the mass fractions, halo 1.
        grid : Grid
            Where the state lives; lengths are those of gas at the reference density.
        velocity : ndarray (axes, cells with halo) or None
            Velocity through the upper face of every cell, free of divergence, in C order [m/s]; None for gas at rest.
        dt : float
            Time to advance by [s].

        Raises
        ------
        ConfigError
            If the step is so long that it would take more than 99 stages; the state is as it was then.

        Collective: yes, a reduction and one halo exchange per stage.
        """
        cells = state["temperature"].array.size
        if self._room.conduction.size != cells:
            # Kept between calls: where memory comes in fresh pages, making it took three times as long as using it.
            self._room = _Room(len(self.names), cells)
        room = self._room
        start, last, before = room.start, room.last, room.before
        self._renew(state, grid)
        stages = odd_stages(self._euler_steps(state, grid, dt), dt)
        np.copyto(start, room.packed)
        np.copyto(before, start)
        np.copyto(room.slope, self._slopes(state, grid, velocity))
        w1, b_before, b_last = 4.0 / (stages**2 + stages - 2), 1.0 / 3.0, 1.0 / 3.0
        np.multiply(room.slope, w1 / 3.0 * dt, out=last)
        np.add(start, last, out=last)
        for j in range(2, stages + 1):
            self._put(state, last)
            self._renew(state, grid)
            b = (j * j + j - 2.0) / (2.0 * j * (j + 1.0))
            mu, nu = (2.0 * j - 1.0) / j * b / b_last, -(j - 1.0) / j * b / b_before
            here, rates = mu * w1 * dt, self._slopes(state, grid, velocity)
            _combine(mu, nu, here, (b_last - 1.0) * here, last, before, start, rates, room.slope)
            last, before, b_last, b_before = before, last, b, b_last
        self._put(state, last)

    def slowest(self, temperature: float, pressure: float, fractions: NDArray[np.float64]) -> float:
        """Give the smallest diffusivity in a gas at the reference density, of heat or any species [m2/s]."""
        fits, room = self.gas.transport, _Room(len(self.names), 1)
        room.packed[:-1, 0] = fractions
        coefficients = (fits.weight, fits.conductivity, fits.resistance)
        transport.mix(
            np.array([temperature]),
            room.packed[:-1],
            pressure,
            *coefficients,
            room.moles,
            room.mobility,
            room.conduction,
        )
        return float(room.mobility.min())

    def _renew(self, state: State, grid: "Grid") -> None:
        """Fill the halos and compute what the fluxes are made of."""
        grid.exchange(state)
        grid.reflect(state)
        room, gas, fits = self._room, self.gas, self.gas.transport
        for row, name in zip(room.packed, self.names, strict=False):
            row[:] = state[name].array.reshape(-1)
        temperatures = state["temperature"].array.reshape(-1)
        pressure = float(state["pressure"].interior.flat[0])
        coefficients = (fits.weight, fits.conductivity, fits.resistance)
        transport.mix(
            temperatures, room.packed[:-1], pressure, *coefficients, room.moles, room.mobility, room.conduction
        )
        _weigh(temperatures, pressure, fits.weight, gas.density, room.moles, room.mobility, room.conduction)
        caloric.enthalpies(temperatures, room.packed, gas.enthalpy, gas.middle, room.enthalpies)

    def _slopes(self, state: State, grid: "Grid", velocity: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Give the rates of change of all cells; the array is used again."""
        room, temperatures = self._room, state["temperature"].array
        room.rates[:] = 0.0
        for axis, spacing in enumerate(grid.spacing):
            stride = temperatures.strides[axis] // temperatures.itemsize
            _flow(
                temperatures.reshape(-1), room.packed, room.moles, room.mobility, room.conduction, room.enthalpies,
                stride, 1.0 / spacing, room.excess, room.fluxes,
            )  # fmt: skip
            if velocity is not None:
                _stir(velocity[axis], room.packed, stride, room.fluxes)
            _gain(room.fluxes, stride, 1.0 / spacing, room.rates)
        return room.rates

    def _put(self, state: State, packed: NDArray[np.float64]) -> None:
        """Give the state the mass fractions and the temperature of a stage."""
        caloric.temperatures(packed, self.gas.enthalpy, self.gas.middle, state["temperature"].array.reshape(-1))
        for row, name in zip(packed, self.names, strict=False):
            array = state[name].array
            array[...] = row.reshape(array.shape)

    def _euler_steps(self, state: State, grid: "Grid", dt: float) -> float:
        """Measure ``dt`` in the longest stable steps of Euler's method, the same on all ranks."""
        room, weight = self._room, self.gas.transport.weight
        local = state["temperature"]
        _fastest(room.mobility, weight, room.moles, room.conduction, room.excess)
        inside = (slice(local.halo, -local.halo),) * grid.ndim
        fastest = room.excess.reshape(local.array.shape)[inside].max()
        everyones = grid.collect(np.array([fastest]))
        return 2.0 * _SAFETY * float(everyones.max()) * sum(spacing**-2 for spacing in grid.spacing) * dt


class _Room:
    """Arrays for intermediate results; mass fractions come first in ``packed`` and its likes, the enthalpy last."""

    def __init__(self, species: int, cells: int) -> None:
        self.packed, self.start, self.last, self.before, self.slope, self.rates, self.fluxes = np.zeros(
            (7, species + 1, cells)
        )
        self.moles, self.mobility, self.enthalpies = np.zeros((3, species, cells))
        self.conduction, self.excess = np.zeros((2, cells))


def odd_stages(steps: float, dt: float) -> int:
    """Give the stages of RKL2 that replace so many of Euler's longest steps: odd, which damps best, and 3 or more."""
    stages = max(3, math.ceil(0.5 * (math.sqrt(9.0 + 16.0 * steps) - 1.0)))
    stages += 1 - stages % 2
    if not stages <= _MOST_STAGES:
        raise ConfigError(
            f"Half a step of transport, {dt:g} s, is {steps:.3g} times the longest stable one, which takes {stages} "
            f"stages; more than {_MOST_STAGES} are refused, as the splitting would have lost its accuracy long before: "
            f"set run.dt below {2.0 * dt * _MOST_STAGES**2 / 4.0 / steps:.2g}, or make the cells larger."
        )
    return stages


@njit(cache=True, nogil=True)
def _combine(mu, nu, here, there, last, before, start, rates, slope):
    """Put the next stage in the place of the one before the last."""
    rest = 1.0 - mu - nu
    for row in range(last.shape[0]):
        a, b, c, d, e = last[row], before[row], start[row], rates[row], slope[row]
        for i in range(a.size):
            b[i] = mu * a[i] + nu * b[i] + rest * c[i] + here * d[i] + there * e[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh(temperature, pressure, weight, reference, moles, mobility, conduction):
    """Turn diffusivities into r^2 D_k W_k / W, and the conductivity into r conductivity / reference."""
    species, block = weight.size, 256
    mean = np.empty(block)
    for first in range(0, temperature.size, block):
        count = min(block, temperature.size - first)
        mean[:] = 0.0
        for k in range(species):
            for i in range(count):
                mean[i] += moles[k, first + i] * weight[k]
        for i in range(count):
            ratio = pressure * mean[i] / (GAS_CONSTANT * temperature[first + i] * reference)
            conduction[first + i] *= ratio / reference
            mean[i] = ratio * ratio / mean[i]
        for k in range(species):
            for i in range(count):
                mobility[k, first + i] *= mean[i] * weight[k]


@njit(cache=True, nogil=True, error_model="numpy")
def _fastest(mobility, weight, moles, conduction, found):
    """Bound the diffusivities in mass coordinates, of species and of heat (heat capacity 2.5 R or more) [m2/s]."""
    for i in range(found.size):
        mean, fastest = 0.0, 0.0
        for k in range(weight.size):
            mean += moles[k, i] * weight[k]
        for k in range(weight.size):
            fastest = max(fastest, mobility[k, i] * mean / weight[k])
        found[i] = max(fastest, conduction[i] * mean / (2.5 * GAS_CONSTANT))


@njit(cache=True, nogil=True, error_model="numpy")
def _flow(temperature, packed, moles, mobility, conduction, enthalpies, stride, inverse, excess, fluxes):
    """Fluxes down the gradients through every cell's upper face along one axis, positive where the cell gains."""
    species, cells = moles.shape
    last = cells - stride
    heat = fluxes[species]
    excess[:] = 0.0
    half = 0.5 * inverse
    for k in range(species):
        x, d, flux = moles[k], mobility[k], fluxes[k]
        for i in range(last):
            flux[i] = half * (d[i] + d[i + stride]) * (x[i + stride] - x[i])
            excess[i] += flux[i]
    for i in range(last):
        heat[i] = half * (conduction[i] + conduction[i + stride]) * (temperature[i + stride] - temperature[i])
        excess[i] *= 0.5
    for k in range(species):
        y, h, flux = packed[k], enthalpies[k], fluxes[k]
        for i in range(last):
            flux[i] -= excess[i] * (y[i] + y[i + stride])
            heat[i] += 0.5 * (h[i] + h[i + stride]) * flux[i]


@njit(cache=True, nogil=True)
def _stir(velocity, packed, stride, fluxes):
    """Add what the gas carries through the faces."""
    for row in range(packed.shape[0]):
        values, flux = packed[row], fluxes[row]
        for i in range(values.size - stride):
            flux[i] -= 0.5 * velocity[i] * (values[i] + values[i + stride])


@njit(cache=True, nogil=True)
def _gain(fluxes, stride, inverse, out):
    for row in range(fluxes.shape[0]):
        flux, gain = fluxes[row], out[row]
        for i in range(stride, flux.size - stride):
            gain[i] += inverse * (flux[i] - flux[i - stride])
