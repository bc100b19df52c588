"""The shared transport: questions and answers lie in the node's arena, only their numbers are signalled."""

import os
import select
import time

import numpy as np
from numpy.typing import NDArray

from coupler.exchange.arena import Arena
from coupler.exchange.doorbell import ring, wait_for_change
from coupler.exchange.transport import Answer, Transport
from coupler.records import Reason

# How often a waiting rank looks whether the server still lives [s]; its death is noticed within this time.
_LIVENESS_SECONDS = 0.02


class SharedTransport(Transport):
    """A rank's slot in the arena and the doorbell of the server that answers it.

    Parameters
    ----------
    arena : Arena
        The node's segment; the server's process number must be in it.
    slot : int
        Which slot is this rank's for this operator.
    """

    def __init__(self, arena: Arena, slot: int) -> None:
        self._arena = arena
        self._slot = arena.slots[slot]
        self._server = _ProcessWatch(int(arena.server_pid[0]))
        self.capacity = self._slot.shape.capacity
        self._count = 0

    def inputs(self, count: int) -> NDArray[np.float64]:
        """Give this rank's part of the arena: what is gathered into it is where the server reads."""
        return self._slot.inputs[:count]

    def ask(self, count: int, dt: float, version: int) -> None:
        """Send the question: number it and ring. An older one still unanswered is abandoned by its number."""
        slot = self._slot
        self._count = count
        slot.count[0], slot.version[0], slot.dt[0] = count, version, dt
        slot.request += np.uint32(1)  # the whole array: it wraps round without a word
        self._arena.bell += np.uint32(1)
        ring(self._arena.bell)

    def answer(self, deadline: float) -> Answer:
        """Wait until the answer's number is the question's.

        The deadline runs from here, not from the asking: audits are computed in between, and a question must not
        be given up because many of its elements were audited.
        """
        slot = self._slot
        started = time.perf_counter()
        reason = Reason.ACCEPTED
        while (seen := int(slot.answer[0])) != int(slot.request[0]):
            left = deadline - (time.perf_counter() - started)
            if left <= 0:
                reason = Reason.TIMEOUT
                break
            if self._server.ended:
                reason = Reason.SERVER_LOST
                break
            if not wait_for_change(slot.answer, seen, min(left, _LIVENESS_SECONDS)):
                ring(self._arena.bell)  # ranks count on the bell without a lock: the server may have slept through ours
        return Answer(reason, slot.mean[: self._count], slot.score[: self._count], float(slot.seconds[0]))

    def prepare(self, version: int) -> None:
        """Nothing to do: the server loads a version before anybody hears of it."""

    @property
    def busy(self) -> bool:
        """Whether the server has not come round to the last question yet."""
        return self._slot.pending

    @property
    def lost(self) -> bool:
        """Whether the server's process has ended."""
        return self._server.ended

    def close(self) -> None:
        """Stop watching the server; the arena has an owner of its own."""
        self._server.close()


class _ProcessWatch:
    """Whether a process has ended, by its pidfd: safe against a number that is given out again."""

    def __init__(self, pid: int) -> None:
        self._descriptor = -1
        self._poll = select.poll()
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        self._poll.register(self._descriptor, select.POLLIN)

    @property
    def ended(self) -> bool:
        return self._descriptor < 0 or bool(self._poll.poll(0))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
