"""The truth is a C function, called through ctypes: a line of burning cells with conduction between them.

Build the library first, then check and run it::

    launch/foreign/c/build.sh
    coupler check launch/foreign/c/flame.py:Flame
    mpirun -n 2 coupler run launch/foreign/c/case.toml
"""

import ctypes
from pathlib import Path

import numpy as np

from coupler import Field, Kernel, Operator
from coupler.errors import PluginError

LIBRARY = Path(__file__).with_name("libburn.so")
NUMBERS = np.ctypeslib.ndpointer(np.float64, ndim=2, flags="C_CONTIGUOUS")


def load():
    """Open the library and say what the function takes: ctypes checks shapes and types, and not only counts bytes."""
    if not LIBRARY.exists():
        raise PluginError(f"There is no {LIBRARY}: the C function is not compiled yet. Type {LIBRARY.parent}/build.sh")
    burn = ctypes.CDLL(str(LIBRARY)).burn
    burn.argtypes = (NUMBERS, NUMBERS, ctypes.c_ssize_t, ctypes.c_double, ctypes.c_int)
    burn.restype = None
    return burn


class Flame(Kernel):
    """Fuel and temperature: conduction here, burning in C. While C computes, Python's other threads go on."""

    fields = (Field("fuel", bounds=(0, 1)), Field("temperature", unit="K", bounds=(200, 4000)))
    dimensions = (1,)

    def __init__(self, *, spread: float = 0.2, substeps: int = 400) -> None:
        self.spread, self.substeps, self.function = spread, substeps, load()
        names = ("fuel", "temperature")
        self.burning = Operator(
            self.burn,
            inputs=names,
            outputs=names,
            atol=(1e-3, 1.0),
            rtol=1e-3,
            conserved={"enthalpy": {"fuel": 1200.0, "temperature": 1.0}},
        )

    def burn(self, inputs, dt):
        """The truth: (n, 2) -> (n, 2)."""
        outputs = np.empty_like(inputs)
        self.function(inputs, outputs, len(inputs), dt, self.substeps)
        return outputs

    def start(self, state, grid):
        """Fresh fuel with a hot end."""
        state["fuel"].interior[...] = 1.0
        state["temperature"].interior[...] = np.where(grid.centres(0) < 0.1 * grid.length[0], 1400.0, 500.0)

    def step(self, state, grid, dt, evaluate):
        """Conduct, then burn."""
        grid.exchange(state)
        grid.reflect(state)
        heat = state["temperature"].array
        heat[1:-1] += self.spread * (heat[:-2] - 2.0 * heat[1:-1] + heat[2:])
        evaluate(self.burning, state, dt)
