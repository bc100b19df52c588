"""A loop of one's own: fuel burns while it drifts along a ring, with its own mesh and its own MPI calls.

    Y' = -Y A exp(-Ta / T),   T' = q Y A exp(-Ta / T)     in every cell, expensive: handed to the coupling
    upwind transport around the ring                      ours: two arrays, one message per step

Run it with ``mpirun -n 2 python launch/own_loop/combustion.py``; the case beside it says how to couple.
"""

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI
from numba import njit

from coupler import Coupling, Field, Operator

CELLS, STEPS, DT, COURANT = 6000, 600, 2e-5, 0.4
HEAT, ACTIVATION, FREQUENCY = 1200.0, 9000.0, 2e8


@njit(cache=True)
def _burn(inputs, outputs, dt, substeps):
    h = dt / substeps
    for row in range(inputs.shape[0]):
        fuel, heat = inputs[row, 0], inputs[row, 1] + HEAT * inputs[row, 0]
        for _ in range(substeps):
            # Implicit in the fuel: it never becomes negative, however hot it is.
            fuel /= 1.0 + h * FREQUENCY * np.exp(-ACTIVATION / (heat - HEAT * fuel))
        outputs[row, 0], outputs[row, 1] = fuel, heat - HEAT * fuel


def burn(inputs, dt):
    """The truth: fuel and temperature after ``dt``, cell by cell."""
    outputs = np.empty_like(inputs)
    _burn(inputs, outputs, dt, 500)
    return outputs


def main():
    """Step the ring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="time steps (default: %(default)s)")
    steps = parser.parse_args().steps
    comm = MPI.COMM_WORLD
    first, last = comm.rank * CELLS // comm.size, (comm.rank + 1) * CELLS // comm.size
    ids = np.arange(first, last)
    position = (ids + 0.5) / CELLS
    cells = np.column_stack(
        (np.where(position % 0.25 < 0.2, 1.0, 0.05), 500.0 + 700.0 * np.exp(-(((position % 0.25 - 0.1) / 0.01) ** 2)))
    )
    operator = Operator(
        burn,
        inputs=(Field("fuel", bounds=(0, 1)), Field("temperature", unit="K", bounds=(200, 4000))),
        outputs=(Field("fuel", bounds=(0, 1)), Field("temperature", unit="K", bounds=(200, 4000))),
        atol=(1e-3, 1.0),
        rtol=1e-3,
        conserved={"enthalpy": {"fuel": HEAT, "temperature": 1.0}},
    )

    with Coupling(operator, case=Path(__file__).with_name("case.toml"), comm=comm, name="combustion") as coupling:
        for step in range(steps):
            upstream = np.empty(2)
            comm.Sendrecv(cells[-1].copy(), (comm.rank + 1) % comm.size, recvbuf=upstream)
            cells -= COURANT * (cells - np.vstack((upstream, cells[:-1])))
            cells = coupling.evaluate(cells, ids, DT)
            coupling.end_step()
            if comm.rank == 0 and step % 100 == 99:
                where = coupling.progress
                print(
                    f"step {step + 1}: accepted {where.share('accepted'):.1%}, loss <= {where.loss_bound:.4f}",
                    flush=True,
                )
        summary = coupling.finish()
    if comm.rank == 0:
        print(summary.certificate.sentence)
        print(f"run folder: {coupling.folder.path}")


if __name__ == "__main__":
    main()
