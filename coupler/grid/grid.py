"""Grid: Cartesian decomposition in 1, 2 or 3 dimensions and halo exchange.

One communicator per axis and direction, so that no rank ever has two neighbours that could be confused; the
reasons are in ``docs/decisions/0003-halo-by-direction.md``.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.clock import SpanTaker
from coupler.decomposition import block, choose_dims
from coupler.errors import ConfigError, FieldMismatch, LifecycleError
from coupler.field import Field, State
from coupler.grid.halo import HaloPlan, Shift
from coupler.grid.waiting import wait

Scalar = TypeVar("Scalar", bound=np.generic)
T = TypeVar("T")


class Grid:
    """A box of equal cells, dealt out to the ranks in blocks.

    Parameters
    ----------
    shape : sequence of 1 to 3 int
        Cells per dimension, all ranks together.
    length : sequence of float, optional
        Size of the box per dimension, in the kernel's unit of length; 1.0 each if None.
    periodic : bool or sequence of bool
        Whether a dimension wraps around, for all or one by one.
    halo : int
        Ghost width in cells on both sides of every dimension.
    grain : sequence of int, optional
        Cells per dimension that belong to one rank together, as those of a tile; single cells if None.
    comm : mpi4py communicator, optional
        The ranks that share the grid, ``MPI.COMM_WORLD`` if None. The grid talks on a communicator of its own.

    Attributes
    ----------
    comm, size, rank
        The grid's own communicator, its ranks in all and this one (numbered as in the one given).
    dims, coords : tuple of int
        Ranks per dimension, and this rank's place among them (C order).
    start, stop, local_shape : tuple of int
        First global cell of this rank per dimension, one past the last, and how many.
    spacing : tuple of float
        Size of a cell per dimension.
    exchange_seconds : float
        Time spent in :meth:`exchange` so far [s].
    spans : SpanTaker or None
        Told of every exchange, where the run keeps a timeline.

    Raises
    ------
    ConfigError
        If shape, length, periodic, halo or grain mean nothing, the shape is not made of whole grains, or the ranks are
        too many for them.

    Collective: yes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        length: Sequence[float] | None = None,
        periodic: bool | Sequence[bool] = True,
        halo: int = 1,
        grain: Sequence[int] | None = None,
        comm: MPI.Intracomm | None = None,
    ) -> None:
        self.shape = _each("shape", shape, (1, 2, 3), _is_count, "1 to 3 positive whole numbers, as in [128, 128]")
        ndim = self.ndim = len(self.shape)
        sizes = (1.0,) * ndim if length is None else length
        sizes = _each("length", sizes, (ndim,), _is_size, f"{ndim} positive numbers, one for each dimension")
        self.length = tuple(map(float, sizes))
        wraps = (periodic,) * ndim if isinstance(periodic, bool) else periodic
        self.periodic = _each(
            "periodic", wraps, (ndim,), lambda wrap: isinstance(wrap, bool), f"true or false, once or {ndim} times"
        )
        if not (halo == 0 or _is_count(halo)):
            raise ConfigError(f"A halo of {halo} cells means nothing: set the kernel's halo to 0, 1, 2 or more.")
        self.halo = halo
        together = (1,) * ndim if grain is None else grain
        self.grain = _each("grain", together, (ndim,), _is_count, f"{ndim} positive whole numbers")
        parent = MPI.COMM_WORLD if comm is None else comm
        self.size, self.rank = parent.size, parent.rank
        self.dims = choose_dims(self.size, self.shape, self.halo, self.grain)
        self.coords = self._coords(self.rank)
        self.start = tuple(int(cells.start) for cells in self._block(self.rank))
        self.stop = tuple(int(cells.stop) for cells in self._block(self.rank))
        self.local_shape = tuple(last - first for first, last in zip(self.start, self.stop, strict=True))
        self.spacing = tuple(size / cells for size, cells in zip(self.length, self.shape, strict=True))
        # Not Dup: it would copy the topology of a Cartesian parent, and graphs on top of that are broken
        # in Open MPI 5.0 (open-mpi/ompi#14420).
        self.comm = MPI.Intracomm(parent.Split(0, self.rank))
        self._rounds = tuple(
            self._shifts(axis) for axis in range(ndim) if halo > 0 and (self.periodic[axis] or self.dims[axis] > 1)
        )
        self._plans: dict[int, HaloPlan] = {}
        self.exchange_seconds = 0.0
        self.spans: SpanTaker | None = None
        self._open = True

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Global C-order number of every local cell, (n_local,), in local C order."""
        return self.number((1,) * self.ndim)

    def number(self, block: Sequence[int]) -> NDArray[np.int64]:
        """Give every block of so many cells per dimension its number.

        Parameters
        ----------
        block : sequence of int
            Cells per dimension; the subdomains of all ranks are made of whole ones, as with ``grain``.

        Returns
        -------
        ndarray (n_local,) of int64
            Global C-order number of every local block, in local C order: the same whatever the decomposition.

        Collective: no.
        """
        assert not any(cells % side for cells, side in zip(self.local_shape, block, strict=True)), (block, self)
        ranges = (
            np.arange(first // side, last // side)
            for first, last, side in zip(self.start, self.stop, block, strict=True)
        )
        counts = [cells // side for cells, side in zip(self.shape, block, strict=True)]
        return np.ravel_multi_index(np.ix_(*ranges), counts).reshape(-1).astype(np.int64, copy=False)

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Give this rank's cell centres along an axis, (local_shape[axis],), in the unit of ``length``.

        They come from global indices: bitwise the same whatever the decomposition.
        """
        cells = np.arange(self.start[axis], self.stop[axis], dtype=np.float64)
        return (cells + 0.5) * self.spacing[axis]

    def state(self, fields: tuple[Field, ...]) -> State:
        """Make the fields on this rank's block, halo included, all zero."""
        return State(fields, self.local_shape, self.halo)

    def exchange(self, state: State) -> None:
        """Fill the halos of all fields with the neighbours' cells, corners and edges included.

        Halos outside a non-periodic edge stay as they are, so a kernel may keep boundary values there; they are
        passed along the edge into the corners of the neighbours. The first exchange of a state builds a plan, which
        is kept for as long as the state lives; all ranks must exchange the same states in the same order.

        Raises
        ------
        FieldMismatch, LifecycleError
            If a field has another shape or halo than the grid; if the grid is closed.

        Collective: yes.
        """
        started = time.perf_counter()
        for requests in self._plan_of(state).rounds:
            MPI.Prequest.Startall(requests)
            wait(requests)
        stopped = time.perf_counter()
        self.exchange_seconds += stopped - started
        if self.spans is not None:
            self.spans.span("halo", started, stopped)

    def reflect(self, state: State) -> None:
        """Fill the halos outside non-periodic edges with the nearest cells, mirrored: nothing flows through.

        Before or after :meth:`exchange` makes no difference once both are done. Raises FieldMismatch as it does.

        Collective: no.
        """
        self._check(state)
        halo = self.halo
        for axis in range(self.ndim):
            if self.periodic[axis]:
                continue
            cells = self.local_shape[axis]
            for local in state.values():
                layers = np.moveaxis(local.array, axis, 0)
                if self.coords[axis] == 0:
                    layers[:halo] = layers[halo : 2 * halo][::-1]
                if self.coords[axis] == self.dims[axis] - 1:
                    layers[cells + halo :] = layers[cells : cells + halo][::-1]

    def gather(self, array: NDArray[Scalar]) -> NDArray[Scalar] | None:
        """Put the blocks of all ranks together: the array of the grid's shape on rank 0, None elsewhere.

        Parameters
        ----------
        array : ndarray, local_shape
            This rank's cells without halo, of any number type, the same on all ranks.

        Raises
        ------
        FieldMismatch, LifecycleError
            If the array is not this rank's block; if the grid is closed.

        Collective: yes.
        """
        self._require_open()
        if array.shape != self.local_shape:
            raise FieldMismatch(
                f"rank {self.rank}: gather got an array of shape {array.shape}, the block has {self.local_shape} cells "
                'and would land in the wrong place: pass the interior, state["..."].interior.'
            )
        counts = self._counts() if self.rank == 0 else []
        pieces = np.empty(sum(counts), array.dtype)
        wait([self.comm.Igatherv(np.ascontiguousarray(array), (pieces, counts) if self.rank == 0 else None)])
        if self.rank > 0:
            return None
        whole = np.empty(self.shape, array.dtype)
        for rank, piece in enumerate(np.split(pieces, np.cumsum(counts)[:-1])):
            target = whole[self._block(rank)]
            target[...] = piece.reshape(target.shape)
        return whole

    def scatter(self, whole: NDArray[Scalar] | None) -> NDArray[Scalar]:
        """Deal out an array of the grid's shape on rank 0 to all ranks; the inverse of :meth:`gather`.

        Raises
        ------
        FieldMismatch, LifecycleError
            On all ranks, if rank 0 did not give an array of the grid's shape; if the grid is closed.

        Collective: yes.
        """
        self._require_open()
        # All ranks must learn of a wrong array, or all but one would wait for ever.
        shape, dtype = self.comm.bcast(None if whole is None else (whole.shape, whole.dtype)) or (None, None)
        if shape != self.shape:
            raise FieldMismatch(
                f"scatter got {'nothing' if shape is None else f'an array of shape {shape}'} on rank 0, the grid has "
                f"{self.shape} cells: pass the whole array there; the other ranks may pass None."
            )
        blocks = [] if whole is None or self.rank > 0 else [whole[self._block(rank)] for rank in range(self.size)]
        outgoing = (np.concatenate(list(map(np.ravel, blocks))), self._counts()) if blocks else None
        mine: NDArray[Scalar] = np.empty(self.local_shape, dtype)
        wait([self.comm.Iscatterv(outgoing, mine)])
        return mine

    def collect(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Give a few numbers of every rank to every rank.

        Parameters
        ----------
        values : ndarray
            This rank's numbers, of the same shape and type on all ranks.

        Returns
        -------
        ndarray (ranks, ...)
            Everybody's, in rank order: who adds them up gets the same bits on every rank.

        Raises
        ------
        LifecycleError
            If the grid is closed.

        Collective: yes.
        """
        self._require_open()
        everyones = np.empty((self.size, *values.shape), values.dtype)
        wait([self.comm.Iallgather(np.ascontiguousarray(values), everyones)])
        return everyones

    def close(self) -> None:
        """Free communicators, requests and datatypes; a second call does nothing.

        Collective: yes.
        """
        if not self._open:
            return
        self._open = False
        for plan in self._plans.values():
            plan.free()
        self._plans.clear()
        for shift in (shift for pair in self._rounds for shift in pair):
            shift.comm.Free()
        self.comm.Free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A rank that fails alone must not wait for the others in a collective: its error would never be seen.
        if kind is None:
            self.close()

    def __repr__(self) -> str:
        owned = ", ".join(f"{first}:{last}" for first, last in zip(self.start, self.stop, strict=True))
        wraps = ", ".join("periodic" if wrap else "bounded" for wrap in self.periodic)
        return (
            f"Grid of {_times(self.shape)} cells on {_times(self.dims)} ranks\n"
            f"  length: {_times(self.length)} ({wraps})\n  halo: {self.halo}\n"
            f"  rank {self.rank} at {self.coords}: cells [{owned}]"
        )

    def _coords(self, rank: int) -> tuple[int, ...]:
        return tuple(int(place) for place in np.unravel_index(rank, self.dims))

    def _block(self, rank: int) -> tuple[slice, ...]:
        return tuple(map(block, self._coords(rank), self.dims, self.shape, self.grain))

    def _counts(self) -> list[int]:
        return [math.prod(cells.stop - cells.start for cells in self._block(rank)) for rank in range(self.size)]

    def _neighbours(self, axis: int, step: int) -> list[int]:
        """Name the rank one block further along the axis; none outside a non-periodic edge."""
        place = list(self.coords)
        place[axis] += step
        if self.periodic[axis]:
            place[axis] %= self.dims[axis]
        elif not 0 <= place[axis] < self.dims[axis]:
            return []
        return [int(np.ravel_multi_index(place, self.dims))]

    def _shifts(self, axis: int) -> tuple[Shift, Shift]:
        below, above = self._neighbours(axis, -1), self._neighbours(axis, 1)
        cells, halo = self.local_shape[axis], self.halo
        upwards = self.comm.Create_dist_graph_adjacent(below, above)
        downwards = self.comm.Create_dist_graph_adjacent(above, below)
        return (
            Shift(upwards, axis, below, above, sent=cells, received=0),
            Shift(downwards, axis, above, below, sent=halo, received=cells + halo),
        )

    def _plan_of(self, state: State) -> HaloPlan:
        self._require_open()
        plan = self._plans.get(id(state))
        if plan is None or plan.owner() is not state:
            self._check(state)
            # Not in a callback of the collector, which may run in the middle of any MPI call.
            for key in [key for key, old in self._plans.items() if old.owner() is None]:
                self._plans.pop(key).free()
            plan = self._plans[id(state)] = HaloPlan.of(state, self._rounds, self.halo)
        return plan

    def _check(self, state: State) -> None:
        expected = tuple(cells + 2 * self.halo for cells in self.local_shape)
        for name, local in state.items():
            if local.halo != self.halo or local.array.shape != expected:
                raise FieldMismatch(
                    f'rank {self.rank}: field "{name}" has {local.interior.shape} cells and halo {local.halo}, the '
                    f"grid {self.local_shape} and {self.halo}, so cells would land in the wrong place: make the state "
                    "with grid.state(fields)."
                )

    def _require_open(self) -> None:
        if not self._open:
            raise LifecycleError("This grid is closed and can no longer communicate: do so inside its with block.")


def _each(
    key: str, values: Sequence[T], counts: tuple[int, ...], fits: Callable[[T], bool], wanted: str
) -> tuple[T, ...]:
    if not (isinstance(values, Sequence) and len(values) in counts and all(map(fits, values))):
        raise ConfigError(f"grid.{key} = {values} describes no grid: give {wanted}.")
    return tuple(values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.12g}" for value in values)
