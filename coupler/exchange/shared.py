"""The shared transport: questions and answers lie in the node's arena, only their numbers are signalled."""

import logging
import math
import os
import select
import time

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.exchange.arena import Arena
from coupler.exchange.doorbell import Patience
from coupler.exchange.transport import Answer, Transport
from coupler.records import Reason

_log = logging.getLogger("coupler.exchange")
# How often a waiting rank looks whether the server still lives [s]; its death is noticed within this time.
_LIVENESS_SECONDS = 0.02
# How often a rank that has time looks for a server in the place of one that ended [s].
_LOOK_SECONDS = 0.02


class SharedTransport(Transport):
    """A rank's slot in the arena and the doorbell of the server that answers it.

    Parameters
    ----------
    arena : Arena
        The node's segment; the server's process number must be in it.
    slot : int
        Which slot is this rank's for this operator.
    most : int, optional
        Elements the slot may grow to; as many as it has if left out.
    """

    def __init__(self, arena: Arena, slot: int, most: int = 0) -> None:
        self._arena, self._slot, self._bell = arena, arena.slots[slot], arena.bell
        self._pid = int(arena.server_pid[0])
        self._server = _ProcessWatch(self._pid)
        self._patience = Patience(crowded=bool(arena.crowded[0]))
        self.capacity = max(most, self._slot.capacity)
        self._view(0)

    def room(self, count: int) -> int:
        """Make room for a question: the slot grows to fit, up to the capacity or to what the node has left."""
        slot = self._slot
        if slot.capacity < min(count, self.capacity) and not slot.pending:
            try:
                slot.grow(min(max(count, 2 * slot.capacity), self.capacity))
            except CouplerError as error:
                self.capacity = slot.capacity
                _log.warning("elements are asked about in rounds of %d: %s", self.capacity, error)
            self._view(0)
        return min(count, self.capacity)

    def inputs(self, count: int) -> NDArray[np.float64]:
        """Give this rank's part of the arena: what is gathered into it is where the server reads.

        Where it can be, it is the same memory again and again.
        """
        if count != self._count:
            self._view(self.room(count))
        return self._inputs

    def ask(self, count: int, dt: float, version: int) -> None:
        """Send the question: number it and ring. An older one still unanswered is abandoned by its number."""
        if count != self._count:
            self._view(count)
        self._slot.ask(self._bell, count, dt, version)

    def answer(self, deadline: float) -> Answer:
        """Wait until the answer's number is the question's.

        The deadline runs from here, not from the asking: audits are computed in between, and a question must not
        be given up because many of its elements were audited.
        """
        arrived, seconds, turnaround = self._slot.wait(min(deadline, _LIVENESS_SECONDS), self._patience)
        if arrived:
            return self._found(seconds, turnaround)
        return self._wait_on(deadline - _LIVENESS_SECONDS)

    def _wait_on(self, deadline: float) -> Answer:
        """Wait as long as the server lives, looking after it now and then."""
        ends = time.monotonic() + deadline
        while not self._server.ended:
            left = ends - time.monotonic()
            if left <= 0:
                return Answer(Reason.TIMEOUT, self._mean, self._score, 0.0, 0.0)
            arrived, seconds, turnaround = self._slot.wait(min(left, _LIVENESS_SECONDS), self._patience)
            if arrived:
                return self._found(seconds, turnaround)
        return Answer(Reason.SERVER_LOST, self._mean, self._score, 0.0, 0.0)

    def _found(self, seconds: float, turnaround: float) -> Answer:
        # Whoever answers cannot map the memory this slot has moved to: what lies there is no answer.
        reason = Reason.TIMEOUT if math.isnan(seconds) else Reason.ACCEPTED
        return Answer(reason, self._mean, self._score, seconds, turnaround)

    def _view(self, count: int) -> None:
        """Keep views of so many rows: ranks mostly ask about as many elements as before."""
        slot = self._slot
        self._inputs, self._mean, self._score = slot.inputs[:count], slot.mean[:count], slot.score[:count]
        self._count = len(self._inputs)

    def prepare(self, version: int) -> None:
        """Nothing to do: the server loads a version before anybody hears of it."""

    def renew(self, patience: float = 0.0) -> bool:
        """Turn to the server that has taken the arena over, if one has; whatever is asked there it finds.

        An arena that was dismissed has no other one to come: nobody waits for it.
        """
        ends = time.monotonic() + patience
        while not self._arena.stop[0] and int(self._arena.server_pid[0]) == self._pid and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)
        if self._arena.stop[0] or int(self._arena.server_pid[0]) == self._pid:
            return False
        self._server.close()
        self._pid = int(self._arena.server_pid[0])
        self._server = _ProcessWatch(self._pid)
        return True

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
