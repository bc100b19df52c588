"""Kernels: a whole simulation for people who do not bring their own loop."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from coupler.errors import FieldMismatch, PluginError
from coupler.field import Field, State
from coupler.operator import Operator
from coupler.tile import Tile

if TYPE_CHECKING:
    from coupler.grid import Grid

_BLOCK = 512


class Evaluate(Protocol):
    """What a kernel calls for its expensive part; only this call is routed to surrogate or truth."""

    def __call__(self, operator: Operator, state: State, dt: float) -> None:
        """Replace the operator's output fields, element by element, by their values after ``dt``.

        Halos are read as they are where elements are tiles: exchange them before.
        """


class Kernel(ABC):
    """A simulation: fields, a start and a step. Subclass it; every rank runs the same ``step`` on its subdomain.

    Attributes
    ----------
    fields : tuple of Field
        What the state holds.
    halo : int
        Ghost width in cells that the cheap part of the step reads; at least that of the operators' tiles.
    dimensions : tuple of int
        Numbers of space dimensions the kernel works in.

    Operators are attributes (of the class, or of the object where they depend on parameters); their attribute
    names are their names in the case file. Keyword arguments of ``__init__`` are the kernel's parameters.
    """

    fields: tuple[Field, ...] = ()
    halo: int = 1
    dimensions: tuple[int, ...] = (1, 2, 3)

    @abstractmethod
    def start(self, state: State, grid: "Grid") -> None:
        """Fill the interior of every field with its value at t = 0. Must not depend on the decomposition."""

    @abstractmethod
    def step(self, state: State, grid: "Grid", dt: float, evaluate: Evaluate) -> None:
        """Advance the state by ``dt`` in place; call ``evaluate`` for the operators, exchange halos at will.

        ``state.time`` is when the step begins; the loop that calls this sets it.
        """

    @property
    def operators(self) -> dict[str, Operator]:
        """The kernel's operators by attribute name, in order of declaration."""
        found: dict[str, Operator] = {}
        for namespace in (*(vars(owner) for owner in reversed(type(self).__mro__)), vars(self)):
            found.update({name: value for name, value in namespace.items() if isinstance(value, Operator)})
        # A subclass may have put something else in an operator's place.
        return {name: value for name, value in found.items() if getattr(self, name) is value}

    def grain(self, ndim: int) -> tuple[int, ...]:
        """Cells per dimension that belong to one rank together, (ndim,): whole tiles of every operator."""
        shapes = [element_shape(operator, ndim) for operator in self.operators.values()]
        return tuple(math.lcm(*sides) for sides in zip(*shapes, strict=True))


def element_shape(operator: Operator, ndim: int) -> tuple[int, ...]:
    """Cells per dimension that an element of the operator gives new values to, (ndim,): one, if it is no tile."""
    tiled = operator.signature.tiled
    return (1,) * ndim if tiled is None else tiled.tile.shape


def evaluate_truth(operator: Operator, state: State, dt: float) -> None:
    """Run the truth on every element: the :class:`Evaluate` of a run without a coupler.

    Stepping a kernel by hand with this function is bitwise a run in mode ``physics``.

    Collective: no.
    """
    passage = Passage(operator, state)
    passage.scatter(operator.evaluate_truth(passage.gather(), dt))


def gather(operator: Operator, state: State, rows: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Copy the operator's input fields into rows: :meth:`Passage.gather`, for once."""
    return _inputs(operator, state).gather(rows)


def scatter(operator: Operator, state: State, rows: NDArray[np.float64]) -> None:
    """Write the operator's output rows (n, n_out) back into the fields: :meth:`Passage.scatter`, for once."""
    _outputs(operator, state).scatter(rows)


class Passage:
    """The way between the fields of a state and an operator's rows of elements, worked out once.

    Parameters
    ----------
    operator : Operator
        Whose inputs and outputs.
    state : State
        The fields; it stays the same state, whatever its numbers become.

    Raises
    ------
    FieldMismatch
        If the operator names a field that is not in the state, or its tiles do not fit the subdomain or the halo.

    Collective: no.
    """

    def __init__(self, operator: Operator, state: State) -> None:
        self.state = state
        signature = operator.signature
        self._inputs = _inputs(operator, state)
        same = signature.tiled is None and signature.output_names == signature.input_names
        self._outputs = self._inputs if same else _outputs(operator, state)

    def gather(self, rows: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Copy the input fields into rows, one per local cell or tile in C order.

        Parameters
        ----------
        rows : ndarray (n, n_in), optional
            Where to; a new array if left out.

        Returns
        -------
        ndarray (n, n_in)
            ``rows``, if given.

        Raises
        ------
        FieldMismatch
            If ``rows`` have another shape than the elements and columns.

        Collective: no. Releases the GIL.
        """
        return self._inputs.gather(rows)

    def scatter(self, rows: NDArray[np.float64]) -> None:
        """Write output rows (n, n_out) back into the fields; halos stay as they are.

        Raises
        ------
        FieldMismatch
            If ``rows`` have another shape than the elements and columns.

        Collective: no. Releases the GIL.
        """
        self._outputs.scatter(rows)


def _inputs(operator: Operator, state: State) -> "_Columns | _Blocks":
    tiled, names = operator.signature.tiled, _names(operator.signature.input_fields)
    return _Columns(names, state) if tiled is None else _Blocks(names, state, tiled.tile, tiled.tile.halo)


def _outputs(operator: Operator, state: State) -> "_Columns | _Blocks":
    tiled, names = operator.signature.tiled, _names(operator.signature.output_fields)
    return _Columns(names, state) if tiled is None else _Blocks(names, state, tiled.tile, 0)


def _names(fields: tuple[Field, ...]) -> tuple[str, ...]:
    return tuple(item.name for item in fields)


class _Columns:
    """Some fields of a state as the compiled loops want them; with addresses, one compilation does for any number."""

    def __init__(self, names: tuple[str, ...], state: State) -> None:
        self._arrays = _arrays(names, state)  # as long as the addresses mean something
        self._addresses = _addresses(self._arrays)
        first, halo = self._arrays[0], state[names[0]].halo
        cells = [extent - 2 * halo for extent in first.shape]
        self._shape = (math.prod(cells), len(names))
        strides = [stride // first.itemsize for stride in first.strides]
        # Of lines of cells along the last dimension, which lie in planes: two strides are enough up to 3-D.
        self._extents = (
            cells[-1],
            cells[-2] if len(cells) > 1 else 1,
            halo * sum(strides),
            strides[-2] if len(cells) > 1 else 0,
            strides[-3] if len(cells) > 2 else 0,
        )

    def gather(self, rows: NDArray[np.float64] | None) -> NDArray[np.float64]:
        if rows is None:
            rows = np.empty(self._shape)
        self._check(rows)
        _gather(self._addresses, *self._extents, rows)
        return rows

    def scatter(self, rows: NDArray[np.float64]) -> None:
        self._check(rows)
        _scatter(self._addresses, *self._extents, rows)

    def _check(self, rows: NDArray[np.float64]) -> None:
        if rows.shape != self._shape:
            raise FieldMismatch(
                f"Rows of shape {rows.shape} cannot hold {self._shape[0]} cells of {self._shape[1]} columns: pass an "
                f"array of shape {self._shape}, one row per local cell."
            )


class _Blocks:
    """Some fields of a state as tiles, of which each sees some cells beyond its own."""

    def __init__(self, names: tuple[str, ...], state: State, tile: Tile, seen: int) -> None:
        self._arrays = _arrays(names, state)  # as long as the addresses mean something
        self._addresses = _addresses(self._arrays)
        first, halo = self._arrays[0], state[names[0]].halo
        cells = tuple(extent - 2 * halo for extent in first.shape)
        _check_tile(tile, cells, halo)
        counts = [extent // side for extent, side in zip(cells, tile.shape, strict=True)]
        extents = [side + 2 * seen for side in tile.shape]
        strides = [stride // first.itemsize for stride in first.strides]
        self._shape = (math.prod(counts), len(names) * math.prod(extents))
        self._start = (halo - seen) * sum(strides)
        self._counts, self._sides = _in_space(counts, 1), _in_space(tile.shape, 1)
        self._extents, self._strides = _in_space(extents, 1), _in_space(strides, 0)

    def gather(self, rows: NDArray[np.float64] | None) -> NDArray[np.float64]:
        if rows is None:
            rows = np.empty(self._shape)
        self._check(rows)
        _gather_blocks(
            self._addresses, self._start, self._counts, self._sides, self._extents, self._strides, rows
        )  # fmt: skip
        return rows

    def scatter(self, rows: NDArray[np.float64]) -> None:
        self._check(rows)
        _scatter_blocks(
            self._addresses, self._start, self._counts, self._sides, self._extents, self._strides, rows
        )  # fmt: skip

    def _check(self, rows: NDArray[np.float64]) -> None:
        if rows.shape != self._shape:
            raise FieldMismatch(
                f"Rows of shape {rows.shape} cannot hold {self._shape[0]} tiles of {self._shape[1]} columns: pass an "
                f"array of shape {self._shape}, one row per local tile."
            )


def _arrays(names: tuple[str, ...], state: State) -> list[NDArray[np.float64]]:
    arrays = [state[name].array for name in names]
    assert all(array.flags.c_contiguous and array.shape == arrays[0].shape for array in arrays), names
    return arrays


def _addresses(arrays: list[NDArray[np.float64]]) -> NDArray[np.uint64]:
    return np.array([array.ctypes.data for array in arrays], np.uint64)


def _in_space(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    """Say it in three dimensions, whatever there are: the loops are the same then."""
    first, second, third = (*(fill,) * (3 - len(values)), *values)
    return first, second, third


def _check_tile(tile: Tile, cells: tuple[int, ...], halo: int) -> None:
    if len(cells) != tile.ndim or any(extent % side for extent, side in zip(cells, tile.shape, strict=True)):
        raise FieldMismatch(
            f"A subdomain of {'x'.join(map(str, cells))} cells is not made of whole {tile}: make the grid with "
            f"grain={tile.shape}, which keeps tiles whole, as coupler run does."
        )
    if halo < tile.halo:
        raise FieldMismatch(
            f"The fields have a halo of {halo} cells, and the operator works on {tile}: what a tile needs to see is "
            f"not there. Set halo = {tile.halo} in the kernel."
        )


@intrinsic
def _load(typing_context, address, index):  # type: ignore[no-untyped-def]
    """Give ``((double *)address)[index]``."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        return builder.load(builder.gep(array, [arguments[1]]))

    return types.float64(types.uint64, types.int64), generate


@intrinsic
def _store(typing_context, address, index, value):  # type: ignore[no-untyped-def]
    """Do ``((double *)address)[index] = value``."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        builder.store(arguments[2], builder.gep(array, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, types.float64), generate


# Block by block of a line, column by column: what is written or read again is still in the first cache, so memory is
# passed over once whatever the number of columns.
@njit(cache=True, nogil=True)
def _gather(
    addresses: NDArray[np.uint64],
    line: int,
    lines: int,
    start: int,
    line_stride: int,
    plane_stride: int,
    rows: NDArray[np.float64],
) -> None:
    for number in range(rows.shape[0] // line):
        place = start + (number // lines) * plane_stride + (number % lines) * line_stride
        for first in range(0, line, _BLOCK):
            count = min(_BLOCK, line - first)
            block = rows[number * line + first : number * line + first + count]
            for column in range(addresses.size):
                for i in range(count):
                    block[i, column] = _load(addresses[column], place + first + i)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def _scatter(
    addresses: NDArray[np.uint64],
    line: int,
    lines: int,
    start: int,
    line_stride: int,
    plane_stride: int,
    rows: NDArray[np.float64],
) -> None:
    for number in range(rows.shape[0] // line):
        place = start + (number // lines) * plane_stride + (number % lines) * line_stride
        for first in range(0, line, _BLOCK):
            count = min(_BLOCK, line - first)
            block = rows[number * line + first : number * line + first + count]
            for column in range(addresses.size):
                for i in range(count):
                    _store(addresses[column], place + first + i, block[i, column])  # type: ignore[call-arg]


# A line of cells at a time, which is contiguous in both.
@njit(cache=True, nogil=True)
def _gather_blocks(
    addresses: NDArray[np.uint64],
    start: int,
    counts: tuple[int, int, int],
    sides: tuple[int, int, int],
    extents: tuple[int, int, int],
    strides: tuple[int, int, int],
    rows: NDArray[np.float64],
) -> None:
    for number in range(rows.shape[0]):
        row, place = rows[number], 0
        corner = start + _corner(number, counts, sides, strides)
        for address in addresses:
            for i in range(extents[0]):
                for j in range(extents[1]):
                    line = corner + i * strides[0] + j * strides[1]
                    for k in range(extents[2]):
                        row[place + k] = _load(address, line + k)  # type: ignore[call-arg]
                    place += extents[2]


@njit(cache=True, nogil=True)
def _scatter_blocks(
    addresses: NDArray[np.uint64],
    start: int,
    counts: tuple[int, int, int],
    sides: tuple[int, int, int],
    extents: tuple[int, int, int],
    strides: tuple[int, int, int],
    rows: NDArray[np.float64],
) -> None:
    for number in range(rows.shape[0]):
        row, place = rows[number], 0
        corner = start + _corner(number, counts, sides, strides)
        for address in addresses:
            for i in range(extents[0]):
                for j in range(extents[1]):
                    line = corner + i * strides[0] + j * strides[1]
                    for k in range(extents[2]):
                        _store(address, line + k, row[place + k])  # type: ignore[call-arg]
                    place += extents[2]


@njit(cache=True, nogil=True)
def _corner(
    number: int, counts: tuple[int, int, int], sides: tuple[int, int, int], strides: tuple[int, int, int]
) -> int:
    i, j, k = number // (counts[1] * counts[2]), number // counts[2] % counts[1], number % counts[2]
    return i * sides[0] * strides[0] + j * sides[1] * strides[1] + k * sides[2]


def check_kernel(kernel: Kernel) -> None:
    """Refuse a kernel that declares nothing to simulate or nothing to couple.

    Raises
    ------
    PluginError
        If the kernel has no fields or names one twice, has no operator, an operator over unknown fields, or one over
        tiles that its halo or its dimensions do not fit.
    """
    name = type(kernel).__name__
    if not kernel.fields:
        raise PluginError(f'Kernel "{name}" declares no fields: set fields = (Field("u"), ...).')
    if not (isinstance(kernel.fields, tuple | list) and all(isinstance(item, Field) for item in kernel.fields)):
        raise PluginError(f'Kernel "{name}" has fields = {kernel.fields!r}: write a tuple, fields = (Field("u"), ...).')
    if not kernel.operators:
        raise PluginError(f'Kernel "{name}" has no operator: make its expensive part an attribute of type Operator.')
    State(tuple(kernel.fields), (1,), 0)  # finds names that are given twice
    for attribute, operator in kernel.operators.items():
        operator.bound_to(kernel.fields)
        if operator.signature.tiled is not None:
            _check_fits(name, kernel, attribute, operator.signature.tiled.tile)


def _check_fits(name: str, kernel: Kernel, attribute: str, tile: Tile) -> None:
    if tuple(kernel.dimensions) != (tile.ndim,):
        raise PluginError(
            f'Kernel "{name}" works in {" or ".join(map(str, kernel.dimensions))} dimensions, its operator '
            f'"{attribute}" on {tile}: set dimensions = ({tile.ndim},).'
        )
    if kernel.halo < tile.halo:
        raise PluginError(
            f'Kernel "{name}" has a halo of {kernel.halo}, its operator "{attribute}" works on {tile}, which are not '
            f"seen whole: set halo = {tile.halo}."
        )
