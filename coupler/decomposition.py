"""Decomposition: how the cells of a grid are dealt out to ranks; arithmetic only."""

import math
from collections.abc import Sequence

from coupler.errors import ConfigError


def block(index: int, parts: int, cells: int) -> slice:
    """Give the cells of one block when ``cells`` are dealt out to ``parts`` blocks as evenly as can be."""
    return slice(index * cells // parts, (index + 1) * cells // parts)


def choose_dims(size: int, shape: Sequence[int], halo: int) -> tuple[int, ...]:
    """Choose the number of ranks per dimension with the least surface between ranks.

    Of equals it is the one that cuts the first dimensions, whose halos are contiguous in memory.

    Parameters
    ----------
    size : int
        Ranks in all; every one gets a block.
    shape : sequence of int
        Cells per dimension.
    halo : int
        Ghost width in cells: no block may be thinner, or a halo would reach past the neighbour.

    Raises
    ------
    ConfigError
        If no decomposition leaves every rank ``max(halo, 1)`` cells in every dimension.

    Collective: no.
    """
    limits = tuple(cells // max(halo, 1) for cells in shape)
    cells = math.prod(shape)

    def cost(dims: tuple[int, ...]) -> tuple[int, ...]:
        surface = sum((parts - 1) * (cells // across) for parts, across in zip(dims, shape, strict=True))
        return (surface, *(-parts for parts in dims))

    possible = _factorisations(size, limits)
    if not possible:
        raise ConfigError(_no_decomposition(size, list(shape), halo, limits))
    return min(possible, key=cost)


def _factorisations(size: int, limits: tuple[int, ...]) -> list[tuple[int, ...]]:
    """List the ways to write ``size`` as one factor per dimension, none above its limit."""
    if not limits:
        return [()] if size == 1 else []
    divisors = (parts for parts in range(1, min(size, limits[0]) + 1) if size % parts == 0)
    return [(parts, *rest) for parts in divisors for rest in _factorisations(size // parts, limits[1:])]


def _no_decomposition(size: int, shape: list[int], halo: int, limits: tuple[int, ...]) -> str:
    if 0 in limits:
        return (
            f"grid.shape = {shape} is thinner than the halo of {halo} cells, which would reach past the neighbour: "
            f"give every dimension of grid.shape at least {halo} cells."
        )
    fewer = min(size - 1, math.prod(limits))
    while not _factorisations(fewer, limits):
        fewer -= 1
    return (
        f"{size} ranks cannot share grid.shape = {shape} with halo {halo}, because every rank needs a block at least "
        f"{max(halo, 1)} wide in each dimension: start fewer ranks (mpirun -n {fewer}) or give a larger grid.shape."
    )
