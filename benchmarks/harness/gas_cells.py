"""Cells of burning hydrogen and air: what a reactive flow asks its chemistry about, in their natural variety."""

import cantera
import numpy as np
from numpy.typing import NDArray

from coupler.kernels.mechanism_file import SHIPPED

PRESSURE = cantera.one_atm
AIR = "O2:1, N2:3.76"


def h2_air(mechanism: str = "h2o2.yaml", number: int = 100) -> NDArray[np.float64]:
    """Sample four ignitions (fresh, igniting, burnt) and a premixed flame (preheated, burning, mixed), half each.

    Returns
    -------
    ndarray (n, 1 + species)
        Temperature [K] and mass fractions, at ``PRESSURE``, n close to ``number``.
    """
    gas = cantera.Solution(str(SHIPPED / mechanism))
    fires = [
        _ignition(gas, temperature, ratio)
        for temperature, ratio in ((1000, 1.0), (1200, 1.0), (1400, 0.5), (1100, 2.0))
    ]
    paths = [*((fire, number // 8) for fire in fires), (_flame(gas), number // 2)]
    return np.vstack([path[np.linspace(0, len(path) - 1, points).astype(int)] for path, points in paths])


def _mix(gas: cantera.Solution, temperature: float, ratio: float) -> None:
    gas.set_equivalence_ratio(ratio, "H2", AIR)
    gas.TP = temperature, PRESSURE


def _ignition(gas: cantera.Solution, temperature: float, ratio: float) -> NDArray[np.float64]:
    """Follow a cell through its ignition, one row per step of CVODE, so that rows are dense where much happens."""
    _mix(gas, temperature, ratio)
    net = cantera.ReactorNet([cantera.IdealGasConstPressureReactor(gas, clone=False)])
    net.rtol, net.atol = 1e-9, 1e-15
    rows = []
    while net.time < 2e-3:
        net.step()
        rows.append((gas.T, *gas.Y))
    return np.maximum(rows, 0.0)


def _flame(gas: cantera.Solution) -> NDArray[np.float64]:
    """Solve for a free flame at 300 K; its grid is fine where the flame is."""
    _mix(gas, 300.0, 1.0)
    flame = cantera.FreeFlame(gas, width=0.02)
    flame.set_refine_criteria(ratio=3, slope=0.07, curve=0.14)
    flame.solve(loglevel=0, auto=True)
    return np.maximum(np.column_stack([flame.T, flame.Y.T]), 0.0)
