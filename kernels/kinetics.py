"""Reacting ideal gas in a cell at constant pressure: what chemistry does to temperature and mass fractions.

    dY_k/dt = w_k W_k / rho,   dT/dt = -sum_k h_k w_k / (rho cp),   rho = p / (R T sum_k Y_k / W_k)

with net molar production w_k from ``mass_action.py``, molar enthalpies h_k, molar masses W_k, and the heat capacity cp
of the mixture by mass. The Jacobian is analytic. The system is integrated by ``rosenbrock.py``; species behind the last
one that reacts keep their mass fractions and cost nothing (list inert ones last).

Outside of the range of their polynomials species have the values that the polynomials have there, as in Cantera. A
temperature that is not positive, or whatever is not finite, gives NaN. Mass fractions that transport made slightly
negative are taken as they are: rates are polynomials of them, and nothing is clipped.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.kernels import mass_action, rosenbrock
from coupler.kernels.borrow import borrowed
from coupler.kernels.mechanism import Mechanism
from coupler.kernels.rates import scratch
from coupler.kernels.units import GAS_CONSTANT

_REORDER = {"contract", "reassoc", "nsz"}  # see mass_action.py


def reacting(mechanism: Mechanism) -> int:
    """Count the species up to the last one that some reaction makes or consumes."""
    last = 0
    for reaction in mechanism.reactions:
        for name in {*reaction.reactants, *reaction.products}:
            if reaction.reactants.get(name, 0.0) != reaction.products.get(name, 0.0):
                last = max(last, mechanism.index(name) + 1)
    return last


def absolute_tolerances(mechanism: Mechanism, temperature: float, fraction: float) -> NDArray[np.float64]:
    """Give :func:`advance` its ``atol``: one for the temperature [K], one for every mass fraction."""
    return np.array([temperature] + [fraction] * reacting(mechanism))


@njit(cache=True, nogil=True, error_model="numpy")
def advance(rows, pressure, duration, tables, rtol, atol, out, steps):
    """Let many cells react for the same time at the constant pressure of each.

    Parameters
    ----------
    rows : ndarray (n, 1 + species)
        Temperature [K] and mass fractions; not written to.
    pressure : ndarray (n,)
        [Pa].
    duration : float
        [s], >= 0.
    tables : Tables
        Of :func:`rates.tables`.
    rtol : float
        Relative tolerance of one step.
    atol : ndarray (1 + reacting species,)
        Absolute tolerance of one step: [K], then mass fractions.
    out : ndarray (n, 1 + species)
        Receives what becomes of the rows; a row is NaN where that cannot be found.
    steps : ndarray of int64 (n,)
        Receives the number of steps tried.

    Collective: no. A row's result is bitwise the same in any batch.
    """
    size, species = atol.size, rows.shape[1] - 1
    s, work = scratch(tables), rosenbrock.workspace(atol.size)
    parameters = (borrowed(tables), borrowed(s))
    for row in range(rows.shape[0]):
        s.cell[0] = pressure[row]
        whole = pressure[row]
        for i in range(species):
            s.moles[i] = rows[row, 1 + i] * tables.shares[i]
            whole += rows[row, 1 + i]
        for i in range(size):
            work.y[i] = rows[row, i]
        steps[row] = rosenbrock.advance(_rhs, _jacobian, size, work, parameters, duration, rtol, atol)
        failed = not np.isfinite(whole) or np.isnan(work.y[0])
        for i in range(1 + species):
            out[row, i] = np.nan if failed else work.y[i] if i < size else rows[row, i]
    s.cell[0] = 0.0  # scratch is held until here


@njit(cache=True, nogil=True, error_model="numpy")
def derivatives(rows, pressure, tables, size, out, jacobians):
    """Evaluate the right-hand side (n, size) and its Jacobian (n, size, size), for tests and for other integrators."""
    s = scratch(tables)
    for row in range(rows.shape[0]):
        s.cell[0] = pressure[row]
        for i in range(rows.shape[1] - 1):
            s.moles[i] = rows[row, 1 + i] * tables.shares[i]
        _rhs(rows[row], (tables, s), out[row])
        _jacobian(rows[row], (tables, s), jacobians[row])


@njit(cache=True, nogil=True, error_model="numpy")
def production(temperatures, concentrations, tables, out):
    """Net molar production [kmol/(m3 s)] from temperatures (n,) [K] and concentrations (n, species) [kmol/m3]."""
    s = scratch(tables)
    for row in range(temperatures.size):
        for i in range(concentrations.shape[1]):
            s.c[i] = concentrations[row, i]
        mass_action.constants(temperatures[row], tables, s)
        mass_action.collide(temperatures[row], tables, s)
        mass_action.produce(tables, s)
        for i in range(concentrations.shape[1]):
            out[row, i] = s.w[i]


@njit(cache=True, nogil=True, error_model="numpy")
def mixture(temperatures, fractions, pressure, tables, weight, density, capacity, enthalpies):
    """Evaluate mixtures and the enthalpies of their species.

    Parameters
    ----------
    temperatures : ndarray (n,)
        [K].
    fractions : ndarray (n, species)
        Mass fractions.
    pressure : ndarray (n,)
        [Pa].
    tables : Tables
        Of :func:`rates.tables`.
    weight, density, capacity : ndarray (n,)
        Receive the mean molar mass [kg/kmol], the density [kg/m3] and the heat capacity [J/(kg K)].
    enthalpies : ndarray (n, species)
        Receives the enthalpies of the species [J/kg].

    Collective: no.
    """
    s = scratch(tables)
    for row in range(temperatures.size):
        T = temperatures[row]
        mass_action.thermodynamics(T, tables, s.cp, s.slope, s.h, s.g)
        moles, heat = 0.0, 0.0
        for i in range(fractions.shape[1]):
            share = fractions[row, i] * tables.shares[i]
            moles += share
            heat += share * s.cp[i]
            enthalpies[row, i] = s.h[i] * GAS_CONSTANT * T * tables.shares[i]
        weight[row] = 1.0 / moles
        density[row] = pressure[row] / (GAS_CONSTANT * T * moles)
        capacity[row] = GAS_CONSTANT * heat


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def _rhs(y, parameters, out):
    tables, s = parameters[0], parameters[1]
    T = y[0]
    moles = 0.0
    for i in range(out.size - 1):
        s.moles[i] = y[1 + i] * tables.shares[i]
    for i in range(s.moles.size):
        moles += s.moles[i]
    together = s.cell[0] / (GAS_CONSTANT * T)
    density = together / moles
    for i in range(s.moles.size):
        s.c[i] = density * s.moles[i]
    mass_action.constants(T, tables, s)
    mass_action.collide(T, tables, s)
    mass_action.produce(tables, s)
    heat, capacity = 0.0, 0.0
    for i in range(s.moles.size):
        heat += s.h[i] * s.w[i]
        capacity += s.cp[i] * s.c[i]
    s.cell[1], s.cell[2], s.cell[3] = density, together, capacity
    out[0] = -T * heat / capacity
    volume = 1.0 / density
    for i in range(out.size - 1):
        out[1 + i] = s.w[i] * tables.weights[i] * volume


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def _jacobian(y, parameters, out):
    """Call it right after ``_rhs`` at the same y: constants and concentrations are taken from there."""
    tables, s = parameters[0], parameters[1]
    T = y[0]
    mass_action.differentiate(T, tables, s)
    species, size = s.w.size, out.shape[0]
    density, together, capacity = s.cell[1], s.cell[2], s.cell[3]
    heat, bend, lean = 0.0, 0.0, 0.0
    for k in range(species):
        heat += T * s.h[k] * s.w[k]
        lean += s.cp[k] * s.w[k]
        bend += s.slope[k] * s.c[k]
    cool = heat / (capacity * capacity)
    for i in range(size):
        out[0, i] = 0.0
    for k in range(size - 1):
        along = 0.0  # what all concentrations do together, as the density changes them
        for i in range(species):
            along += s.slopes[k, i] * s.c[i]
        warm = s.warmed[k] - along / T
        mass = tables.weights[k] / density
        out[1 + k, 0] = mass * (warm + s.w[k] / T)
        lean += T * s.h[k] * warm
        dilute = along / together
        thin = (s.w[k] - along) / together
        for i in range(size - 1):
            out[1 + k, 1 + i] = (s.slopes[k, i] + thin) * (tables.weights[k] * tables.shares[i])
            out[0, 1 + i] += s.h[k] * (s.slopes[k, i] - dilute)
    out[0, 0] = -lean / capacity + cool * (bend - capacity / T)
    for i in range(size - 1):
        share = density * tables.shares[i]
        out[0, 1 + i] = share * (cool * (s.cp[i] - capacity / together) - T * out[0, 1 + i] / capacity)
