"""A prescribed flow that stirs a box: vortices without divergence, on the faces of cells."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from coupler.grid import Grid


def vortices(grid: "Grid", speed: float) -> NDArray[np.float64]:
    """Give the velocity of one vortex in a box, of two along every periodic axis, through every cell's upper faces.

    From a stream function at the corners of the cells, so it is free of divergence to rounding, and nothing flows
    through walls.

    Returns
    -------
    ndarray (2, cells with halo, in C order)

    Collective: no.
    """
    waves, numbers = [], []
    for axis in range(2):
        cells, wraps = grid.shape[axis], grid.periodic[axis]
        turns = 2.0 if wraps else 1.0
        corners = [corner % cells for corner in range(grid.start[axis] - 1, grid.stop[axis] + 2)]
        waves.append(np.array([math.sin(turns * math.pi * corner / cells) if corner else 0.0 for corner in corners]))
        numbers.append(turns * math.pi / grid.length[axis])
    stream = speed / max(numbers) * waves[0][:, None] * waves[1][None, :]
    up = np.diff(stream[1:], axis=1) / grid.spacing[1]
    across = -np.diff(stream[:, 1:], axis=0) / grid.spacing[0]
    return np.array([up.reshape(-1), across.reshape(-1)])
