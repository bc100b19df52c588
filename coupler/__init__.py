"""Couple an MPI simulation to a surrogate that learns while it runs, with a certificate for what that costs.

The names below are imported when they are first used, so ``import coupler`` needs neither torch, Ray nor MPI.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coupler.coupling import Coupling
    from coupler.errors import CouplerError
    from coupler.field import Field, State
    from coupler.grid import Grid
    from coupler.kernel import Kernel
    from coupler.operator import Operator
    from coupler.simulation import Simulation
    from coupler.surrogate import Surrogate
    from coupler.tile import Tile

__version__ = "0.1.0"

__all__ = [
    "CouplerError",
    "Coupling",
    "Field",
    "Grid",
    "Kernel",
    "Operator",
    "Simulation",
    "State",
    "Surrogate",
    "Tile",
]

_HOME = {
    "Coupling": "coupler.coupling",
    "CouplerError": "coupler.errors",
    "Field": "coupler.field",
    "Grid": "coupler.grid",
    "Kernel": "coupler.kernel",
    "Operator": "coupler.operator",
    "Simulation": "coupler.simulation",
    "State": "coupler.field",
    "Surrogate": "coupler.surrogate",
    "Tile": "coupler.tile",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f'module "coupler" has no attribute "{name}"')
    found: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = found  # the next use does not come here
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
