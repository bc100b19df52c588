"""Mixture-averaged transport of ideal gases: viscosity, heat conduction and diffusion from molecular data.

Pure gases by kinetic theory (R. J. Kee, M. E. Coltrin, P. Glarborg, "Chemically Reacting Flow", Wiley 2003, ch. 12):
Chapman-Enskog viscosities and binary diffusion with the collision integrals of ``collisions.py``, conductivities with
the internal degrees of freedom of Mason & Monchick and Parker's rotational relaxation. Mixtures by Wilke's rule
(viscosity), the mean of Mathur et al. (conductivity) and Curtiss & Hirschfelder's mixture-averaged diffusion: what
Cantera calls ``mixture-averaged``, with molar gradients and without thermal diffusion.

What depends on the temperature is fitted once, as polynomials of degree 6 in x = (T - 1000) / (T + 1000) [T in K],
nearly the logarithm of T but made of operations that are bitwise the same in any vector width.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.kernels import caloric, collisions
from coupler.kernels.mechanism import Mechanism
from coupler.kernels.units import AVOGADRO, BOLTZMANN, GAS_CONSTANT

_VACUUM = 8.8541878128e-12  # permittivity, F/m
_DEGREE = 6
_ROTATIONS = {"atom": 0.0, "linear": 1.0, "nonlinear": 1.5}  # heat capacity of rotation [R]
# Share of the species itself among those it diffuses into: gives self-diffusion, not 0/0, where it is alone.
_ITSELF = 1e-12


@dataclass(frozen=True)
class Transport:
    """Fitted transport of the species, ascending powers of x = (T - 1000) / (T + 1000).

    Parameters
    ----------
    weight : ndarray (species,)
        Molar masses [kg/kmol].
    viscosity : ndarray (species, 7)
        Of sqrt(viscosity / sqrt(T)) [sqrt(Pa s / sqrt(K))].
    conductivity : ndarray (species, 7)
        Of conductivity / sqrt(T) [W/(m K^1.5)].
    resistance : ndarray (species, species, 7)
        Of T^1.5 / (pressure * binary diffusivity) [K^1.5/(Pa m2/s)], symmetric.
    """

    weight: NDArray[np.float64]
    viscosity: NDArray[np.float64]
    conductivity: NDArray[np.float64]
    resistance: NDArray[np.float64]


def fit(mechanism: Mechanism, temperatures: NDArray[np.float64]) -> Transport:
    """Fit the transport of pure gases and of pairs over a range of temperatures.

    Parameters
    ----------
    mechanism : Mechanism
        With transport data.
    temperatures : ndarray (n,)
        Where to fit [K]: n of 50 or so, over all of the range that is met.

    Returns
    -------
    Transport

    Raises
    ------
    PluginError
        If a species has no transport data.

    Collective: no.
    """
    for name, geometry in zip(mechanism.names, mechanism.geometry, strict=True):
        if geometry not in _ROTATIONS:
            raise PluginError(
                f'{mechanism.source}: species "{name}" has no transport data, so how it diffuses is not known. '
                "Give it a section transport with geometry, diameter and well-depth."
            )
    number, roots = len(mechanism.names), np.sqrt(temperatures)[:, None]
    viscosity = np.column_stack([_viscosity(mechanism, i, temperatures) for i in range(number)])
    conductivity = np.column_stack([_conductivity(mechanism, i, temperatures) for i in range(number)])
    drag = [
        [temperatures**1.5 / _diffusivity(mechanism, i, j, temperatures) for j in range(number)] for i in range(number)
    ]
    return Transport(
        weight=mechanism.weights,
        viscosity=_polynomials(temperatures, np.sqrt(viscosity / roots)),
        conductivity=_polynomials(temperatures, conductivity / roots),
        resistance=_polynomials(temperatures, np.moveaxis(np.array(drag), -1, 0)),
    )


def _viscosity(mechanism: Mechanism, i: int, temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Viscosity of a pure gas [Pa s]."""
    reduced, dipole = BOLTZMANN * temperatures / mechanism.well_depth[i], _reduced_dipole(mechanism, i, i)
    mass = mechanism.weights[i] / AVOGADRO
    area = np.pi * mechanism.diameter[i] ** 2 * collisions.omega22(reduced, dipole)
    return 5.0 / 16.0 * np.sqrt(np.pi * mass * BOLTZMANN * temperatures) / area


def _diffusivity(mechanism: Mechanism, i: int, j: int, temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pressure times binary diffusivity [Pa m2/s]."""
    induction = _induction(mechanism, i, j)
    depth = np.sqrt(mechanism.well_depth[i] * mechanism.well_depth[j]) * induction**2
    diameter = 0.5 * (mechanism.diameter[i] + mechanism.diameter[j]) * induction ** (-1.0 / 6.0)
    mass = mechanism.weights[i] * mechanism.weights[j] / (mechanism.weights[i] + mechanism.weights[j]) / AVOGADRO
    integral = collisions.omega11(BOLTZMANN * temperatures / depth, _reduced_dipole(mechanism, i, j))
    speed = 3.0 / 16.0 * np.sqrt(2.0 * np.pi / mass) * (BOLTZMANN * temperatures) ** 1.5
    return speed / (np.pi * diameter**2 * integral)


def _conductivity(mechanism: Mechanism, i: int, temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heat conductivity of a pure gas [W/(m K)]: translation, rotation and the other internal degrees of freedom."""
    weight, depth = mechanism.weights[i], mechanism.well_depth[i]
    rotation = _ROTATIONS[mechanism.geometry[i]]
    viscosity = _viscosity(mechanism, i, temperatures)
    internal = weight / (GAS_CONSTANT * temperatures) * _diffusivity(mechanism, i, i, temperatures) / viscosity
    relaxation = mechanism.rotational_relaxation[i] * _parker(298.0, depth) / _parker(temperatures, depth)
    exchange = 2.0 / np.pi * (2.5 - internal) / (relaxation + 2.0 / np.pi * (5.0 / 3.0 * rotation + internal))
    translational = 2.5 * (1.0 - exchange * rotation / 1.5)
    rotational = internal * (1.0 + exchange)
    vibration = caloric.heat_capacity(mechanism.thermo[i], temperatures) - 2.5 - rotation
    return viscosity * GAS_CONSTANT / weight * (translational * 1.5 + rotational * rotation + internal * vibration)


def _parker(temperature, depth):
    inverse = depth / (BOLTZMANN * temperature)
    return 1.0 + np.pi**1.5 * (0.5 * inverse**0.5 + inverse**1.5) + (0.25 * np.pi**2 + 2.0) * inverse


def _reduced_dipole(mechanism: Mechanism, i: int, j: int) -> float:
    """Reduced dipole moment delta* of a pair."""
    diameter = 0.5 * (mechanism.diameter[i] + mechanism.diameter[j])
    depth = np.sqrt(mechanism.well_depth[i] * mechanism.well_depth[j])
    return float(0.5 * mechanism.dipole[i] * mechanism.dipole[j] / (4.0 * np.pi * _VACUUM * depth * diameter**3))


def _induction(mechanism: Mechanism, i: int, j: int) -> float:
    """Correction xi for a polar molecule that meets one that is not; 1 where they are alike."""
    if (mechanism.dipole[i] > 0.0) == (mechanism.dipole[j] > 0.0):
        return 1.0
    polar, other = (i, j) if mechanism.dipole[i] > 0.0 else (j, i)
    moment = mechanism.dipole[polar] ** 2 / (
        4.0 * np.pi * _VACUUM * mechanism.diameter[polar] ** 3 * mechanism.well_depth[polar]
    )
    polarizability = mechanism.polarizability[other] / mechanism.diameter[other] ** 3
    return float(
        1.0 + 0.25 * polarizability * moment * np.sqrt(mechanism.well_depth[polar] / mechanism.well_depth[other])
    )


def _polynomials(temperatures: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit every column of values (n, ...) with equal relative weight: (..., 7)."""
    places = (temperatures - 1000.0) / (temperatures + 1000.0)
    columns = values.reshape(len(values), -1).T
    fits = [np.polynomial.polynomial.polyfit(places, column, _DEGREE, w=1.0 / column) for column in columns]
    return np.array(fits, dtype=np.float64).reshape(*values.shape[1:], _DEGREE + 1)


@njit(cache=True, nogil=True, error_model="numpy")
def mix(temperature, fractions, pressure, weight, conductivity, resistance, moles, diffusivity, conduction):
    """Evaluate the mixture-averaged transport of many cells.

    Parameters
    ----------
    temperature : ndarray (n,)
        [K].
    fractions : ndarray (species, n)
        Mass fractions.
    pressure : float
        [Pa].
    weight, conductivity, resistance : ndarray
        Of a :class:`Transport`.
    moles : ndarray (species, n)
        Receives the mole fractions.
    diffusivity : ndarray (species, n)
        Receives the mixture-averaged diffusivities, to be used with molar gradients [m2/s].
    conduction : ndarray (n,)
        Receives the heat conductivity [W/(m K)].

    Collective: no. Every cell has the same bits wherever it stands.
    """
    species, block = weight.size, 128
    place, root, sums, means = np.empty(block), np.empty(block), np.empty(block), np.empty(block)
    x, drag = np.empty((species, block)), np.empty((species, block))
    for first in range(0, temperature.size, block):
        count = min(block, temperature.size - first)
        for i in range(count):
            t = temperature[first + i]
            place[i] = (t - 1000.0) / (t + 1000.0)
            root[i] = math.sqrt(t)
            sums[i] = 0.0
        for k in range(species):
            share = 1.0 / weight[k]
            for i in range(count):
                x[k, i] = fractions[k, first + i] * share
                sums[i] += x[k, i]
        for i in range(count):
            sums[i] = 1.0 / sums[i]
        for k in range(species):
            for i in range(count):
                x[k, i] *= sums[i]
                moles[k, first + i] = x[k, i]
        sums[:] = 0.0
        means[:] = 0.0
        for k in range(species):
            _conduct(conductivity[k], count, place, x[k], sums, means)
            _resist(resistance[k, k], count, place, drag[k])
        for k in range(species):
            for j in range(k):
                _rub(resistance[k, j], count, place, x[k], x[j], drag[k], drag[j])
        for i in range(count):
            conduction[first + i] = 0.5 * root[i] * (sums[i] + 1.0 / means[i])
            root[i] *= temperature[first + i] / pressure
        for k in range(species):
            for i in range(count):
                diffusivity[k, first + i] = (1.0 - fractions[k, first + i] + _ITSELF) * root[i] / drag[k, i]


# Each takes its coefficients out of memory before the loop: in it, they might have been written to, and nothing would
# be vectorised.
@njit(nogil=True, error_model="numpy")
def _conduct(c, count, place, x, sums, means):
    c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    for i in range(count):
        p = place[i]
        value = c0 + p * (c1 + p * (c2 + p * (c3 + p * (c4 + p * (c5 + p * c6)))))
        sums[i] += x[i] * value
        means[i] += x[i] / value


@njit(nogil=True, error_model="numpy")
def _resist(c, count, place, drag):
    c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    for i in range(count):
        p = place[i]
        drag[i] = _ITSELF * (c0 + p * (c1 + p * (c2 + p * (c3 + p * (c4 + p * (c5 + p * c6))))))


@njit(nogil=True, error_model="numpy")
def _rub(c, count, place, x, other_x, drag, other_drag):
    c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    for i in range(count):
        p = place[i]
        value = c0 + p * (c1 + p * (c2 + p * (c3 + p * (c4 + p * (c5 + p * c6)))))
        drag[i] += other_x[i] * value
        other_drag[i] += x[i] * value


def viscosity(transport: Transport, temperature: float, moles: NDArray[np.float64]) -> float:
    """Viscosity of a mixture by Wilke's rule [Pa s], from mole fractions (species,) at a temperature [K]."""
    place = (temperature - 1000.0) / (temperature + 1000.0)
    roots = temperature**0.25 * np.polynomial.polynomial.polyval(place, transport.viscosity.T)
    weight = transport.weight
    ratio = (1.0 + roots[:, None] / roots * (weight / weight[:, None]) ** 0.25) ** 2
    crowding = ratio / np.sqrt(8.0 * (1.0 + weight[:, None] / weight))
    return float(np.sum(moles * roots**2 / (crowding @ moles)))
