"""Halo exchange: ``Grid.exchange`` against what people write by hand with mpi4py, and against one copy of the bytes.

Every rank has a block of the named size with one ghost cell around it, and everything wraps around; each system fills
the ghosts of all fields, corners included, axis after axis. The rivals keep their buffers from call to call, send all
fields of a face as one message and copy by themselves where an axis is not divided: nothing is left to tune but the
calls. A call counts as long as it takes the slowest rank.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from benchmarks.harness.limits import copies
from benchmarks.harness.ranks import Crew, Worker
from benchmarks.harness.timing import Effort, Repeat, Row, each, in_turns, row
from coupler.field import Field, State
from coupler.grid import Grid

RANKS = (2, 4)
BLOCKS = ((128, 128), (512, 512), (64, 64, 64))
FIELDS = (1, 3)
EFFORT = Effort(rounds=7, seconds=0.1, most=2000, least=20)


def run(
    ranks: Sequence[int] = RANKS,
    blocks: Sequence[Sequence[int]] = BLOCKS,
    fields: Sequence[int] = FIELDS,
    effort: Effort = EFFORT,
) -> list[Row]:
    """Time one exchange of every system; the answers are compared with the cells they stand for.

    Returns
    -------
    list of mapping
        ``case`` (ranks/R/FIELDSxBLOCK), ``system``, ``n``, ``median_s``, ``p10_s``, ``p90_s`` and ``bytes``, which one
        rank sends or copies.
    """
    rows: list[Row] = []
    for count in ranks:
        with Crew(f"{__name__}:Exchanger", count) as crew:
            for block in blocks:
                for several in fields:
                    rows.extend(_case(crew, count, block, several, effort))
    return rows


def _case(crew: Crew, ranks: int, block: Sequence[int], fields: int, effort: Effort) -> list[Row]:
    size = crew.call("prepare", block=list(block), fields=fields)[0]
    systems: dict[str, Repeat] = {
        name: partial(_on_slowest, crew, name) for name in ("coupler", *SYSTEMS, "memory-copy")
    }
    timings = in_turns(systems, effort)
    case = f"ranks/{ranks}/{fields}x{'x'.join(map(str, block))}"
    return [row(case, name, seconds, bytes=size) for name, seconds in timings.items()]


def _on_slowest(crew: Crew, system: str, times: int) -> NDArray[np.float64]:
    slowest: NDArray[np.float64] = np.max(crew.call("time", system=system, times=times), axis=0)
    return slowest


@dataclass(frozen=True)
class Face:
    """Cells that move by one block along an axis: who gets mine, whose I get, and which layers they are.

    ``outgoing`` and ``incoming`` are the buffers of a message, (fields, *layers).
    """

    target: int
    source: int
    sent: tuple[slice, ...]
    received: tuple[slice, ...]
    outgoing: NDArray[np.float64]
    incoming: NDArray[np.float64]


class Packed(ABC):
    """What all systems that pack their messages share; derived classes move the two faces of an axis.

    Parameters
    ----------
    grid : Grid
        Where the cells are; periodic.
    arrays : sequence of ndarray
        The fields with their ghosts.
    """

    def __init__(self, grid: Grid, arrays: Sequence[NDArray[np.float64]]) -> None:
        self._arrays = arrays
        self._comm = grid.comm.Create_cart(grid.dims, periods=[True] * grid.ndim)
        self._axes = [tuple(self._faces(axis, grid.halo)) for axis in range(grid.ndim)]

    def exchange(self) -> None:
        """Fill all ghosts."""
        for axis, faces in enumerate(self._axes):
            if faces[0].target == self._comm.rank:
                for face in faces:
                    for array in self._arrays:
                        array[face.received] = array[face.sent]
            else:
                self.move(axis, faces)

    @abstractmethod
    def move(self, axis: int, faces: Sequence[Face]) -> None:
        """Move both faces of an axis."""

    def pack(self, face: Face) -> None:
        """Put the layers of all fields into the message."""
        for array, part in zip(self._arrays, face.outgoing, strict=True):
            part[...] = array[face.sent]

    def unpack(self, face: Face) -> None:
        """Put what came into the ghosts of all fields."""
        for array, part in zip(self._arrays, face.incoming, strict=True):
            array[face.received] = part

    def close(self) -> None:
        """Give back what MPI holds."""
        self._comm.Free()

    def _faces(self, axis: int, halo: int) -> Iterator[Face]:
        below, above = self._comm.Shift(axis, 1)
        cells = self._arrays[0].shape[axis] - 2 * halo
        for source, target, sent, received in ((below, above, cells, 0), (above, below, halo, cells + halo)):
            mine, theirs = (_layers(self._arrays[0].ndim, axis, first, halo) for first in (sent, received))
            shape = (len(self._arrays), *self._arrays[0][mine].shape)
            yield Face(target, source, mine, theirs, np.empty(shape), np.empty(shape))


class IsendIrecv(Packed):
    """The textbook: receive, pack and send on both sides, wait, unpack."""

    def move(self, axis: int, faces: Sequence[Face]) -> None:
        requests = [self._comm.Irecv(face.incoming, face.source, tag) for tag, face in enumerate(faces)]
        for tag, face in enumerate(faces):
            self.pack(face)
            requests.append(self._comm.Isend(face.outgoing, face.target, tag))
        MPI.Request.Waitall(requests)
        for face in faces:
            self.unpack(face)


class Sendrecv(Packed):
    """The short form: one face after the other."""

    def move(self, axis: int, faces: Sequence[Face]) -> None:
        for face in faces:
            self.pack(face)
            self._comm.Sendrecv(face.outgoing, face.target, 0, face.incoming, face.source, 0)
            self.unpack(face)


class Persistent(Packed):
    """The textbook with requests that are made once."""

    def __init__(self, grid: Grid, arrays: Sequence[NDArray[np.float64]]) -> None:
        super().__init__(grid, arrays)
        receive, send = self._comm.Recv_init, self._comm.Send_init
        self._receives = [
            [receive(face.incoming, face.source, tag) for tag, face in enumerate(faces)] for faces in self._axes
        ]
        self._sends = [
            [send(face.outgoing, face.target, tag) for tag, face in enumerate(faces)] for faces in self._axes
        ]

    def move(self, axis: int, faces: Sequence[Face]) -> None:
        MPI.Prequest.Startall(self._receives[axis])
        for face in faces:
            self.pack(face)
        MPI.Prequest.Startall(self._sends[axis])
        MPI.Request.Waitall(self._receives[axis] + self._sends[axis])
        for face in faces:
            self.unpack(face)

    def close(self) -> None:
        for requests in self._receives + self._sends:
            for request in requests:
                request.Free()
        super().close()


class NeighbourCollective:
    """Neighbourhood collectives on datatypes, as the grid has them, but begun anew in every call."""

    def __init__(self, grid: Grid, arrays: Sequence[NDArray[np.float64]]) -> None:
        cart = grid.comm.Create_cart(grid.dims, periods=[True] * grid.ndim)
        self._axes = []
        for axis in range(grid.ndim):
            below, above = cart.Shift(axis, 1)
            cells, halo = arrays[0].shape[axis] - 2 * grid.halo, grid.halo
            upwards = grid.comm.Create_dist_graph_adjacent([below], [above])
            downwards = grid.comm.Create_dist_graph_adjacent([above], [below])
            self._axes.append(
                (
                    (upwards, _type(arrays, axis, cells, halo), _type(arrays, axis, 0, halo)),
                    (downwards, _type(arrays, axis, halo, halo), _type(arrays, axis, cells + halo, halo)),
                )
            )
        cart.Free()

    def exchange(self) -> None:
        """Fill all ghosts."""
        for faces in self._axes:
            MPI.Request.Waitall(
                [
                    comm.Ineighbor_alltoallw((MPI.BOTTOM, [1], [0], [sent]), (MPI.BOTTOM, [1], [0], [received]))
                    for comm, sent, received in faces
                ]
            )

    def close(self) -> None:
        """Give back what MPI holds."""
        for comm, *types in (face for faces in self._axes for face in faces):
            comm.Free()
            for kind in types:
                kind.Free()


SYSTEMS: dict[str, Any] = {
    "mpi-isend-irecv": IsendIrecv,
    "mpi-persistent": Persistent,
    "mpi-sendrecv": Sendrecv,
    "mpi-neighbour-collective": NeighbourCollective,
}


class Exchanger(Worker):
    """A rank with its block."""

    _grid: Grid | None = None

    def prepare(self, block: Sequence[int], fields: int) -> int:
        """Make all systems for a block, see that each is right, and give the bytes that one rank sends."""
        self.close()
        dims = MPI.Compute_dims(self.comm.size, len(block))
        grid = self._grid = Grid([n * cells for n, cells in zip(dims, block, strict=True)], comm=self.comm)
        assert grid.local_shape == tuple(block), f"{grid} gives this rank other cells than {block}"
        state = grid.state(tuple(Field(f"f{number}") for number in range(fields)))
        arrays = [local.array for local in state.values()]
        self._rivals = {name: make(grid, arrays) for name, make in SYSTEMS.items()}
        self._calls: dict[str, Repeat] = {"coupler": each(partial(grid.exchange, state))}
        self._calls |= {name: each(rival.exchange) for name, rival in self._rivals.items()}
        for name, repeat in self._calls.items():
            _fill(grid, state)
            repeat(1)
            _check(grid, state, name)
        size = sum(8 * fields * 2 * math.prod(grid.local_shape) // cells for cells in grid.local_shape)
        self._calls["memory-copy"] = copies(size)
        return size

    def time(self, system: str, times: int) -> list[float]:
        """Give the seconds of so many exchanges in a row."""
        self.comm.Barrier()
        return self._calls[system](times).tolist()

    def close(self) -> None:
        if self._grid is not None:
            for rival in self._rivals.values():
                rival.close()
            self._grid.close()
            self._grid = None


def _layers(ndim: int, axis: int, first: int, thickness: int) -> tuple[slice, ...]:
    return tuple(slice(first, first + thickness) if each_axis == axis else slice(None) for each_axis in range(ndim))


def _type(arrays: Sequence[NDArray[np.float64]], axis: int, first: int, thickness: int) -> MPI.Datatype:
    """Describe the same layers of all arrays by their addresses."""
    sizes = list(arrays[0].shape)
    starts, subsizes = [0] * len(sizes), list(sizes)
    starts[axis], subsizes[axis] = first, thickness
    part = MPI.DOUBLE.Create_subarray(sizes, subsizes, starts)
    whole = MPI.Datatype.Create_struct([1] * len(arrays), [MPI.Get_address(a) for a in arrays], [part] * len(arrays))
    part.Free()
    return whole.Commit()


def _fill(grid: Grid, state: State) -> None:
    """Number the cells as the whole grid does, and forget the ghosts."""
    for number, local in enumerate(state.values()):
        local.array[...] = -1.0
        local.interior[...] = grid.ids.reshape(grid.local_shape) + 0.25 * number


def _check(grid: Grid, state: State, system: str) -> None:
    """Refuse a system that left a ghost without the number of the cell it stands for."""
    around = [
        np.arange(first - grid.halo, last + grid.halo) % cells
        for first, last, cells in zip(grid.start, grid.stop, grid.shape, strict=True)
    ]
    expected = np.ravel_multi_index(np.ix_(*around), grid.shape)
    for number, local in enumerate(state.values()):
        assert np.array_equal(local.array, expected + 0.25 * number), f"{system} leaves wrong ghosts"
