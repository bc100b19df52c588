"""Tiles: blocks of cells with a halo, each of them one element, for operators that advance a piece of a field.

A row of such an operator has one column per field and cell, field after field, each field in C order: laid flat, and
back by :meth:`Tiled.input_blocks` and :meth:`Tiled.output_blocks` without a copy. A column is named after its field and
the place of its cell, counted from the first cell that is the tile's own, ``u_3_4``; in front of that, in the halo, an
``m`` is a minus: ``u_m2_4``. So an output has the name of the input that it is the new value of.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field

Floats = NDArray[np.float64]
BlockTruth = Callable[[Floats, float], Floats]


@dataclass(frozen=True)
class Tile:
    """A block of cells and the halo around it that its new values depend on.

    Parameters
    ----------
    shape : tuple of 1 to 3 int
        Cells per dimension that the operator gives new values to.
    halo : int
        Cells it sees beyond them on every side: for k steps of an explicit scheme k widths of its stencil, and the
        truth of a tile is exact.

    Raises
    ------
    PluginError
        If there are not 1 to 3 positive whole numbers, or the halo is negative.
    """

    shape: tuple[int, ...]
    halo: int

    def __post_init__(self) -> None:
        sides: object = self.shape
        if (
            not isinstance(sides, Sequence)
            or not 1 <= len(sides) <= 3
            or not all(_whole(side) and side > 0 for side in sides)
        ):
            raise PluginError(
                f"A tile has the shape {self.shape}: give 1 to 3 positive whole numbers, as in Tile((16, 16), halo=8)."
            )
        if not _whole(self.halo) or self.halo < 0:
            raise PluginError(f"A tile has a halo of {self.halo} cells: give 0, 1, 2 or more.")
        object.__setattr__(self, "shape", tuple(int(side) for side in self.shape))

    @property
    def ndim(self) -> int:
        """Space dimensions."""
        return len(self.shape)

    @property
    def padded(self) -> tuple[int, ...]:
        """Cells per dimension with the halo on both sides."""
        return tuple(side + 2 * self.halo for side in self.shape)

    def __str__(self) -> str:
        return f"tiles of {'x'.join(map(str, self.shape))} cells with a halo of {self.halo}"


@dataclass(frozen=True)
class Tiled:
    """The fields that the columns of an operator over tiles are the cells of.

    Parameters
    ----------
    tile : Tile
        The element.
    inputs, outputs : tuple of Field
        The fields, in order; ``channels`` to a network.
    """

    tile: Tile
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Fields of the input, and cells per dimension with the halo: (n_fields, *padded)."""
        return (len(self.inputs), *self.tile.padded)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Fields of the output, and cells per dimension: (n_fields, *shape)."""
        return (len(self.outputs), *self.tile.shape)

    @property
    def input_columns(self) -> tuple[Field, ...]:
        """One column per field and cell, unit and bounds those of the field."""
        return _columns(self.inputs, self.tile.shape, self.tile.halo)

    @property
    def output_columns(self) -> tuple[Field, ...]:
        """One column per field and cell, without a halo."""
        return _columns(self.outputs, self.tile.shape, 0)

    def input_blocks(self, rows: Floats) -> Floats:
        """Lay rows (n, n_in) out as blocks (n, n_fields, *padded); a view where the rows are contiguous."""
        return rows.reshape(len(rows), *self.input_shape)

    def output_blocks(self, rows: Floats) -> Floats:
        """Lay rows (n, n_out) out as blocks (n, n_fields, *shape); a view where the rows are contiguous."""
        return rows.reshape(len(rows), *self.output_shape)

    def per_output(self, values: Sequence[float]) -> tuple[float, ...]:
        """Give every output column the value of its field."""
        return tuple(value for value in values for _ in range(math.prod(self.tile.shape)))

    def to_json(self) -> dict[str, object]:
        """Give what :meth:`tile_from_json` reads; the fields are written by who holds them."""
        return {"shape": list(self.tile.shape), "halo": self.tile.halo}


def tile_from_json(data: Mapping[str, object]) -> Tile:
    """Read what :meth:`Tiled.to_json` gave."""
    return Tile(tuple(data["shape"]), int(data["halo"]))  # type: ignore[arg-type, call-overload]


@dataclass(frozen=True)
class TileTruth:
    """A truth over blocks as one over rows, which is what everything else calls.

    Parameters
    ----------
    truth : callable
        ``truth(blocks, dt)`` with blocks (n, n_fields, *padded); returns (n, n_fields, *shape).
    tiled : Tiled
        Shapes of the blocks.
    """

    truth: BlockTruth
    tiled: Tiled

    def __call__(self, rows: Floats, dt: float) -> Floats:
        """Answer rows (n, n_in) by rows (n, n_out); what has another shape is passed on for others to refuse."""
        outputs = self.truth(self.tiled.input_blocks(rows), dt)
        expected = (len(rows), *self.tiled.output_shape)
        return outputs.reshape(len(rows), -1) if np.shape(outputs) == expected else outputs


def _columns(fields: Sequence[Field], shape: Sequence[int], halo: int) -> tuple[Field, ...]:
    ranges = [range(-halo, side + halo) for side in shape]
    places = ["_".join(f"m{-at}" if at < 0 else str(at) for at in place) for place in product(*ranges)]
    return tuple(replace(field, name=f"{field.name}_{place}") for field in fields for place in places)


def _is_shape(value: object) -> bool:
    return isinstance(value, Sequence) and all(_whole(side) and side > 0 for side in value)


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
