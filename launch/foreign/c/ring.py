"""The same C function in a loop of one's own, called through cffi: nothing is compiled but burn.c.

Run it with ``launch/foreign/c/build.sh`` and ``mpirun -n 2 python launch/foreign/c/ring.py``.
"""

import argparse
from pathlib import Path

import cffi
import numpy as np
from mpi4py import MPI

from coupler import Coupling, Field, Operator
from coupler.errors import PluginError

CELLS, DT, COURANT = 4000, 2e-5, 0.4
LIBRARY = Path(__file__).with_name("libburn.so")

ffi = cffi.FFI()
ffi.cdef("void burn(const double *inputs, double *outputs, ptrdiff_t rows, double dt, int substeps);")


def load():
    """Open the library; cffi believes the declaration above, so it must be the function's own."""
    if not LIBRARY.exists():
        raise PluginError(f"There is no {LIBRARY}: the C function is not compiled yet. Type {LIBRARY.parent}/build.sh")
    return ffi.dlopen(str(LIBRARY))


def operator(library):
    """Wrap the C function: arrays go to it by their address, without a copy, and the GIL is released meanwhile."""

    def burn(inputs, dt):
        outputs = np.empty_like(inputs)
        library.burn(ffi.from_buffer("double[]", inputs), ffi.from_buffer("double[]", outputs), len(inputs), dt, 400)
        return outputs

    columns = (Field("fuel", bounds=(0, 1)), Field("temperature", unit="K", bounds=(200, 4000)))
    sums = {"enthalpy": {"fuel": 1200.0, "temperature": 1.0}}
    return Operator(burn, inputs=columns, outputs=columns, atol=(1e-3, 1.0), rtol=1e-3, conserved=sums)


def main():
    """Let fuel drift around a ring and burn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="time steps (default: %(default)s)")
    steps = parser.parse_args().steps
    comm = MPI.COMM_WORLD
    ids = np.arange(comm.rank * CELLS // comm.size, (comm.rank + 1) * CELLS // comm.size)
    place = (ids + 0.5) / CELLS % 0.25
    cells = np.column_stack((np.where(place < 0.2, 1.0, 0.05), 500.0 + 700.0 * np.exp(-(((place - 0.1) / 0.01) ** 2))))

    with Coupling(operator(load()), case=Path(__file__).with_name("ring.toml"), comm=comm, name="ring") as coupling:
        for _ in range(steps):
            upstream = np.empty(2)
            comm.Sendrecv(cells[-1].copy(), (comm.rank + 1) % comm.size, recvbuf=upstream)
            cells -= COURANT * (cells - np.vstack((upstream, cells[:-1])))
            cells = coupling.evaluate(cells, ids, DT)
            coupling.end_step()
        summary = coupling.finish()
    if comm.rank == 0:
        print(summary.certificate.sentence)


if __name__ == "__main__":
    main()
