"""The server: the actor that owns a device and answers every rank of its node through the arena."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from coupler.exchange import Arena, ArenaAddress, Desk
from coupler.serving.answering import ModelPlan, Models

_log = logging.getLogger("coupler")
# How long an idle server sleeps before it looks again whether it should stop [s].
_IDLE_SECONDS = 0.2


@dataclass(frozen=True)
class ServerReport:
    """What a server says of itself once it listens."""

    pid: int
    device: str
    threads: int


class Server:
    """Answers questions in the arena until asked to stop; a Ray actor with one thread for that, one for loading, one to
    be ended by.

    Parameters
    ----------
    address : ArenaAddress
        The node's arena.
    plan : ModelPlan
        What answers.
    cores : tuple of int
        Where to run.
    crowded : bool
        Whether the node has more ranks and servers than cores.
    """

    def __init__(self, address: ArenaAddress, plan: ModelPlan, cores: tuple[int, ...], crowded: bool = False) -> None:
        self._models = Models(plan, cores)
        self._arena = Arena.attach(address)
        self._arena.crowded[0] = crowded
        self._desk = Desk(self._arena, mapped=self._models.adopt)
        self._threads = plan.threads
        self._arena.server_pid[0] = os.getpid()

    def report(self) -> ServerReport:
        """Say where it runs; the call returns once the actor exists."""
        return ServerReport(os.getpid(), self._models.device, self._threads)

    def load(self, operator: int, version: int, needed: Sequence[int] = ()) -> None:
        """Load a version from the registry; ranks may ask for it once this has returned."""
        self._models.load(operator, version, needed)
        self._desk.learn(self._models.routines())

    def leave(self) -> None:
        """End the process. Whoever asked for it sees the actor die, and by then the process is gone."""
        os._exit(0)

    def serve(self) -> None:
        """Answer whoever is ready until the arena says stop: what needs Python in one forward per operator and version.

        If that ever fails the process ends with it: the ranks watch the process, and go on without it at once.
        """
        try:
            while self._desk.open:
                for batch in self._desk.batches(_IDLE_SECONDS):
                    batch.answer(self._models.answer(batch.operator, batch.version, batch.parts))
        except Exception:  # noqa: BLE001, the edge of the process
            _log.exception("the server ends")
            os._exit(1)
