"""Blends of a fuel and an oxidizer at an equivalence ratio: how much of each makes the fresh gas of a flame."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.kernels.mechanism import Mechanism

# Atoms of oxygen that an atom takes up when it burns to CO2, H2O and N2.
_DEMAND = {"C": 2.0, "H": 0.5, "O": -1.0}


class Blend:
    """A fuel and an oxidizer that are mixed in any proportion.

    Parameters
    ----------
    mechanism : Mechanism
        Knows the species.
    fuel, oxidizer : mapping of species to float
        Their compositions by moles, of any sum.

    Raises
    ------
    PluginError
        If a species is unknown or its share not positive, or if the one cannot burn or the other not make it.
    """

    def __init__(self, mechanism: Mechanism, fuel: Mapping[str, float], oxidizer: Mapping[str, float]) -> None:
        demand = mechanism.composition @ [_DEMAND.get(element, 0.0) for element in mechanism.elements]
        burning, giving = _moles(mechanism, "fuel", fuel), _moles(mechanism, "oxidizer", oxidizer)
        if not burning @ demand > 0.0:
            raise PluginError(f"fuel = {dict(fuel)} takes up no oxygen, so there is no flame: name one that burns.")
        if not giving @ demand < 0.0:
            raise PluginError(f'oxidizer = {dict(oxidizer)} gives no oxygen: name one that does, as {{"O2" = 1.0}}.')
        self._fuel = burning * mechanism.weights / (burning @ demand)
        self._oxidizer = -giving * mechanism.weights / (giving @ demand)

    def fractions(self, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the mass fractions, (species, ...), at equivalence ratios (...)."""
        ratios = np.asarray(ratios)
        each = (slice(None), *(None,) * ratios.ndim)
        masses = ratios * self._fuel[each] + self._oxidizer[each]
        return masses / (ratios * self._fuel.sum() + self._oxidizer.sum())


def _moles(mechanism: Mechanism, what: str, shares: Mapping[str, float]) -> NDArray[np.float64]:
    if not (isinstance(shares, Mapping) and shares):
        raise PluginError(f"{what} = {shares!r} is no gas: give species and their moles, as in {{H2 = 1.0}}.")
    moles = np.zeros(len(mechanism.names))
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share < math.inf:
            raise PluginError(f'{what} has {share!r} moles of "{name}": give a positive number.')
        moles[mechanism.index(name)] = share
    return moles
