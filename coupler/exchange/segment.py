"""Segments: anonymous shared memory between the processes of one user on one node.

A segment is a memfd. It never has a name in ``/dev/shm``, only its owner's processes may open it, and the kernel frees
it when the last process that maps it is gone, however that happened.
"""

import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from coupler.cgroup import memory_left
from coupler.errors import CouplerError

# A cache line: what different processes write must never share one.
LINE = 64
_NAME = "coupler"


@dataclass(frozen=True)
class SegmentAddress:
    """How another process of the same user on the same node opens a segment.

    Parameters
    ----------
    pid, descriptor : int
        Its owner, and the number it has there.
    size : int
        Bytes.
    """

    pid: int
    descriptor: int
    size: int


class Segment:
    """A mapped piece of shared memory, all zeros at first; :meth:`create` or :meth:`attach` it.

    Attributes
    ----------
    address : SegmentAddress
        Where to :meth:`attach`; valid for others as long as the owner has not closed it.
    inode : int
        What the system calls it, the same in every process that maps it.
    memory : memoryview
        The bytes. They stay mapped as long as somebody holds a view of them.
    """

    def __init__(self, address: SegmentAddress, descriptor: int) -> None:
        self.address = address
        self._descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino
        self.memory = memoryview(mmap.mmap(descriptor, address.size))

    @classmethod
    def create(cls, size: int) -> "Segment":
        """Make a segment that this process owns.

        Parameters
        ----------
        size : int
            Bytes, at least 1.

        Raises
        ------
        CouplerError
            If the node has no room for it.

        Collective: no.
        """
        free = available_bytes()
        if size > free:  # asked first: the system would rather kill somebody than say so
            raise _no_room(size, f"{free / 2**20:.0f} MiB are free")
        descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            os.close(descriptor)
            raise _no_room(size, error.strerror or str(error)) from error
        return cls(SegmentAddress(os.getpid(), descriptor, size), descriptor)

    @classmethod
    def attach(cls, address: SegmentAddress) -> "Segment":
        """Map a segment of another process of this node.

        Raises
        ------
        CouplerError
            If its owner is gone, has closed it or belongs to another user.

        Collective: no.
        """
        path = Path(f"/proc/{address.pid}/fd/{address.descriptor}")
        try:
            if f"memfd:{_NAME}" not in str(path.readlink()):  # closed there, and the number given out again
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CouplerError(
                f"The shared memory of process {address.pid} cannot be opened ({error.strerror}): all processes of a "
                "node must run as one user and see each other in /proc. Or use --set exchange.transport=inprocess."
            ) from error
        segment = cls(address, descriptor)
        segment.close()  # the mapping has one of its own
        return segment

    def close(self) -> None:
        """Close the descriptor: nobody can attach any more; what is mapped stays. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def whole_lines(size: int) -> int:
    """Round bytes up to whole cache lines."""
    return -(-size // LINE) * LINE


def available_bytes() -> int:
    """Memory the system can give without taking it from somebody, swap left out, and the control group may take."""
    left = memory_left()
    return _available_on_node() if left is None else min(_available_on_node(), left)


def _available_on_node() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(amount.split()[0])
    raise AssertionError("Linux says since 3.14 how much memory is available")


def _no_room(size: int, why: str) -> CouplerError:
    return CouplerError(
        f"The node has no {size / 2**20:.0f} MiB of shared memory left ({why}). Use a smaller exchange.slot_elements "
        "or fewer ranks per node."
    )
