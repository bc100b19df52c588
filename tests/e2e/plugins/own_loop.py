"""A loop of one's own: two operators, a rank without elements in turns, and more elements than fit at once."""

import sys

import numpy as np
from mpi4py import MPI

from coupler import Coupling, Operator

STEPS, DT, MOST = 40, 0.1, 500


def decay(inputs, dt):
    return inputs * np.exp(-dt)


def main():
    rank = MPI.COMM_WORLD.rank
    numbers = np.random.default_rng(rank)
    operators = {
        "pair": Operator(decay, inputs=("a", "b"), outputs=("a", "b"), atol=1e-6, rtol=1e-6),
        "one": Operator(decay, inputs=("c",), outputs=("c",), atol=1e-6, rtol=1e-6),
    }
    out, replay = ("run", None) if len(sys.argv) == 2 else (sys.argv[2], "run")
    with Coupling(operators, case=sys.argv[1], out=out, replay=replay) as coupling:
        for step in range(STEPS):
            for name, columns in (("pair", 2), ("one", 1)):
                count = 0 if (rank + step) % 3 == 0 else numbers.integers(1, MOST)
                inputs = numbers.uniform(1.0, 2.0, (count, columns))
                outputs = coupling.evaluate(inputs, rank * MOST + np.arange(count), DT, operator=name)
                # torch's and numpy's exponentials may differ in the last bit.
                np.testing.assert_allclose(outputs, decay(inputs, DT), rtol=1e-15 * 4)
            coupling.end_step()
        summary = coupling.finish()
    assert coupling.finish() is summary


main()
