"""Gas kinetics beside Cantera: production rates of the mechanisms it ships, and when hydrogen ignites."""

from pathlib import Path
from typing import TYPE_CHECKING

import cantera
import numpy as np
import pytest

from coupler.kernels import kinetics, rates
from coupler.kernels.mechanism import read_mechanism
from coupler.kernels.mechanism_file import SHIPPED
from tests.validation.references import reference

if TYPE_CHECKING:
    from tests.validation.conftest import Agrees

DATA = Path(cantera.__file__).parent / "data"


@pytest.mark.validation
@pytest.mark.parametrize("name", ["gri30.yaml", "gri30_highT.yaml", "ohn.yaml", "h2o2.yaml"])
def test_production_rates_of_canteras_mechanisms_are_canteras(agrees: "Agrees", name: str) -> None:
    mechanism, gas = read_mechanism(DATA / name), cantera.Solution(name)
    rng, species = np.random.default_rng(1), len(mechanism.names)
    temperatures = rng.uniform(300.0, 3000.0, 1000)
    concentrations, theirs, turnover, ours = (np.empty((1000, species)) for _ in range(4))
    for i, temperature in enumerate(temperatures):
        shares = 10.0 ** rng.uniform(-8.0, 0.0, species) * (rng.random(species) < 2 / 3)
        gas.TPX = temperature, cantera.one_atm * 10.0 ** rng.uniform(-1.0, 2.0), shares
        concentrations[i], theirs[i] = gas.concentrations, gas.net_production_rates
        turnover[i] = np.maximum(gas.creation_rates, gas.destruction_rates)

    kinetics.production(temperatures, concentrations, rates.tables(mechanism), ours)

    # A species that nothing makes or uses has no turnover, and no production either.
    agrees("kinetics", f"production rates, {name}", np.max(np.abs(ours - theirs) / np.maximum(turnover, 1e-300)))


@pytest.mark.parametrize(("temperature", "atmospheres"), [(1000.0, 1), (1200.0, 1), (1000.0, 10), (1200.0, 10)])
def test_ignition_is_as_late_as_canteras(agrees: "Agrees", temperature: float, atmospheres: int) -> None:
    quantity = f"ignition from {temperature:.0f} K, {atmospheres} atm [s]"
    mechanism, gas = read_mechanism("h2o2.yaml"), cantera.Solution(str(SHIPPED / "h2o2.yaml"))
    gas.TPX = temperature, atmospheres * cantera.one_atm, "H2:2, O2:1, N2:3.76"
    row, pressure = np.concatenate([[gas.T], gas.Y])[None], np.array([gas.P])
    tables, size = rates.tables(mechanism), 1 + kinetics.reacting(mechanism)
    atol, steps = kinetics.absolute_tolerances(mechanism, 1e-6, 1e-14), np.empty(1, np.int64)
    slope, jacobian = np.empty((1, size)), np.empty((1, size, size))
    dt = reference("H2/air", quantity).value / 1000  # so that the times looked at are 0.1 % apart
    heating = []

    for _ in range(1100):
        kinetics.advance(row.copy(), pressure, dt, tables, 1e-6, atol, row, steps)
        kinetics.derivatives(row, pressure, tables, size, slope, jacobian)
        heating.append(slope[0, 0])

    agrees("H2/air", quantity, (1 + int(np.argmax(heating))) * dt)
