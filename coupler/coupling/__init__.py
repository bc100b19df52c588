"""What a rank holds: everything below put together behind ``outputs = coupling.evaluate(inputs, ids, dt)``."""

from coupler.coupling.coupling import Coupling
from coupler.coupling.mpimemory import guard_memory
from coupler.coupling.nodes import abort, part
from coupler.coupling.resumed import Resumed

__all__ = ["Coupling", "Resumed", "abort", "guard_memory", "part"]
