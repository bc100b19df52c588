"""Production rates of the mechanisms that Cantera ships, as far as their forms are computed here."""

from pathlib import Path

import cantera
import numpy as np
import pytest

from coupler.kernels import kinetics, rates
from coupler.kernels.mechanism import read_mechanism

DATA = Path(cantera.__file__).parent / "data"


@pytest.mark.validation
@pytest.mark.parametrize("name", ["gri30.yaml", "gri30_highT.yaml", "ohn.yaml", "h2o2.yaml"])
def test_production_rates_of_canteras_mechanisms_are_canteras(name: str) -> None:
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

    # Relative to the larger of creation and destruction.
    assert np.all(np.abs(ours - theirs) <= 1e-8 * turnover)
