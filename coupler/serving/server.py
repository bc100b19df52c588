"""The server: the actor that owns a device and answers every rank of its node through the arena."""

import logging
import os
from collections.abc import Sequence

from coupler.exchange import Arena, ArenaAddress, Batch, Desk
from coupler.exchange.takeover import take_over
from coupler.serving.actor import Actor
from coupler.serving.modelplan import ModelPlan, Wanted

_log = logging.getLogger("coupler")
# How long an idle server sleeps if nobody rings, as questions and the end do [s]. What it learns meanwhile is there for
# the first question after that; on some machines a waking sleeper costs as much as many questions.
_IDLE_SECONDS = 1.0


class Server(Actor):
    """Answers questions in the arena until asked to stop; a Ray actor with one thread for that and one for loading.

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
    wanted : sequence of Wanted
        What it loads before the ranks hear of it; what cannot be loaded is left.
    """

    def __init__(
        self,
        address: ArenaAddress,
        plan: ModelPlan,
        cores: tuple[int, ...],
        crowded: bool = False,
        wanted: Sequence[Wanted] = (),
    ) -> None:
        # Imported here: whoever starts servers needs no torch.
        from coupler.serving.answering import Models

        self._models = Models(plan, cores)
        self._arena = Arena.attach(address)
        self._arena.crowded[0] = crowded
        self._desk = Desk(self._arena, mapped=self._models.adopt)
        self.prepare(wanted)
        take_over(self._arena)

    def load(self, operator: int, version: int, needed: Sequence[int] = ()) -> None:
        """Load a version from the registry; ranks may ask for it once this has returned."""
        self._models.load(operator, version, needed)
        self._desk.learn(self._models.routines())

    def prepare(self, wanted: Sequence[Wanted]) -> None:
        """Load versions that are not there yet."""
        fetched = [self._models.fetch(one.operator, one.version) for one in wanted]
        if any(fetched):
            self._desk.learn(self._models.routines())

    def serve(self) -> None:
        """Answer whoever is ready until the arena says stop: what needs Python in one forward per operator and version.

        If that ever fails the process ends with it: the ranks watch the process, and go on without it at once.
        """
        try:
            while self._desk.open:
                for batch in self._desk.batches(_IDLE_SECONDS):
                    self._answer(batch)
        except Exception:  # noqa: BLE001, the edge of the process
            _log.exception("the server ends")
            os._exit(1)

    def _answer(self, batch: Batch) -> None:
        with self._busy():
            if self._models.fetch(batch.operator, batch.version):
                self._desk.learn(self._models.routines())
            batch.answer(self._models.answer(batch.operator, batch.version, batch.parts))
