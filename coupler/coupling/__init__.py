"""What a rank holds: everything below put together behind ``outputs = coupling.evaluate(inputs, ids, dt)``."""

from coupler.coupling.coupling import Coupling
from coupler.coupling.nodes import abort, guard_job, part
from coupler.coupling.resumed import Resumed

__all__ = ["Coupling", "Resumed", "abort", "guard_job", "part"]
