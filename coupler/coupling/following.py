"""Following a script: what takes the place of learners and services in a run that does another again."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.coupling.script import Script
from coupler.coupling.services import OwnLines
from coupler.learning.registry import ModelCard, Registry
from coupler.records import Event, EventKind

# What nobody tells who does not learn; the others the session tells as they come to hold again.
_RETOLD = (
    EventKind.TRAINING,
    EventKind.TRIAL,
    EventKind.REJECTED,
    EventKind.SWITCHED_OFF,
    EventKind.SWITCHED_ON,
)


@dataclass(frozen=True)
class Follower:
    """In the place of a learner: lets versions take over, trials begin and end, and switches move, as a script says.

    Parameters
    ----------
    index, name : int, str
        The operator.
    script : Script
        Says what happened at which step.
    route : Route
        Whose surrogate it is.
    registry : Registry
        Has its versions.
    tell : callable
        Takes events.
    """

    index: int
    name: str
    script: Script
    route: Route
    registry: Registry
    tell: Callable[[Event], None]

    @property
    def learns(self) -> bool:
        """Whether what a step brings may change the next one: yes, as in the run that is followed."""
        return True

    @property
    def rounds(self) -> int:
        """Training rounds that have started: none."""
        return 0

    def count_outcome(self) -> None:
        """Count nothing: no round is under way. Collective: no."""

    def end_step(self, step: int, totals: Counts) -> ModelCard | None:
        """Let happen what happened at the end of this step; give the version that takes over, if one does.

        Collective: no; all ranks follow the same script.
        """
        for event in self.script.events:
            if (event.step, event.operator) == (step + 1, self.index) and event.kind in _RETOLD:
                self.tell(event)
        standing = self.script.standings[self.index].get(step + 1)
        if standing is None:
            return None
        self.route.challenger, self.route.off = standing.challenger, standing.off
        if standing.challenger:
            assert self.route.transport is not None
            self.route.transport.prepare(standing.challenger)
        changed = standing.version != self.route.state.version
        return self.registry.card(self.name, standing.version) if changed else None

    def flush(self) -> None:
        """Write nothing: no samples are kept. Collective: no."""


def follow(
    script: Script, routes: Mapping[str, Route], models: Path, started: ExitStack, tell: Callable[[Event], None]
) -> list[Follower]:
    """Give every route a model of its own and somebody who follows the script.

    Nobody is asked over a wire, so nothing can be late and neither Ray nor a server is needed: the bits of an answer
    do not hang on who gives it.

    Parameters
    ----------
    script : Script
        What is followed; its models must have been copied.
    routes : mapping of operator name to Route
        They get their transports and absences here.
    models : Path
        Folder of the registry.
    started : ExitStack
        Closes what is opened.
    tell : callable
        Takes events.

    Raises
    ------
    ConfigError
        If the device that the case asks for is not here.

    Collective: no.
    """
    torch.set_num_threads(1)
    registry = Registry(models)
    lines = OwnLines(script.case, registry)
    followers = []
    for index, (name, route) in enumerate(routes.items()):
        route.transport = lines.to(name, route)
        route.absent = script.absences[index]
        started.callback(route.transport.close)
        followers.append(Follower(index, name, script, route, registry, tell))
    return followers
