"""Two-temperature heat conduction, the smallest kernel: electrons and lattice exchange heat and both conduct it.

    e' = D laplace(e) - g (e - l),    l' = D laplace(l) + g (e - l)

S. I. Anisimov et al., Sov. Phys. JETP 39 (1974) 375, with equal heat capacities and conductivities.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.kernels.diffusion import diffuse
from coupler.operator import Operator

if TYPE_CHECKING:
    from coupler.grid import Grid


class Heat(Kernel):
    """Conduction by finite differences, the exchange exactly, in 1 to 3 dimensions; starts as one cosine mode.

    Parameters
    ----------
    diffusivity : float
        D [length2/time].
    rate : float
        Exchange rate g [1/time].
    """

    fields = (Field("electron", unit="K", bounds=(0, None)), Field("lattice", unit="K", bounds=(0, None)))

    def __init__(self, *, diffusivity: float = 1e-3, rate: float = 1.0) -> None:
        if not (0 <= diffusivity < np.inf and 0 <= rate < np.inf):
            raise PluginError(f"diffusivity and rate must be finite and >= 0, not {diffusivity} and {rate}.")
        self.diffusivity, self.rate = diffusivity, rate
        both, heat = ("electron", "lattice"), {"electron": 1.0, "lattice": 1.0}
        self.exchange = Operator(self.relax, inputs=both, outputs=both, atol=1e-3, rtol=1e-5, conserved={"heat": heat})

    def relax(self, inputs: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Exchange heat for ``dt`` in every cell: the truth, (n, 2) -> (n, 2) [K]."""
        flow = -0.5 * np.expm1(-2.0 * self.rate * dt) * (inputs[:, 0] - inputs[:, 1])
        return np.column_stack((inputs[:, 0] - flow, inputs[:, 1] + flow))

    def start(self, state: State, grid: "Grid") -> None:
        for name, values in self.exact(grid, 0.0).items():
            state[name].interior[...] = values

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        both = dict.fromkeys(state, self.diffusivity)
        diffuse(state, grid, both, dt / 2)
        evaluate(self.exchange, state, dt)
        diffuse(state, grid, both, dt / 2)

    def exact(self, grid: "Grid", t: float) -> dict[str, NDArray[np.float64]]:
        """Both temperatures at time t on this rank's cells, local shape [K]: what the run is compared with."""
        mode, decay = np.ones(grid.local_shape), 0.0
        for axis, (length, periodic) in enumerate(zip(grid.length, grid.periodic, strict=True)):
            wavenumber = (2.0 if periodic else 1.0) * np.pi / length
            shape = [-1 if other == axis else 1 for other in range(grid.ndim)]
            mode *= np.cos(wavenumber * grid.centres(axis)).reshape(shape)
            decay += self.diffusivity * wavenumber**2
        common = 500.0 + 100.0 * mode * np.exp(-decay * t)
        difference = 100.0 * mode * np.exp(-(decay + 2.0 * self.rate) * t)
        return {"electron": common + difference, "lattice": common - difference}
