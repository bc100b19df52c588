"""The arena: one anonymous shared-memory segment per node, a slot in it for every rank and operator.

The segment is a memfd. It never has a name in ``/dev/shm``, only its owner's processes may open it, and the
kernel frees it when the last process that maps it is gone, however that happened.
"""

import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.exchange.doorbell import ring

_NAME = "coupler-arena"
# A cache line: what different processes write must never share one.
_LINE = 64
_BELL, _STOP, _SERVER, _HEADER_LINES = 0, 1, 2, 3
_REQUEST, _ANSWER, _CONTROL_LINES = 0, 1, 2


@dataclass(frozen=True)
class SlotShape:
    """What one slot can hold.

    Parameters
    ----------
    operator : int
        Index of the operator it belongs to.
    capacity : int
        Elements that fit.
    n_in, n_out : int
        Columns of the inputs and outputs.
    """

    operator: int
    capacity: int
    n_in: int
    n_out: int

    @property
    def bytes(self) -> int:
        """Size of the slot, control lines included, a multiple of a cache line."""
        return _CONTROL_LINES * _LINE + sum(
            _padded(8 * self.capacity * columns) for columns in (self.n_in, self.n_out, 1)
        )


@dataclass(frozen=True)
class ArenaLayout:
    """Where everything is in the segment: plain data, the same in every process that maps it."""

    slots: tuple[SlotShape, ...]

    @property
    def bytes(self) -> int:
        """Size of the segment."""
        return _HEADER_LINES * _LINE + sum(slot.bytes for slot in self.slots)

    def offset(self, index: int) -> int:
        """First byte of a slot."""
        return _HEADER_LINES * _LINE + sum(slot.bytes for slot in self.slots[:index])


@dataclass(frozen=True)
class ArenaAddress:
    """How another process of the same user on the same node opens the segment."""

    pid: int
    descriptor: int
    layout: ArenaLayout


class Slot:
    """One rank's desk in the arena for one operator: a question on it, an answer beside it.

    The rank writes inputs, count, dt and version, then the request number; the server writes mean and score,
    then the answer number. An answer whose number is not the last request's is late and means nothing.
    """

    def __init__(self, shape: SlotShape, memory: memoryview) -> None:
        self.shape = shape
        words = np.frombuffer(memory[: _CONTROL_LINES * _LINE], dtype=np.uint32).reshape(_CONTROL_LINES, -1)
        self.request = words[_REQUEST, 0:1]
        self.count = words[_REQUEST, 1:2]
        self.version = words[_REQUEST, 2:3]
        self.dt: NDArray[np.float64] = words[_REQUEST, 4:6].view(np.float64)
        self.answer = words[_ANSWER, 0:1]
        self.seconds: NDArray[np.float64] = words[_ANSWER, 4:6].view(np.float64)
        place = _CONTROL_LINES * _LINE
        arrays = []
        for columns in (shape.n_in, shape.n_out, 1):
            size = 8 * shape.capacity * columns
            arrays.append(
                np.frombuffer(memory[place : place + size], dtype=np.float64).reshape(shape.capacity, columns)
            )
            place += _padded(size)
        self.inputs, self.mean, self.score = arrays[0], arrays[1], arrays[2][:, 0]

    @property
    def pending(self) -> bool:
        """Whether a question waits for its answer."""
        return bool(self.request[0] != self.answer[0])


class Arena:
    """The mapped segment: the header's bell and flags, and the slots.

    Attributes
    ----------
    bell : ndarray (1,) of uint32
        What ranks ring; it counts requests.
    stop : ndarray (1,) of uint32
        Nonzero asks the server to return.
    server_pid : ndarray (1,) of uint32
        Process of the server, 0 until it listens.
    slots : list of Slot
        One per rank and operator.
    """

    def __init__(self, layout: ArenaLayout, descriptor: int, owner: int) -> None:
        self.layout = layout
        self._descriptor = descriptor
        self._owner = owner
        self._mapping = mmap.mmap(descriptor, layout.bytes)
        memory = memoryview(self._mapping)
        words = np.frombuffer(memory[: _HEADER_LINES * _LINE], dtype=np.uint32).reshape(_HEADER_LINES, -1)
        self.bell, self.stop, self.server_pid = words[_BELL, 0:1], words[_STOP, 0:1], words[_SERVER, 0:1]
        self.slots = [
            Slot(shape, memory[layout.offset(index) : layout.offset(index) + shape.bytes])
            for index, shape in enumerate(layout.slots)
        ]

    @classmethod
    def create(cls, layout: ArenaLayout) -> "Arena":
        """Make a fresh segment, all zeros, owned by this process.

        Raises
        ------
        CouplerError
            If the node has no room for it.

        Collective: no; one rank per node calls it.
        """
        descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            os.posix_fallocate(descriptor, 0, layout.bytes)
        except OSError as error:
            os.close(descriptor)
            raise CouplerError(
                f"The node has no {layout.bytes / 2**20:.0f} MiB of shared memory left for the arena "
                f"({error.strerror}). Use a smaller exchange.slot_elements or fewer ranks per node."
            ) from error
        return cls(layout, descriptor, os.getpid())

    @classmethod
    def attach(cls, address: ArenaAddress) -> "Arena":
        """Map the segment another process of this node made.

        Raises
        ------
        CouplerError
            If its owner is gone or belongs to another user.

        Collective: no.
        """
        path = Path(f"/proc/{address.pid}/fd/{address.descriptor}")
        try:
            if f"memfd:{_NAME}" not in str(path.readlink()):  # closed there, and the number given out again
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CouplerError(
                f"The arena of process {address.pid} cannot be opened ({error.strerror}): all processes of a node must "
                "run as one user and see each other in /proc. Or use --set exchange.transport=inprocess."
            ) from error
        return cls(address.layout, descriptor, address.pid)

    @property
    def address(self) -> ArenaAddress:
        """Where to :meth:`attach`; only the owner's is valid for others."""
        return ArenaAddress(self._owner, self._descriptor, self.layout)

    def dismiss(self) -> None:
        """Ask the server to return from its work."""
        self.stop[0] = 1
        self.bell += np.uint32(1)
        ring(self.bell)

    def close(self) -> None:
        """Close the descriptor. The mapping lives as long as somebody holds a view of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _padded(size: int) -> int:
    return -(-size // _LINE) * _LINE
