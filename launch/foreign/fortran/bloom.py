"""The truth is a Fortran subroutine with ``bind(c)``, called through ctypes: bacteria that spread over sugar.

No f2py: it needs meson and ninja since Python 3.12, and ``bind(c)`` needs nothing but the compiler. Build the library
first, then check and run it::

    launch/foreign/fortran/build.sh
    coupler check launch/foreign/fortran/bloom.py:Bloom
    mpirun -n 2 coupler run launch/foreign/fortran/case.toml
"""

import ctypes
from pathlib import Path

import numpy as np

from coupler import Field, Kernel, Operator
from coupler.errors import PluginError

LIBRARY = Path(__file__).with_name("libgrowth.so")
NUMBERS = np.ctypeslib.ndpointer(np.float64, ndim=2, flags="C_CONTIGUOUS")


def load():
    """Open the library and say what the subroutine takes; scalars are passed by value, as it declares them."""
    if not LIBRARY.exists():
        raise PluginError(f"There is no {LIBRARY}: the subroutine is not compiled yet. Type {LIBRARY.parent}/build.sh")
    grow = ctypes.CDLL(str(LIBRARY)).grow
    grow.argtypes = (NUMBERS, NUMBERS, ctypes.c_ssize_t, ctypes.c_double, ctypes.c_int)
    grow.restype = None
    return grow


class Bloom(Kernel):
    """Sugar and bacteria on a plate: they spread here and grow in Fortran."""

    fields = (Field("sugar", unit="g/l", bounds=(0, None)), Field("bacteria", unit="g/l", bounds=(0, None)))
    dimensions = (2,)

    def __init__(self, *, spread: float = 0.1, substeps: int = 500) -> None:
        self.spread, self.substeps, self.subroutine = spread, substeps, load()
        names = ("sugar", "bacteria")
        sums = {"carbon": {"sugar": 0.5, "bacteria": 1.0}}
        self.growth = Operator(self.grow, inputs=names, outputs=names, atol=1e-4, rtol=1e-3, conserved=sums)

    def grow(self, inputs, dt):
        """The truth: (n, 2) -> (n, 2). Rows in C order are columns in Fortran order: the same bytes, no copy."""
        outputs = np.empty_like(inputs)
        self.subroutine(inputs, outputs, len(inputs), dt, self.substeps)
        return outputs

    def start(self, state, grid):
        """Sugar everywhere, bacteria in a few spots, from global coordinates."""
        x, y = 2 * np.pi * grid.centres(0)[:, np.newaxis], 2 * np.pi * grid.centres(1)[np.newaxis, :]
        state["sugar"].interior[...] = 1.0 + 0.3 * np.cos(x) * np.cos(2 * y)
        state["bacteria"].interior[...] = 1e-3 * (1.0 + np.sin(3 * x) * np.sin(2 * y)) ** 4

    def step(self, state, grid, dt, evaluate):
        """Spread, then grow."""
        grid.exchange(state)
        for local in state.values():
            c = local.array
            around = c[:-2, 1:-1] + c[2:, 1:-1] + c[1:-1, :-2] + c[1:-1, 2:]
            c[1:-1, 1:-1] += self.spread * (around - 4.0 * c[1:-1, 1:-1])
        evaluate(self.growth, state, dt)
