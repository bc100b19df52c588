"""Chemistry of gas cells by Cantera's CVODE and by SciPy, as their users would tune them for one cell after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cantera
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import odeint, solve_ivp

from coupler.kernels import kinetics
from coupler.kernels.mechanism import Mechanism
from coupler.kernels.mechanism_file import SHIPPED
from coupler.kernels.rates import tables

Rows = NDArray[np.float64]
LADDER = tuple(10.0**exponent for exponent in np.arange(-3.0, -9.5, -0.5))
# Absolute tolerance by the relative one: what is smaller may be wrong. CVODE with the adaptive
# preconditioner was never faster beyond the noise.
FLOORS = (1e-8, 1e-6)


@dataclass(frozen=True)
class Tuned:
    """A way to solve: all rows after a time step, and the relative tolerance in it."""

    solve: Callable[[Rows], Rows]
    rtol: float


def by_cantera(mechanism: str, pressure: float, dt: float, ladder: tuple[float, ...] = LADDER) -> Iterator[list[Tuned]]:
    """Yield, from loose to tight tolerance, the reactors of one network that is used again for every cell."""
    gas = cantera.Solution(str(SHIPPED / mechanism))
    for rtol in ladder:
        yield [
            Tuned(_reactor(gas, pressure, dt, rtol, floor, kind), rtol)
            for floor in FLOORS
            for kind in (cantera.IdealGasConstPressureReactor, cantera.IdealGasConstPressureMoleReactor)
        ]


def _reactor(
    gas: cantera.Solution, pressure: float, dt: float, rtol: float, floor: float, kind: type
) -> Callable[[Rows], Rows]:
    reactor = kind(gas, clone=False)
    net = cantera.ReactorNet([reactor])

    def solve(rows: Rows) -> Rows:
        out = np.empty_like(rows)
        net.rtol, net.atol = rtol, rtol * floor
        for row, after in zip(rows, out, strict=True):
            gas.TPY = row[0], pressure, row[1:]
            reactor.syncState()
            net.initial_time = 0.0
            net.reinitialize()
            net.advance(dt)
            after[0], after[1:] = gas.T, gas.Y
        return out

    return solve


def by_scipy(mechanism: Mechanism, pressure: float, dt: float, method: str) -> Iterator[list[Tuned]]:
    """Yield LSODA (by its quickest entry) or Radau, with a compiled right-hand side and an analytic Jacobian."""
    for rtol in LADDER:
        yield [Tuned(_scipy(mechanism, pressure, dt, rtol, floor, method), rtol) for floor in FLOORS]


def _scipy(
    mechanism: Mechanism, pressure: float, dt: float, rtol: float, floor: float, method: str
) -> Callable[[Rows], Rows]:
    packed, place, size = tables(mechanism), np.array([pressure]), 1 + kinetics.reacting(mechanism)
    f, jacobian = np.empty((1, size)), np.empty((1, size, size))
    full = np.empty((1, 1 + len(mechanism.names)))

    def rhs(_t: float, y: Rows) -> Rows:
        full[0, :size] = y
        kinetics.derivatives(full, place, packed, size, f, jacobian)
        return f[0].copy()

    def slopes(_t: float, y: Rows) -> Rows:
        full[0, :size] = y
        kinetics.derivatives(full, place, packed, size, f, jacobian)
        return jacobian[0].copy()

    def solve(rows: Rows) -> Rows:
        out = rows.copy()
        atol = np.array([rtol * 1e-3, *[rtol * floor] * (size - 1)])
        for row, after in zip(rows, out, strict=True):
            full[0] = row
            if method == "lsoda":
                after[:size] = odeint(rhs, row[:size], [0.0, dt], Dfun=slopes, rtol=rtol, atol=atol, tfirst=True)[1]
            else:
                after[:size] = solve_ivp(
                    rhs, (0.0, dt), row[:size], method="Radau", jac=slopes, rtol=rtol, atol=atol
                ).y[:, -1]
        return out

    return solve
