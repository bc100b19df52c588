"""Heat contents of ideal-gas mixtures, many cells at once: enthalpies from temperatures, and back.

Every species has two polynomials of degree 5 for its enthalpy, as NASA's seven coefficients give them (B. J. McBride,
S. Gordon, M. A. Reno, NASA TM 4513 (1993)): below and above a temperature of its own.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.kernels.units import GAS_CONSTANT


def heat_capacity(thermo: NDArray[np.float64], temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the heat capacity of one species at constant pressure [R], from its 15 numbers and temperatures (n,) [K]."""
    low, high = (np.polynomial.polynomial.polyval(temperatures, thermo[first : first + 5]) for first in (1, 8))
    return np.where(temperatures < thermo[0], low, high)


def enthalpy_polynomials(thermo: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the enthalpies of all species as polynomials of T, (species, 2, 6), ascending powers [J/kg/K^n].

    Parameters
    ----------
    thermo : ndarray (species, 15)
        Of a :class:`Mechanism`: the temperature between the ranges, seven coefficients below it, seven above.
    weights : ndarray (species,)
        Molar masses [kg/kmol].
    """
    ranges = thermo[:, 1:].reshape(-1, 2, 7)
    powers = np.concatenate([ranges[:, :, 5:6], ranges[:, :, :5] / np.arange(1, 6)], axis=2)
    return powers * (GAS_CONSTANT / weights)[:, None, None]


@njit(cache=True, nogil=True, error_model="numpy")
def enthalpies(temperature, packed, coefficients, middle, own_enthalpies):
    """Enthalpy of every species, and of the mixture into the last row of ``packed`` [J/kg]."""
    species = middle.size
    total = packed[species]
    total[:] = 0.0
    for k in range(species):
        low, high, switch, own, share = coefficients[k, 0], coefficients[k, 1], middle[k], own_enthalpies[k], packed[k]
        l0, l1, l2, l3, l4, l5 = low[0], low[1], low[2], low[3], low[4], low[5]
        h0, h1, h2, h3, h4, h5 = high[0], high[1], high[2], high[3], high[4], high[5]
        for i in range(temperature.size):
            t = temperature[i]
            below = l0 + t * (l1 + t * (l2 + t * (l3 + t * (l4 + t * l5))))
            above = h0 + t * (h1 + t * (h2 + t * (h3 + t * (h4 + t * h5))))
            own[i] = below if t < switch else above
            total[i] += share[i] * own[i]


@njit(cache=True, nogil=True, error_model="numpy")
def temperatures(packed, coefficients, middle, temperature):
    """Find the temperatures of given enthalpies by Newton's method from those that are there.

    Three steps: a stage changes them by tens of kelvin at most, and each step squares an error of 1 % of that.
    """
    species, block = middle.size, 256
    enthalpy, capacity = np.empty(block), np.empty(block)
    for first in range(0, temperature.size, block):
        count = min(block, temperature.size - first)
        for _ in range(3):
            enthalpy[:] = 0.0
            capacity[:] = 0.0
            for k in range(species):
                _add(coefficients[k], middle[k], count, packed[k, first:], temperature[first:], enthalpy, capacity)
            for i in range(count):
                temperature[first + i] += (packed[species, first + i] - enthalpy[i]) / capacity[i]


@njit(nogil=True, error_model="numpy")
def _add(coefficients, switch, count, share, temperature, enthalpy, capacity):
    low, high = coefficients[0], coefficients[1]
    l0, l1, l2, l3, l4, l5 = low[0], low[1], low[2], low[3], low[4], low[5]
    h0, h1, h2, h3, h4, h5 = high[0], high[1], high[2], high[3], high[4], high[5]
    for i in range(count):
        t = temperature[i]
        cold = t < switch
        c0, c1, c2 = l0 if cold else h0, l1 if cold else h1, l2 if cold else h2
        c3, c4, c5 = l3 if cold else h3, l4 if cold else h4, l5 if cold else h5
        enthalpy[i] += share[i] * (c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5)))))
        capacity[i] += share[i] * (c1 + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + t * 5.0 * c5))))


@njit(cache=True, nogil=True, error_model="numpy")
def compress(fractions, thermo, weights, ratio, temperature):
    """Find the temperatures after the pressure has changed by a factor, at constant entropy and composition.

    Cell by cell: (species, n) mass fractions and (n,) temperatures [K], which are replaced.
    """
    for i in range(temperature.size):
        start, t, wanted = 0.0, temperature[i], 0.0
        for k in range(weights.size):
            start += fractions[k, i] / weights[k] * _entropy(thermo[k], t)
            wanted += fractions[k, i] / weights[k] * math.log(ratio)
        for _ in range(20):
            gained, capacity = -start, 0.0
            for k in range(weights.size):
                gained += fractions[k, i] / weights[k] * _entropy(thermo[k], t)
                capacity += fractions[k, i] / weights[k] * _capacity(thermo[k], t)
            t *= math.exp((wanted - gained) / capacity)
        temperature[i] = t


@njit(nogil=True)
def _entropy(row, t):
    a = row[1:8] if t < row[0] else row[8:15]
    return a[0] * math.log(t) + t * (a[1] + t * (a[2] / 2.0 + t * (a[3] / 3.0 + t * a[4] / 4.0))) + a[6]


@njit(nogil=True)
def _capacity(row, t):
    a = row[1:8] if t < row[0] else row[8:15]
    return a[0] + t * (a[1] + t * (a[2] + t * (a[3] + t * a[4])))
