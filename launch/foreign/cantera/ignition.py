"""The truth is a Cantera reactor at constant pressure, one per cell: hydrogen and air that ignite along a line.

Check and run it with Cantera installed (``pip install cantera``)::

    coupler check launch/foreign/cantera/ignition.py:Ignition --set run.dt=1e-6
    mpirun -n 2 coupler run launch/foreign/cantera/case.toml
"""

import math
from functools import cached_property

import numpy as np

from coupler import Field, Kernel, Operator
from coupler.errors import PluginError

SPECIES = ("H2", "H", "O", "O2", "OH", "H2O", "HO2", "H2O2", "N2")


class Ignition(Kernel):
    """Mass fractions and temperature: heat spreads here, reactors burn in Cantera.

    Reactor and network are built once, in the first call of each process, and set to another cell each time. Python
    calls them cell by cell and holds the GIL, so a rank's other threads stand still meanwhile: use more ranks.
    """

    fields = (
        Field("temperature", unit="K", bounds=(200, 4000)),
        *(Field(name, bounds=(0, 1)) for name in SPECIES),
    )
    dimensions = (1,)

    def __init__(self, *, mechanism: str = "h2o2.yaml", pressure: float = 101325.0, spread: float = 0.1) -> None:
        self.mechanism, self.pressure, self.spread = mechanism, pressure, spread
        names = ("temperature", *SPECIES)
        self.reaction = Operator(self.react, inputs=names, outputs=names, atol=(1.0, *[1e-6] * len(SPECIES)), rtol=1e-3)

    @cached_property
    def reactor(self):
        """The one reactor of this process. Cantera is imported here, so that who only looks at a case needs none."""
        try:
            import cantera as ct
        except ImportError as error:
            raise PluginError("Cantera is not installed, and it is the truth here: type pip install cantera") from error
        gas = ct.Solution(self.mechanism)
        unknown = [name for name in SPECIES if name not in gas.species_names]
        if unknown:
            raise PluginError(f"{self.mechanism} has no {', '.join(unknown)}: take a hydrogen mechanism like h2o2.yaml")
        return _Reactor(gas, ct)

    def react(self, inputs, dt):
        """The truth: (n, 10) -> (n, 10), cell by cell; NaN where the integration fails."""
        outputs = np.full_like(inputs, np.nan)
        for row, cell in enumerate(inputs):
            self.reactor.advance(cell, self.pressure, dt, outputs[row])
        return outputs

    def start(self, state, grid):
        """Two parts of hydrogen to one of oxygen in air, hotter at one end."""
        weights = {"H2": 2 * 2.016, "O2": 31.998, "N2": 3.76 * 28.014}
        for name, weight in weights.items():
            state[name].interior[...] = weight / sum(weights.values())
        place = [math.cos(math.pi * value / grid.length[0]) for value in grid.centres(0)]
        state["temperature"].interior[...] = 1100.0 + 150.0 * np.array(place)

    def step(self, state, grid, dt, evaluate):
        """Spread heat, then react."""
        grid.exchange(state)
        grid.reflect(state)
        heat = state["temperature"].array
        heat[1:-1] += self.spread * (heat[:-2] - 2.0 * heat[1:-1] + heat[2:])
        evaluate(self.reaction, state, dt)


class _Reactor:
    """A reactor and its network, used again for every cell."""

    def __init__(self, gas, ct) -> None:
        self.gas, self.failure = gas, ct.CanteraError
        self.places = [gas.species_index(name) for name in SPECIES]
        self.reactor = ct.IdealGasConstPressureReactor(gas, clone=False)
        self.network = ct.ReactorNet([self.reactor])

    def advance(self, cell, pressure, dt, answer):
        """Write the cell after ``dt`` into ``answer``; leave it as it is where the integration fails."""
        shares = np.zeros(self.gas.n_species)
        shares[self.places] = cell[1:]
        try:
            self.gas.TPY = cell[0], pressure, shares
            self.reactor.volume = 1.0  # it grew with the last cell, and its mass with it
            self.reactor.syncState()
            self.network.initial_time = 0.0
            self.network.reinitialize()
            self.network.advance(dt)
        except self.failure:
            return
        answer[0], answer[1:] = self.gas.T, np.clip(self.gas.Y[self.places], 0.0, 1.0)
