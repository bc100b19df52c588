"""Following a script: what takes the place of steering and services in a run that does another again."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.coupling.script import Script, Standing
from coupler.coupling.services import OwnLines
from coupler.coupling.succession import take_over
from coupler.learning.registry import ModelCard, Registry
from coupler.records import Event


class Following:
    """In the place of steering: lets versions take over, trials begin and end, and switches move, as a script says.

    Parameters
    ----------
    script : Script
        Says what happened at which step.
    routes : mapping of operator name to Route
        Whose surrogates; they have their lines.
    registry : Registry
        Has the versions.
    """

    def __init__(self, script: Script, routes: Mapping[str, Route], registry: Registry) -> None:
        self._script, self._routes, self._registry = script, dict(routes), registry
        self._events: dict[int, list[Event]] = {}
        for event in script.events:
            self._events.setdefault(event.step, []).append(event)
        self._told = 0

    @property
    def active(self) -> bool:
        """Whether what a step brings may change the next one: yes, as in the run that is followed."""
        return True

    @property
    def rounds(self) -> int:
        """Training rounds that have started: none."""
        return 0

    def card(self, event: Event) -> ModelCard:
        """Give the card of the version an event is about."""
        return self._registry.card(self._script.operators[event.operator], event.version)

    def count_outcomes(self) -> None:
        """Count nothing: no round is under way. Collective: no."""

    def begin(self) -> list[Event]:
        """Let be what was before the first step. Collective: no."""
        return self.end_step(0, (), ())

    def end_step(self, step: int, counts: Sequence[Counts], settings: Sequence[StepSetting]) -> list[Event]:
        """Let happen what happened at the end of this step, and say what was said then.

        Collective: no; all ranks follow the same script.
        """
        for (name, route), standings in zip(self._routes.items(), self._script.standings, strict=True):
            if step + 1 in standings:
                self._stand(name, route, standings[step + 1])
        self._told = step + 1
        return self._events.get(step + 1, [])

    def last_events(self, step: int) -> list[Event]:
        """Give what happened after the last step. Collective: no."""
        return self._events.get(step + 1, []) if step + 1 > self._told else []

    def finish(self) -> None:
        """Do nothing: nothing is under way. Collective: no."""

    def flush(self) -> None:
        """Write nothing: no samples are kept. Collective: no."""

    def _stand(self, name: str, route: Route, standing: Standing) -> None:
        assert route.line.transport is not None
        for version in {standing.version, standing.challenger} - {0, route.state.version, route.challenger}:
            route.line.transport.prepare(version)
        if standing.version not in (0, route.state.version):
            card = self._registry.card(name, standing.version)
            take_over(route, card, self._registry.introduction(card))
        route.challenger, route.off = standing.challenger, standing.off


def follow(script: Script, routes: Mapping[str, Route], models: Path, started: ExitStack) -> Following:
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

    Raises
    ------
    ConfigError
        If the device that the case asks for is not here.

    Collective: no.
    """
    torch.set_num_threads(1)
    registry = Registry(models)
    lines = OwnLines(script.case, registry)
    for index, (name, route) in enumerate(routes.items()):
        route.line.transport = lines.to(name, route)
        route.absent = script.absences[index]
        started.callback(route.line.transport.close)
    return Following(script, routes, registry)
