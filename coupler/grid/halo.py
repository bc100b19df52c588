"""The halo exchange: who sends which layers to whom, as persistent requests that are made once per state."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.field import State

_Message: TypeAlias = "tuple[MPI.BottomType, list[int], list[int], list[MPI.Datatype]]"


@dataclass(frozen=True)
class Shift:
    """Move cells by one block along an axis: who sends to me, to whom I send, and which layers."""

    comm: MPI.Distgraphcomm
    axis: int
    sources: list[int]
    targets: list[int]
    sent: int
    received: int


@dataclass(frozen=True)
class HaloPlan:
    """Persistent requests of one state: a pair per axis, to be done one axis after another.

    It is found by the state's identity, not by addresses: memory is reused on one rank and not on another, and
    then not all ranks would come to build a plan, which is collective.
    """

    owner: "weakref.ref[State]"
    rounds: tuple[list[MPI.Prequest], ...]
    types: tuple[MPI.Datatype, ...]

    @staticmethod
    def of(state: State, rounds: Sequence[tuple[Shift, Shift]], halo: int) -> "HaloPlan":
        """Make the requests of a state. Collective: yes."""
        arrays = [local.array for local in state.values()]
        types: list[MPI.Datatype] = []

        def message(neighbours: list[int], axis: int, first: int) -> _Message:
            layers = [_layers(arrays, axis, first, halo) for _ in neighbours]
            types.extend(layers)  # kept as long as the requests: Open MPI has their handles in its schedule
            return MPI.BOTTOM, [1] * len(layers), [0] * len(layers), layers

        def request(shift: Shift) -> MPI.Prequest:
            outgoing = message(shift.targets, shift.axis, shift.sent)
            return shift.comm.Neighbor_alltoallw_init(outgoing, message(shift.sources, shift.axis, shift.received))

        requests = tuple([request(shift) for shift in pair] for pair in rounds)
        return HaloPlan(weakref.ref(state), requests, tuple(types))

    def free(self) -> None:
        """Free requests and datatypes. Collective: no."""
        for request in (request for pair in self.rounds for request in pair):
            request.Free()
        for datatype in self.types:
            datatype.Free()


def _layers(arrays: list[NDArray[np.float64]], axis: int, first: int, thickness: int) -> MPI.Datatype:
    """Describe the same layers of all arrays by their addresses, as one datatype.

    They span the other axes with their halos: the stale ones are overwritten when their own axis has its turn.
    """
    assert all(array.flags.c_contiguous and array.dtype == np.float64 for array in arrays)
    sizes = list(arrays[0].shape)
    starts = [first if dimension == axis else 0 for dimension in range(len(sizes))]
    subsizes = [thickness if dimension == axis else cells for dimension, cells in enumerate(sizes)]
    part = MPI.DOUBLE.Create_subarray(sizes, subsizes, starts)
    addresses = [MPI.Get_address(array) for array in arrays]
    layers = MPI.Datatype.Create_struct([1] * len(arrays), addresses, [part] * len(arrays)).Commit()
    part.Free()
    return layers
