"""Gray-Scott reaction-diffusion on tiles: an element is a block of cells that goes several explicit steps at once.

    u' = Du laplace(u) - u v^2 + F (1 - u)
    v' = Dv laplace(v) + u v^2 - (F + k) v

J. E. Pearson, Science 261 (1993) 189; the defaults are those of APEBench (Koehler et al., NeurIPS 2024,
arXiv:2411.00180). One step is Euler's with the five-point Laplacian, so after k steps a cell depends on those up to k
away: the truth of a tile with a halo of k cells is exact, and a run on tiles is bitwise the run on the whole field.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field, State
from coupler.kernel import Evaluate, Kernel
from coupler.operator import Operator
from coupler.tile import Tile

if TYPE_CHECKING:
    from coupler.grid import Grid

# Of the largest step that is stable; with the reaction in it a little less than diffusion alone would allow.
_STABLE = 0.9
# At the start: how many squares, and how wide, as shares of the box.
_SQUARES, _SIDES = 16, (0.03, 0.1)


class GrayScott(Kernel):
    """Two species, one fed and one that eats it; everything is the operator, the kernel itself only exchanges halos.

    Parameters
    ----------
    diffusion : sequence of 2 float
        Du, Dv [cells2/time], > 0; the defaults are 2e-5 and 1e-5 where a cell is 1/64 wide.
    feed, kill : float
        F and k [1/time], >= 0.
    substeps : int
        Explicit steps in one call, which is the width of the halo as well.
    tile : int
        Cells per side of a tile.
    seed : int
        Of the noise at the start.

    Attributes
    ----------
    advance : Operator
        (u, v) on a tile with its halo -> (u, v) on the tile after dt. At tolerance a cell is wrong by 0.01, one
        percent of what u reaches. Over eight steps of unit time "nothing changes" is wrong by 0.04 somewhere in the
        median tile, four times as much.

    Raises
    ------
    PluginError
        If a parameter means nothing.
    """

    fields = (Field("u", bounds=(0, 1.5)), Field("v", bounds=(0, 1.5)))
    dimensions = (2,)

    def __init__(
        self,
        *,
        diffusion: tuple[float, float] = (2e-5 * 64**2, 1e-5 * 64**2),
        feed: float = 0.04,
        kill: float = 0.06,
        substeps: int = 8,
        tile: int = 32,
        seed: int = 0,
    ) -> None:
        if len(diffusion) != 2 or not all(0 < value < math.inf for value in diffusion):
            raise PluginError(f"diffusion = {diffusion} must be two positive numbers, for u and v.")
        if not (0 <= feed < math.inf and 0 <= kill < math.inf):
            raise PluginError(f"feed = {feed} and kill = {kill} must be rates, 0 or more each.")
        if substeps < 1:
            raise PluginError(f"substeps = {substeps} must be 1 or more: so many explicit steps are one call.")
        self.diffusion, self.feed, self.kill = tuple(diffusion), feed, kill
        self.substeps = self.halo = substeps
        self.seed = seed
        self.advance = Operator(
            self.react,
            inputs=("u", "v"),
            outputs=("u", "v"),
            atol=1e-2,
            rtol=0.0,
            tile=Tile((tile, tile), halo=substeps),
        )

    def react(self, blocks: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Go ``substeps`` explicit steps, ``dt`` together, on every tile: the truth of ``advance``.

        Parameters
        ----------
        blocks : ndarray (n, 2, side + 2 substeps, side + 2 substeps)
            u and v with their halo.
        dt : float
            Time to advance by.

        Returns
        -------
        ndarray (n, 2, side, side)

        Collective: no.
        """
        k, (n, fields, rows, columns) = self.substeps, blocks.shape
        outputs = np.empty((n, fields, rows - 2 * k, columns - 2 * k))
        step = dt / k
        coefficients = np.array([
            *(value * step for value in self.diffusion), step, step * self.feed,
            step * (self.feed + self.kill),
        ])  # fmt: skip
        _advance(blocks, k, coefficients, outputs)
        return outputs

    def start(self, state: State, grid: "Grid") -> None:
        """Put squares of v, of random places and sizes and slightly noisy, into a field of u."""
        # All of it of the whole grid, so that the blocks make no difference.
        random = np.random.default_rng(self.seed)
        noise, squares = random.random(grid.shape), np.zeros(grid.shape, np.bool_)
        for _ in range(_SQUARES):
            corner, side = random.random(2), random.uniform(*_SIDES)
            squares |= np.logical_and.outer(*map(_within, grid.shape, corner, (side, side)))
        here = tuple(map(slice, grid.start, grid.stop))
        state["u"].interior[...] = np.where(squares, 0.5, 1.0)[here]
        state["v"].interior[...] = np.where(squares, 0.25 + 0.1 * noise, 0.0)[here]

    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        """See the class.

        Raises
        ------
        PluginError
            If the explicit steps are too long to be stable.
        """
        longest = _STABLE / (4.0 * max(self.diffusion))
        if dt / self.substeps > longest:
            raise PluginError(
                f"run.dt = {dt:g} in {self.substeps} explicit steps is not stable: set run.dt to at most "
                f"{longest * self.substeps:.3g}, or kernel.params.substeps higher."
            )
        grid.exchange(state)
        grid.reflect(state)
        evaluate(self.advance, state, dt)


def _within(cells: int, first: float, width: float) -> NDArray[np.bool_]:
    """Say which cells along an axis lie in a stretch of it, which wraps around."""
    return ((np.arange(cells) + 0.5) / cells - first) % 1.0 < width


# From one pair of fields to another and back; every step leaves out the outermost ring, which nobody needs any more.
@njit(cache=True, nogil=True)
def _advance(blocks, substeps, coefficients, outputs):
    n, _, rows, columns = blocks.shape
    one, other = np.empty((2, rows, columns)), np.empty((2, rows, columns))
    for tile in range(n):
        before, after = blocks[tile], other
        for ring in range(1, substeps + 1):
            if ring == substeps:
                _step(before, ring, coefficients, outputs[tile], 0)
            else:
                _step(before, ring, coefficients, after, ring)
                before, after = after, (one if ring % 2 else other)


# Rows are sliced so that indices count from zero: then the compiler sees that none is negative, and vectorises.
@njit(cache=True, nogil=True)
def _step(before, ring, coefficients, after, first):
    diffuse_u, diffuse_v, dt, fed, lost = coefficients
    rows, width = before.shape[1] - 2 * ring, before.shape[2] - 2 * ring
    last = ring + width
    for row in range(rows):
        i = ring + row
        u, u_up, u_down = before[0, i, ring:last], before[0, i - 1, ring:last], before[0, i + 1, ring:last]
        v, v_up, v_down = before[1, i, ring:last], before[1, i - 1, ring:last], before[1, i + 1, ring:last]
        u_left, u_right = before[0, i, ring - 1 : last - 1], before[0, i, ring + 1 : last + 1]
        v_left, v_right = before[1, i, ring - 1 : last - 1], before[1, i, ring + 1 : last + 1]
        new_u, new_v = after[0, first + row, first : first + width], after[1, first + row, first : first + width]
        for j in range(width):
            eaten = dt * (u[j] * v[j] * v[j])
            spread_u = (u_up[j] + u_down[j]) + (u_left[j] + u_right[j]) - 4.0 * u[j]
            spread_v = (v_up[j] + v_down[j]) + (v_left[j] + v_right[j]) - 4.0 * v[j]
            new_u[j] = u[j] + (diffuse_u * spread_u - eaten + fed * (1.0 - u[j]))
            new_v[j] = v[j] + (diffuse_v * spread_v + eaten - lost * v[j])
