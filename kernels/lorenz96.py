"""Two-scale Lorenz-96: K slow variables on a ring, each with J fast ones, which make a ring of K J of their own.

    X_k'   = -X_{k-1} (X_{k-2} - X_{k+1}) - X_k + F - (h c / b) sum_j Y_{j,k}
    Y_{j,k}' = -c b Y_{j+1,k} (Y_{j+2,k} - Y_{j-1,k}) - c Y_{j,k} + (h c / b) X_k,      Y_{J+1,k} = Y_{1,k+1}

E. N. Lorenz, Predictability: a problem partly solved, ECMWF seminar 1 (1996) 1, eqs. 2 and 3; with K = 8, J = 32,
h = 1, F = 20, b = c = 10 as in D. S. Wilks, Q. J. R. Meteorol. Soc. 131 (2005) 389. All is scaled; a unit of time is
about five days of weather.

A cell is a sector: one X and its J fast variables. What happens within it is the operator; what crosses its edges, and
the slow advection, is the cheap part. G. Strang, SIAM J. Numer. Anal. 5 (1968) 506 puts the two together.
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

if TYPE_CHECKING:
    from coupler.grid import Grid

Floats = NDArray[np.float64]


class Lorenz96(Kernel):
    """Many independent rings of sectors, by Strang splitting: half of what crosses the edges, the sectors, half.

    Sectors lie along the last axis, which must be periodic; a second axis in front of it holds members, systems that
    know nothing of each other. Both parts of the splitting leave the advection's energy, X^2 and Y^2, as it is.

    Parameters
    ----------
    J : int
        Fast variables per sector, at least 4.
    h, F, b, c : float
        Coupling, forcing, ratio of amplitudes and of speeds [1].
    substep : float
        Longest step of the Runge-Kutta method that is the truth; the fast variables turn within some 0.02.
    spinup : float
        Time before t = 0 in which the members leave their random start.
    seed : int
        Of the members' starts, 0 or more.

    Attributes
    ----------
    sector : Operator
        (x, y_1 ... y_J) -> the same after dt, in one sector without its neighbours. At tolerance the slow variable is
        wrong by 1e-3, 4 % of what the fast ones move it by in a step of 0.005, or the worst of the fast ones by 0.02,
        6 % of their standard deviation: independent errors of that size add less than 1 % to the variance of Y.

    Raises
    ------
    PluginError
        If a parameter is out of its range.
    """

    halo = 2
    dimensions = (1, 2)

    def __init__(
        self,
        *,
        J: int = 32,
        h: float = 1.0,
        F: float = 20.0,
        b: float = 10.0,
        c: float = 10.0,
        substep: float = 1e-3,
        spinup: float = 5.0,
        seed: int = 0,
    ) -> None:
        _check(J, seed, h=h, F=F, b=b, c=c, substep=substep, spinup=spinup)
        self.fast = tuple(f"y_{j}" for j in range(1, J + 1))
        self.fields = (Field("x"), *map(Field, self.fast))
        self.parameters = np.array([h * c / b, F, b * c, c])
        self.substep, self.spinup, self.seed = substep, spinup, seed
        names = ("x", *self.fast)
        self.sector = Operator(self.advance, inputs=names, outputs=names, atol=(1e-3, *[2e-2] * J), rtol=0.0)

    def advance(self, inputs: Floats, dt: float) -> Floats:
        """Advance every sector by ``dt`` as if it had no neighbours: the truth of ``sector``, (n, 1 + J) -> the same.

        Collective: no.
        """
        outputs = inputs.copy()
        _advance_sectors(outputs, self.parameters, dt, math.ceil(dt / self.substep * (1.0 - 1e-12)))
        return outputs

    def advance_rings(self, rings: Floats, duration: float) -> Floats:
        """Advance whole rings without any splitting, to start from and to compare with.

        Parameters
        ----------
        rings : ndarray (members, K, 1 + J)
            Every sector's X and its Y.
        duration : float
            Time to advance by.

        Returns
        -------
        ndarray (members, K, 1 + J)

        Collective: no.
        """
        members, sectors, columns = rings.shape
        slow, fast = rings[:, :, 0].copy(), rings[:, :, 1:].reshape(members, sectors * (columns - 1))
        steps = math.ceil(duration / self.substep * (1.0 - 1e-12))
        _advance_rings(slow, fast, self.parameters, duration, steps)
        return np.concatenate([slow[:, :, None], fast.reshape(members, sectors, columns - 1)], axis=2)

    def start(self, state: State, grid: "Grid") -> None:
        """Draw every member by its own number, and let it run for ``spinup``."""
        if not grid.periodic[-1]:
            raise PluginError("Sectors make a ring: set grid.periodic = true, or [false, true] for members x sectors.")
        first, last = (0, 1) if grid.ndim == 1 else (grid.start[0], grid.stop[0])
        rings = np.stack([self._draw(member, grid.shape[-1]) for member in range(first, last)])
        mine = self.advance_rings(rings, self.spinup)[:, grid.start[-1] : grid.stop[-1]]
        for column, field in enumerate(self.fields):
            state[field.name].interior[...] = mine[:, :, column].reshape(grid.local_shape)

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        self._cross(state, grid, dt / 2)
        evaluate(self.sector, state, dt)
        self._cross(state, grid, dt / 2)

    def _draw(self, member: int, sectors: int) -> Floats:
        random = np.random.default_rng((self.seed, member))
        ring = 0.1 * random.standard_normal((sectors, len(self.fields)))
        ring[:, 0] = 4.0 + 5.0 * random.standard_normal(sectors)
        return ring

    def _cross(self, state: State, grid: "Grid", dt: float) -> None:
        """Advance by what crosses the edges of sectors: the midpoint rule, two halo exchanges."""
        before = {name: state[name].interior.copy() for name in ("x", self.fast[0], *self.fast[-2:])}
        for share in (dt / 2, dt):
            grid.exchange(state)
            change = self._crossing(state)
            for name, old in before.items():
                state[name].interior[...] = old + share * change[name]

    def _crossing(self, state: State) -> dict[str, Floats]:
        """Give the time derivatives of that part, for the fields it changes."""
        _, F, bc, _ = self.parameters
        first, second, last_but_one, last = self.fast[0], self.fast[1], self.fast[-2], self.fast[-1]

        def at(name: str, shift: int) -> Floats:
            array, halo = state[name].array, self.halo
            own = array[(slice(halo, -halo),) * (array.ndim - 1)]
            return own[..., halo + shift : array.shape[-1] - halo + shift]

        beyond = at(first, 1)
        return {
            "x": -at("x", -1) * (at("x", -2) - at("x", 1)) - at("x", 0) + F,
            first: bc * at(second, 0) * at(last, -1),
            last_but_one: -bc * at(last, 0) * beyond,
            last: -bc * beyond * (at(second, 1) - at(last_but_one, 0)),
        }


def _check(J: int, seed: int, **parameters: float) -> None:
    if J < 4 or seed < 0:
        raise PluginError(
            f"J = {J} must be at least 4, for neighbours to touch at the edges only, and seed = {seed} >= 0."
        )
    for name, value in parameters.items():
        least_is_fine = name in ("h", "spinup", "F")
        if not (0 <= value < math.inf if least_is_fine else 0 < value < math.inf):
            raise PluginError(f"{name} = {value} must be a {'number >= 0' if least_is_fine else 'positive number'}.")


@njit(nogil=True)
def _sector_rates(sector, parameters, rates):
    """Time derivatives within one sector: x first, then its fast variables; nothing lies beyond either end."""
    coupling, bc, c = parameters[0], parameters[2], parameters[3]
    last = len(sector) - 1
    total = 0.0
    for j in range(1, last + 1):
        total += sector[j]
    rates[0] = -coupling * total
    for j in range(2, last - 1):
        rates[j] = -bc * sector[j + 1] * (sector[j + 2] - sector[j - 1])
    rates[1] = -bc * sector[2] * sector[3]
    rates[last - 1] = bc * sector[last] * sector[last - 2]
    rates[last] = 0.0
    for j in range(1, last + 1):
        rates[j] += coupling * sector[0] - c * sector[j]


@njit(nogil=True)
def _ring_rates(slow, fast, parameters, slow_rates, fast_rates):
    """Time derivatives of a whole ring."""
    coupling, F, bc, c = parameters[0], parameters[1], parameters[2], parameters[3]
    K, n = len(slow), len(fast)
    J = n // K
    for k in range(K):
        total = 0.0
        for j in range(k * J, (k + 1) * J):
            total += fast[j]
            advected = fast[(j + 1) % n] * (fast[(j + 2) % n] - fast[j - 1])
            fast_rates[j] = -bc * advected - c * fast[j] + coupling * slow[k]
        slow_rates[k] = -slow[k - 1] * (slow[k - 2] - slow[(k + 1) % K]) - slow[k] + F - coupling * total


@njit(cache=True, nogil=True)
def _advance_sectors(rows, parameters, duration, steps):
    """Advance rows in place by so many steps of the classical Runge-Kutta method."""
    dt = duration / steps
    columns = rows.shape[1]
    trial, rates, total = np.empty(columns), np.empty(columns), np.empty(columns)
    for row in rows:
        for _ in range(steps):
            trial[:] = row
            total[:] = 0.0
            for stage in range(4):
                _sector_rates(trial, parameters, rates)
                weight = dt / 6.0 if stage in (0, 3) else dt / 3.0
                ahead = dt if stage == 2 else dt / 2.0
                for i in range(columns):
                    total[i] += weight * rates[i]
                    trial[i] = row[i] + ahead * rates[i]
            for i in range(columns):
                row[i] += total[i]


@njit(cache=True, nogil=True)
def _advance_rings(slow, fast, parameters, duration, steps):
    """Advance whole rings in place by so many steps of the classical Runge-Kutta method."""
    dt = duration / max(steps, 1)
    K, n = slow.shape[1], fast.shape[1]
    x, y, dx, dy, sum_x, sum_y = np.empty(K), np.empty(n), np.empty(K), np.empty(n), np.empty(K), np.empty(n)
    for member in range(len(slow)):
        for _ in range(steps):
            x[:], y[:] = slow[member], fast[member]
            sum_x[:], sum_y[:] = 0.0, 0.0
            for stage in range(4):
                _ring_rates(x, y, parameters, dx, dy)
                weight = dt / 6.0 if stage in (0, 3) else dt / 3.0
                ahead = dt if stage == 2 else dt / 2.0
                sum_x += weight * dx
                sum_y += weight * dy
                x[:] = slow[member] + ahead * dx
                y[:] = fast[member] + ahead * dy
            slow[member] += sum_x
            fast[member] += sum_y
