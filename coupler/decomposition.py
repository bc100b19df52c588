"""Decomposition: how the cells of a grid are dealt out to ranks; arithmetic only."""

import math
from collections.abc import Sequence

from coupler.errors import ConfigError


def block(index: int, parts: int, cells: int, grain: int = 1) -> slice:
    """Give the cells of one block when ``cells`` are dealt out to ``parts`` blocks as evenly as can be.

    ``grain`` cells stay together: with more than one, it is whole grains that are dealt out.
    """
    grains = cells // grain
    return slice(index * grains // parts * grain, (index + 1) * grains // parts * grain)


def choose_dims(size: int, shape: Sequence[int], halo: int, grain: Sequence[int] | None = None) -> tuple[int, ...]:
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
    grain : sequence of int, optional
        Cells per dimension that stay together; single cells if left out.

    Raises
    ------
    ConfigError
        If the shape is not made of whole grains, or no decomposition leaves every rank ``max(halo, 1)`` cells in every
        dimension.

    Collective: no.
    """
    grain = (1,) * len(shape) if grain is None else grain
    _check_grain(list(shape), grain)
    # Grains are dealt out as evenly as can be, so the thinnest block has the quotient of them, rounded down.
    limits = tuple(
        cells // together // math.ceil(max(halo, 1) / together) for cells, together in zip(shape, grain, strict=True)
    )
    cells = math.prod(shape)

    def cost(dims: tuple[int, ...]) -> tuple[int, ...]:
        surface = sum((parts - 1) * (cells // across) for parts, across in zip(dims, shape, strict=True))
        return (surface, *(-parts for parts in dims))

    possible = _factorisations(size, limits)
    if not possible:
        raise ConfigError(_no_decomposition(size, list(shape), halo, limits, grain))
    return min(possible, key=cost)


def _factorisations(size: int, limits: tuple[int, ...]) -> list[tuple[int, ...]]:
    """List the ways to write ``size`` as one factor per dimension, none above its limit."""
    if not limits:
        return [()] if size == 1 else []
    divisors = (parts for parts in range(1, min(size, limits[0]) + 1) if size % parts == 0)
    return [(parts, *rest) for parts in divisors for rest in _factorisations(size // parts, limits[1:])]


def _check_grain(shape: list[int], grain: Sequence[int]) -> None:
    if any(cells % together for cells, together in zip(shape, grain, strict=True)):
        nearest = [max(1, round(cells / together)) * together for cells, together in zip(shape, grain, strict=True)]
        raise ConfigError(
            f"grid.shape = {shape} is not made of whole tiles of {_times(grain)} cells, and a tile belongs to one "
            f"rank: give multiples, for example grid.shape = {nearest}."
        )


def _no_decomposition(size: int, shape: list[int], halo: int, limits: tuple[int, ...], grain: Sequence[int]) -> str:
    if 0 in limits:
        return (
            f"grid.shape = {shape} is thinner than the halo of {halo} cells, which would reach past the neighbour: "
            f"give every dimension of grid.shape at least {halo} cells."
        )
    fewer = min(size - 1, math.prod(limits))
    while not _factorisations(fewer, limits):
        fewer -= 1
    whole = "" if max(grain) == 1 else f", of whole tiles of {_times(grain)} cells"
    return (
        f"{size} ranks cannot share grid.shape = {shape} with halo {halo}, because every rank needs a block at least "
        f"{max(halo, 1)} wide in each dimension{whole}: start fewer ranks (mpirun -n {fewer}) or give a larger "
        "grid.shape."
    )


def _times(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
