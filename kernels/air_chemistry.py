"""Air pollution in 1 or 2 dimensions: the chemistry POLLU, carried by a wind, under a sun that rises and sets.

    c' + div(u c) = D laplace(c) + R(c, sun) + E          c: mole fractions of 20 species [ppm]

POLLU: 25 reactions of ozone, nitrogen oxides, organics and sulphur in the lower air. J. G. Verwer, "Gauss-Seidel
iteration for stiff ODEs from chemical kinetics", SIAM J. Sci. Comput. 15 (1994) 1243; problem POLLU of F. Mazzia,
C. Magherini, "Test Set for Initial Value Problem Solvers", release 2.4 (2008). Time is in minutes, length in km. The
eight reactions that light drives go at the test set's rate times ``sun``, a field that the step sets from the time.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError, did_you_mean
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.kernels import elimination, rosenbrock
from coupler.kernels.pollu import BACKGROUND, CONSERVED, PRODUCTS, RADICALS, REACTIONS, SPECIES
from coupler.kernels.wind import HALO, Wind, carry
from coupler.operator import Operator

if TYPE_CHECKING:
    from coupler.grid import Grid


DAY = 1440.0
# A molecule in a cubic centimetre [ppm]. Less is none: what dies out by night would be smaller than anything that was
# trained on in every step.
LEAST = 4e-14


class AirChemistry(Kernel):
    """Strang splitting: half the wind, half the emissions, the whole chemistry, half the emissions, half the wind.

    Parameters
    ----------
    wind, eddies, diffusivity : float
        Mean wind along the first axis and largest cross-wind of the eddies [km/min]; mixing [km2/min].
    waves : (int, int)
        Their number along each axis.
    emissions : mapping of species to float
        What the middle of every town gives off [ppm/min]. Towns lie in a row in the middle of the second axis.
    towns : int
        How many, equally spaced along the first axis.
    latitude, declination : float
        Of the place and of the sun [degrees]; 23.4 is midsummer.
    start_time : float
        Local solar time where the first axis starts, at t = 0 [min after midnight].
    time_across : float
        By how much local solar time is later at the end of the first axis [min]; 1440 goes once around the world.
    sunshine : float, optional
        The sun at this strength for ever: 1 is the test set.
    rtol, atol : float
        Tolerance of one step of the integrator that is the truth [1, ppm].

    Attributes
    ----------
    reaction : Operator
        (20 species, sun) -> 20 species after dt in one cell; the step asks with nothing of ``PRODUCTS`` there. At
        tolerance an answer is wrong by 1 % plus 1e-6 ppm of what is counted in ppb, 1e-9 ppm of the radicals, 1e-10 of
        O3P and 1e-12 of O1D: what nobody measures. Nitrogen, carbon and sulphur are conserved.

    Raises
    ------
    PluginError
        If a parameter means nothing or a species is unknown.
    """

    fields = (*(Field(name, unit="ppm", bounds=(0, None)) for name in SPECIES), Field("sun", bounds=(0, 1)))
    halo = HALO
    dimensions = (1, 2)

    def __init__(
        self,
        *,
        wind: float = 0.6,
        eddies: float = 0.3,
        diffusivity: float = 1.0,
        waves: tuple[int, int] = (2, 1),
        emissions: Mapping[str, float] | None = None,
        towns: int = 3,
        latitude: float = 45.0,
        declination: float = 23.4,
        start_time: float = 240.0,
        time_across: float = 0.0,
        sunshine: float | None = None,
        rtol: float = 1e-3,
        atol: float = 1e-10,
    ) -> None:
        self.emissions = {"NO": 2e-4, "HCHO": 1e-4, "ALD": 5e-5} if emissions is None else dict(emissions)
        _check(
            wind=wind >= 0, eddies=eddies >= 0, diffusivity=diffusivity >= 0, rtol=rtol > 0, atol=atol > 0,
            towns=towns >= 0, waves=len(waves) == 2 and min(waves) > 0, sunshine=sunshine is None or 0 <= sunshine <= 1,
            start_time=math.isfinite(start_time), time_across=math.isfinite(time_across), latitude=abs(latitude) <= 90,
            declination=abs(declination) <= 23.5, emissions=min(self.emissions.values(), default=0.0) >= 0,
        )  # fmt: skip
        for name in self.emissions:
            if name not in SPECIES:
                raise PluginError(f'emissions name "{name}", which is no species.{did_you_mean(name, SPECIES)}')
        self.wind = Wind(float(wind), float(eddies), (waves[0], waves[1]), float(diffusivity))
        self.towns, self.sunshine = towns, sunshine
        self.start_time, self.time_across = start_time, time_across
        self.turn = [math.radians(latitude), math.radians(declination)]
        self.rtol, self.atol = rtol, np.full(len(SPECIES), atol)
        measured = {**dict.fromkeys(SPECIES, 1e-6), **dict.fromkeys(RADICALS, 1e-9), "O3P": 1e-10, "O1D": 1e-12}
        self.reaction = Operator(
            self.react,
            inputs=(*SPECIES, "sun"),
            outputs=SPECIES,
            atol=[measured[name] for name in SPECIES],
            rtol=1e-2,
            conserved=CONSERVED,
        )

    def react(self, inputs: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Integrate POLLU over ``dt`` [min] in every cell: the truth of ``reaction``; NaN where it fails.

        Parameters
        ----------
        inputs : ndarray (n, 21)
            The species [ppm], and how strong the sun is, in [0, 1].
        dt : float
            Time to advance by [min].

        Returns
        -------
        ndarray (n, 20)

        Collective: no.
        """
        outputs = np.empty((len(inputs), len(SPECIES)))
        _advance(inputs, dt, self.rtol, self.atol, outputs, np.empty(len(inputs), dtype=np.int64))
        # Radicals that die at sunset undershoot zero by 1e-5 of atol; NaN stays.
        return np.maximum(outputs, 0.0, out=outputs)

    def start(self, state: State, grid: "Grid") -> None:
        """Begin with the test set's air, its nitrogen oxide between a tenth in the open and all of it in the towns."""
        place = self._towns(grid)
        for name, value in BACKGROUND.items():
            state[name].interior[...] = value * (0.1 + 0.9 * place if name == "NO" else 1.0)
        self._shine(state, grid, 0.0)

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        carry(state, grid, self.wind, SPECIES, dt / 2)
        self._emit(state, grid, dt / 2)
        self._shine(state, grid, state.time + dt / 2)
        # No reaction uses these, so the operator is asked what is made of them only: what has piled up so far would
        # soon be out of any range that was trained on.
        before = {name: state[name].interior.copy() for name in PRODUCTS}
        for name in PRODUCTS:
            state[name].interior[...] = 0.0
        evaluate(self.reaction, state, dt)
        for name in SPECIES:
            values = state[name].interior
            values[values < LEAST] = 0.0
        for name, old in before.items():
            state[name].interior[...] += old
        self._emit(state, grid, dt / 2)
        carry(state, grid, self.wind, SPECIES, dt / 2)

    def sun(self, grid: "Grid", time: float) -> NDArray[np.float64]:
        """Give the sine of the sun's height over the horizon, or 0, at a time [min]: (local_shape[0],), in [0, 1]."""
        place, tilt = self.turn
        values = np.empty(grid.local_shape[0])
        for i, centre in enumerate(grid.centres(0)):
            minute = self.start_time + time + self.time_across * float(centre) / grid.length[0]
            hour_angle = 2.0 * math.pi * (minute / DAY - 0.5)
            height = math.sin(place) * math.sin(tilt) + math.cos(place) * math.cos(tilt) * math.cos(hour_angle)
            values[i] = max(height, 0.0) if self.sunshine is None else self.sunshine
        return values

    def _shine(self, state: State, grid: "Grid", time: float) -> None:
        state["sun"].interior[...] = self.sun(grid, time).reshape(-1, *[1] * (grid.ndim - 1))

    def _emit(self, state: State, grid: "Grid", dt: float) -> None:
        place = self._towns(grid)
        for name, rate in self.emissions.items():
            state[name].interior[...] += dt * rate * place

    def _towns(self, grid: "Grid") -> NDArray[np.float64]:
        """Shape of the towns on this rank's cells: 1 in their middles, 0 in the open; scalar by scalar."""
        along = [math.sin(math.pi * self.towns * value / grid.length[0]) ** 8 for value in grid.centres(0)]
        if grid.ndim == 1:
            return np.array(along)
        return np.outer(along, [math.sin(math.pi * value / grid.length[1]) ** 8 for value in grid.centres(1)])


def _check(**fine: bool) -> None:
    for name, is_fine in fine.items():
        if not is_fine:
            raise PluginError(f"{name} is not what its description allows: see docs/kernels/air_chemistry.md.")


def _places(side: str, count: int) -> list[int]:
    named = [SPECIES.index(name) for name in side.split()]
    return named + [-1] * (count - len(named))


_REACTANTS = np.array([_places(reaction.reactants, 2) for reaction in REACTIONS])
_PRODUCTS = np.array([_places(reaction.products, 3) for reaction in REACTIONS])
_RATES = np.array([reaction.rate for reaction in REACTIONS])
_LIGHT = np.array([reaction.light for reaction in REACTIONS])
_SIZE = len(SPECIES)


def _slopes():
    """Which rate changes with which species: rows of (species, by which, reaction, other reactant or -1, how many)."""
    slopes: Counter[tuple[int, int, int, int]] = Counter()
    for reaction, (used, made) in enumerate(zip(_REACTANTS, _PRODUCTS, strict=True)):
        for by, other in (used, used[::-1]):
            if by < 0:
                continue
            slopes.update((place, by, reaction, other) for place in made if place >= 0)
            slopes.subtract((place, by, reaction, other) for place in used if place >= 0)
    return np.array([(*which, count) for which, count in slopes.items() if count])


_SLOPES = _slopes()


def _pattern():
    """Which species' rates change with which: 94 of (20, 20) with what fills in."""
    pattern = np.zeros((_SIZE, _SIZE), dtype=bool)
    pattern[_SLOPES[:, 0], _SLOPES[:, 1]] = True
    return pattern


@njit(nogil=True)
def _rhs(y, rates, out):
    out[:] = 0.0
    for number in range(rates.size):
        first, second = _REACTANTS[number, 0], _REACTANTS[number, 1]
        speed = rates[number] * y[first]
        if second >= 0:
            speed *= y[second]
        _count(number, speed, out)


@njit(nogil=True)
def _jacobian(y, rates, out):
    out[:] = 0.0
    for number in range(_SLOPES.shape[0]):
        reaction, other = _SLOPES[number, 2], _SLOPES[number, 3]
        slope = rates[reaction] if other < 0 else rates[reaction] * y[other]
        out[_SLOPES[number, 0], _SLOPES[number, 1]] += _SLOPES[number, 4] * slope


@njit(nogil=True)
def _count(number, speed, out):
    """Take what a reaction uses and add what it makes."""
    for place in _REACTANTS[number]:
        if place >= 0:
            out[place] -= speed
    for place in _PRODUCTS[number]:
        if place >= 0:
            out[place] += speed


_PLAN = elimination.plan(_pattern())


@njit(nogil=True, error_model="numpy")
def _factor(jac, shift, lu, size):
    elimination.factor(_PLAN, jac, shift, lu)


@njit(nogil=True, error_model="numpy")
def _solve(lu, b, size):
    elimination.solve(_PLAN, lu, b)


@njit(cache=True, nogil=True, error_model="numpy")
def _advance(rows, duration, rtol, atol, out, steps):
    for row in range(rows.shape[0]):
        rates = _RATES.copy()
        for number in range(rates.size):
            if _LIGHT[number]:
                rates[number] *= rows[row, _SIZE]
        one = slice(row, row + 1)
        rosenbrock.integrate(
            _rhs, _jacobian, _SIZE, rows[one], rates, duration, rtol, atol, out[one], steps[one], _factor, _solve
        )
