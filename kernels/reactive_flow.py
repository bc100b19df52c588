"""Reactive flow: ignition and flames of an ideal-gas mixture at constant pressure, in 1 or 2 dimensions.

    Y_k' = transport + W_k w_k / density,    h' = transport,    density = p W / (R T)

Chemistry: detailed kinetics of a mechanism in Cantera's YAML, integrated in every cell (``kinetics.py``). Transport:
mixture-averaged diffusion and conduction, and stirring, in mass coordinates (``gas_flow.py``): cells keep their mass
and expand, which in one dimension is all that constant pressure makes of a flow, and in two a model of it.
``docs/kernels/reactive_flow.md`` says what that leaves out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.kernels import caloric, kinetics, rates
from coupler.kernels.blend import Blend
from coupler.kernels.gas_flow import Flow, gas_of
from coupler.kernels.mechanism import Mechanism, read_mechanism
from coupler.kernels.units import GAS_CONSTANT
from coupler.kernels.vortices import vortices
from coupler.operator import Operator

if TYPE_CHECKING:
    from coupler.grid import Grid

_HYDROGEN, _AIR = {"H2": 1.0}, {"O2": 1.0, "N2": 3.76}


class ReactiveFlow(Kernel):
    """Hot spots in a premixture, ignition and the flames that follow, by Strang splitting.

    Half the transport, the chemistry with the whole ``dt``, half the transport. Lengths are those the gas has in its
    fresh state. Edges that are not periodic let nothing through.

    Parameters
    ----------
    mechanism : str
        Name of a shipped mechanism or path of a file in Cantera's YAML.
    fuel, oxidizer : mapping of species to float
        Compositions by moles.
    equivalence_ratio : float
        Fuel per oxidizer, 1 where neither is left.
    stratification : float
        Relative amplitude of the equivalence ratio, a cosine along every axis; 0 is the same mixture everywhere.
    temperature, pressure : float
        Of the fresh gas [K, Pa].
    hot_temperature, radius : float
        At the centres of the hot spots [K], and where their excess has fallen to 1/e, in the unit of length [m].
    spots : sequence of positions
        Centres as shares of the box, from 0 to 1. A position with fewer numbers than axes is a line across the others;
        numbers beyond the axes are not looked at.
    random_spots, seed : int
        So many more at random places.
    stirring : float
        Greatest speed of a vortex in the box (four where it is periodic) [m/s]; in two dimensions only.
    pressure_jump : (float, float), optional
        Time [s] and factor: the first step that begins then compresses all gas at constant entropy.
    rtol, atol : float
        Tolerance of one step of the integrator that is the truth.

    Attributes
    ----------
    chemistry : Operator
        (temperature, mass fractions, pressure) -> (temperature, mass fractions) after dt in one cell. The mass of
        every element is conserved; the enthalpy is too, but is no linear sum. At tolerance an answer is wrong by 1 K
        and 0.1 %, species that reach 2 % by 0.1 %, the others, radicals, by 1 %, and each by 1e-5 of what it reaches
        while the fresh gas burns: radicals grow by a factor of 1e5 before heat is released, and who may miss that
        ignites at another time.

    Raises
    ------
    PluginError
        If a parameter means nothing.
    """

    halo = 1
    dimensions = (1, 2)

    def __init__(
        self,
        *,
        mechanism: str = "h2o2.yaml",
        fuel: Mapping[str, float] = _HYDROGEN,
        oxidizer: Mapping[str, float] = _AIR,
        equivalence_ratio: float = 1.0,
        stratification: float = 0.0,
        temperature: float = 1000.0,
        pressure: float = 101325.0,
        hot_temperature: float = 1300.0,
        radius: float = 5e-4,
        spots: Sequence[Sequence[float]] = ((0.5, 0.5),),
        random_spots: int = 0,
        seed: int = 1,
        stirring: float = 0.0,
        pressure_jump: Sequence[float] | None = None,
        rtol: float = 1e-6,
        atol: float = 1e-12,
    ) -> None:
        positive = {"equivalence_ratio": equivalence_ratio, "pressure": pressure, "radius": radius}
        _check_positive(**positive, rtol=rtol, atol=atol)
        self.gas = read_mechanism(mechanism)
        _check_temperatures(self.gas, temperature=temperature, hot_temperature=hot_temperature)
        if not 0.0 <= stratification < 1.0:
            raise PluginError(f"stratification = {stratification} must be from 0 to below 1: the ratio stays positive.")
        if not 0.0 <= stirring < math.inf:
            raise PluginError(f"stirring = {stirring} must be a speed >= 0 [m/s].")
        self.equivalence_ratio, self.stratification = equivalence_ratio, stratification
        self.temperature, self.pressure = temperature, pressure
        self.hot_temperature, self.radius, self.stirring = hot_temperature, radius, stirring
        self.spots = _spots(spots, random_spots, seed)
        self.pressure_jump = _jump(pressure_jump)
        self.blend = Blend(self.gas, fuel, oxidizer)
        self.fresh = self.blend.fractions(np.array(equivalence_ratio))
        self.density = pressure / (GAS_CONSTANT * temperature * float((self.fresh / self.gas.weights).sum()))
        self.species = tuple(_identifier(name) for name in self.gas.names)
        self.fields = (
            Field("temperature", unit="K", bounds=(150.0, 6000.0)),
            *(Field(name, bounds=(0.0, 1.0)) for name in self.species),
            Field("pressure", unit="Pa", bounds=(0.0, None)),
        )
        self._flow = Flow(gas_of(self.gas, self.density), self.species)
        self.rtol, self._tables = rtol, rates.tables(self.gas)
        self._atol = kinetics.absolute_tolerances(self.gas, 1e3 * rtol, atol)
        outputs, reached = ("temperature", *self.species), self._reached()
        self.chemistry = Operator(
            self.react,
            inputs=(*outputs, "pressure"),
            outputs=outputs,
            atol=(1.0, *np.maximum(1e-5 * reached, 1e-10)),
            rtol=(1e-3, *np.where(reached > 0.02, 1e-3, 1e-2)),
            conserved=self._elements(),
        )

    def react(self, inputs: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Let every cell react for ``dt`` at constant pressure: the truth of ``chemistry``; NaN where it fails.

        Parameters
        ----------
        inputs : ndarray (n, species + 2)
            Temperature [K], mass fractions, pressure [Pa].
        dt : float
            Time to advance by [s].

        Returns
        -------
        ndarray (n, species + 1)
            Temperature and mass fractions.

        Collective: no.
        """
        rows, pressure = np.ascontiguousarray(inputs[:, :-1]), inputs[:, -1].copy()
        outputs, steps = np.empty_like(rows), np.empty(len(rows), dtype=np.int64)
        kinetics.advance(rows, pressure, dt, self._tables, self.rtol, self._atol, outputs, steps)
        # The integrator leaves what has been used up at some -1e-15, below what a mass fraction can be.
        np.maximum(outputs[:, 1:], 0.0, out=outputs[:, 1:])
        return outputs

    def start(self, state: State, grid: "Grid") -> None:
        """Put hot spots into the fresh gas; the same numbers on any decomposition."""
        if self.stirring > 0.0:
            self._check_stirring(grid)
        cool = np.ones(grid.local_shape)
        for spot in self.spots:
            cool *= 1.0 - _product(
                grid, [self._bell(grid, axis, share) for axis, share in enumerate(spot[: grid.ndim])]
            )
        waves = _product(grid, [_wave(grid.centres(axis) / grid.length[axis]) for axis in range(grid.ndim)])
        ratios = self.equivalence_ratio * (1.0 + self.stratification * waves)
        state["temperature"].interior[...] = self.temperature + (self.hot_temperature - self.temperature) * (1.0 - cool)
        state["pressure"].interior[...] = self.pressure
        for name, values in zip(self.species, self.blend.fractions(ratios), strict=True):
            state[name].interior[...] = values

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        self._compress(state, dt)
        velocity = vortices(grid, self.stirring) if self.stirring > 0.0 else None
        self._flow.advance(state, grid, velocity, dt / 2)
        evaluate(self.chemistry, state, dt)
        self._flow.advance(state, grid, velocity, dt / 2)

    def _compress(self, state: State, dt: float) -> None:
        """Change the pressure once its time has come; the pressure itself tells whether that has been done."""
        if self.pressure_jump is None:
            return
        due, factor = self.pressure_jump
        pressures = state["pressure"].interior
        if state.time < due - 1e-6 * dt or pressures.flat[0] != self.pressure:
            return
        temperatures = state["temperature"].interior.reshape(-1)
        fractions = np.array([state[name].interior.reshape(-1) for name in self.species])
        caloric.compress(fractions, self.gas.thermo, self.gas.weights, factor, temperatures)
        state["temperature"].interior[...] = temperatures.reshape(pressures.shape)
        pressures[...] = self.pressure * factor

    def _bell(self, grid: "Grid", axis: int, share: float) -> NDArray[np.float64]:
        """Shape of a hot spot along one axis, scalar by scalar, so the blocks make no difference."""
        length = grid.length[axis]
        away = np.abs(grid.centres(axis) - share * length)
        if grid.periodic[axis]:
            away = np.minimum(away, length - away)
        return np.array([math.exp(-((distance / self.radius) ** 2)) for distance in away])

    def _check_stirring(self, grid: "Grid") -> None:
        """Refuse a vortex that the grid cannot carry without oscillations: cell Peclet numbers of 2 and more."""
        if grid.ndim == 1:
            raise PluginError(
                f"stirring = {self.stirring}: a gas of constant mass flux cannot be stirred in 1-D; set 0."
            )
        slowest = self._flow.slowest(self.temperature, self.pressure, self.fresh)
        largest = 2.0 * slowest / max(grid.spacing)
        if self.stirring > largest:
            raise PluginError(
                f"stirring = {self.stirring} m/s moves gas faster past cells of {max(grid.spacing):.3g} m than "
                f"diffusion ({slowest:.3g} m2/s) smooths it, so mass fractions would oscillate below 0: set it to "
                f"{largest:.3g} or less, or make the cells smaller."
            )

    def _reached(self) -> NDArray[np.float64]:
        """Find how much there is of every species, at most, while the fresh gas burns in one hot cell."""
        cell = np.array([[max(self.temperature, 1400.0), *self.fresh, self.pressure]])
        reached, elapsed = cell[0, 1:-1].copy(), 0.0
        for time in np.geomspace(1e-8, 1.0, 200):
            cell[:, :-1] = self.react(cell, time - elapsed)
            reached, elapsed = np.fmax(reached, cell[0, 1:-1]), time
        return reached

    def _elements(self) -> dict[str, dict[str, float]]:
        """Mass of every element as a sum over the mass fractions."""
        shares = self.gas.composition / self.gas.weights[:, None]
        return {
            element: {name: float(share) for name, share in zip(self.species, column, strict=True) if share > 0.0}
            for element, column in zip(self.gas.elements, (shares * self._atoms()).T, strict=True)
        }

    def _atoms(self) -> NDArray[np.float64]:
        """Masses of the elements, from those of the species, which may have weights of their own [kg/kmol]."""
        found, *_ = np.linalg.lstsq(self.gas.composition, self.gas.weights, rcond=None)
        return np.asarray(found)


def _check_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0.0 < value < math.inf:
            raise PluginError(f"{name} = {value} must be a positive number: the gas means nothing without.")


def _check_temperatures(gas: Mechanism, **temperatures: float) -> None:
    lowest, highest = gas.temperatures[:, 0].max(), gas.temperatures[:, 1].min()
    for name, value in temperatures.items():
        if not lowest <= value <= highest:
            raise PluginError(
                f"{name} = {value} K is outside of {lowest:g} to {highest:g} K, for which {gas.source} is made: "
                "choose one within."
            )


def _spots(spots: Sequence[Sequence[float]], random_spots: int, seed: int) -> list[list[float]]:
    if isinstance(random_spots, bool) or not isinstance(random_spots, int) or random_spots < 0:
        raise PluginError(f"random_spots = {random_spots!r} must be a whole number >= 0.")
    for spot in spots:
        if not (isinstance(spot, Sequence) and len(spot) > 0 and all(0.0 <= share <= 1.0 for share in spot)):
            raise PluginError(f"spots has {spot!r}: give every centre as shares of the box, as in [[0.5, 0.5]].")
    drawn = np.random.default_rng(seed).uniform(size=(random_spots, 2))
    return [*(list(map(float, spot)) for spot in spots), *drawn.tolist()]


def _jump(pressure_jump: Sequence[float] | None) -> tuple[float, float] | None:
    if pressure_jump is None:
        return None
    if len(pressure_jump) != 2 or not (0.0 <= pressure_jump[0] < math.inf and 0.0 < pressure_jump[1] < math.inf):
        raise PluginError(f"pressure_jump = {pressure_jump} must be a time >= 0 [s] and a positive factor.")
    return float(pressure_jump[0]), float(pressure_jump[1])


def _identifier(name: str) -> str:
    """Make a field's name of a species': CH2(S) becomes CH2_S."""
    plain = re.sub(r"[^0-9A-Za-z]+", "_", name.replace("+", "_plus").replace("-", "_minus")).strip("_")
    return plain if plain.isidentifier() else f"_{plain}"


def _wave(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([math.cos(2.0 * math.pi * place) for place in places])


def _product(grid: "Grid", along: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Multiply profiles along the first axes; the same along the others."""
    whole = np.ones(grid.local_shape)
    for axis, profile in enumerate(along):
        whole *= profile.reshape([-1 if other == axis else 1 for other in range(grid.ndim)])
    return whole
