"""The economy of a run: what asking, truth and training cost, and what follows from the slowest rank."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.controller.economics import Change, Costs, Economics
from coupler.coupling.route import Route
from coupler.grid import wait
from coupler.records import Event, EventKind

_NANOSECONDS = 1e9


class _Reading(NamedTuple):
    """What a rank's route had done and spent when a window began."""

    elements: int = 0
    truth: float = 0.0
    asked: float = 0.0
    typical: float = 0.0


class Economy:
    """Judges the surrogates of a run window by window; every rank comes to the same.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks of the run.
    routes : sequence of Route
        Are switched off and on.
    training : float
        Seconds that a training takes from the ranks; 0 where it has cores of its own.
    """

    def __init__(self, comm: MPI.Intracomm, routes: Sequence[Route], training: float = 0.0) -> None:
        self._comm, self._routes, self._training = comm, routes, training
        self.switches = [Economics() for _ in routes]
        self._readings = [_Reading() for _ in routes]
        self._mine = np.zeros((len(routes), len(fields(Costs))), np.int64)
        self._slowest = np.zeros_like(self._mine)
        self._request: MPI.Request | None = None
        self._judging: list[int] = []

    def end_step(self, step: int) -> list[Event]:
        """Count a step; judge the windows whose costs have come from all ranks, begin to gather those that are due.

        Parameters
        ----------
        step : int
            The step that ends now.

        Returns
        -------
        list of Event
            What was switched, from the next step on.

        Collective: yes, non-blocking: at steps where a window ends, which all ranks know.
        """
        events = self._judge(step) if self._request is not None else []
        for index, route in enumerate(self._routes):
            self.switches[index] = after = self.switches[index].after_step(asked=route.state.version > 0)
            if after.on and not after.steps:
                self._readings[index] = _reading(route)  # the window begins with the step that comes
            if after.change is Change.ON:
                route.off = False
                events.append(self._event(step, index, EventKind.SWITCHED_ON, "tried again, its pause is over"))
        self._gather()
        return events

    def renew(self, index: int, step: int) -> list[Event]:
        """Give another version of an operator's model its chance. Collective: no."""
        # A window that is being judged is the old version's.
        self._judging = [one for one in self._judging if one != index]
        self.switches[index] = after = self.switches[index].renewed()
        self._readings[index] = _reading(self._routes[index])
        if after.change is not Change.ON:
            return []
        self._routes[index].off = False
        return [self._event(step, index, EventKind.SWITCHED_ON, "another version may do better")]

    def resume(self, switches: Sequence[Economics]) -> None:
        """Go on with switches as they were; a window under way begins anew, as its seconds are not known here."""
        self.switches = [replace(one, steps=0 if one.on else one.steps, change=Change.NOTHING) for one in switches]

    def finish(self) -> None:
        """Complete what is under way. Collective: completes one, if it was begun."""
        if self._request is not None:
            wait([self._request])
            self._request = None

    def worthwhile(self, index: int) -> bool:
        """Whether it makes sense to learn for an operator: whether the surrogate could pay at all."""
        return self.switches[index].hopeful

    def worth_training(self, index: int) -> bool:
        """Whether an operator has no model yet, or what fell back has cost as much as a training."""
        return self._routes[index].state.version == 0 or self.switches[index].worth_training(self._training)

    def trained(self, index: int) -> None:
        """Know that a training has begun. Collective: no."""
        self.switches[index] = self.switches[index].trained()

    def _gather(self) -> None:
        due = [index for index, switch in enumerate(self.switches) if switch.due]
        if not due or self._request is not None:
            return
        self._judging = due
        for index in due:
            self._mine[index] = _spent(self._routes[index], self._readings[index])
            self._readings[index] = _reading(self._routes[index])
        self._request = self._comm.Iallreduce(self._mine, self._slowest, MPI.MAX)

    def _judge(self, step: int) -> list[Event]:
        assert self._request is not None
        wait([self._request])
        self._request, events = None, []
        for index in self._judging:
            costs = _costs(self._slowest[index])
            self.switches[index] = after = self.switches[index].judged(costs)
            if after.change is Change.OFF:
                self._routes[index].off = True
                said = (
                    f"switched off: {costs.speedup:.2g} times as fast as physics alone as it is, "
                    f"{costs.best_speedup:.2g} times at best"
                )
                events.append(self._event(step, index, EventKind.SWITCHED_OFF, said))
        return events

    def _event(self, step: int, index: int, kind: EventKind, sentence: str) -> Event:
        return Event(step + 1, index, kind, self._routes[index].state.version, sentence)


def _reading(route: Route) -> _Reading:
    return _Reading(route.elements, route.truth.seconds, route.asked_seconds, route.truth.typical_seconds)


def _spent(route: Route, since: _Reading) -> list[int]:
    """Give the nanoseconds of this rank since the window began: physics, coupled, best, and truth of fallbacks."""
    asked, truth = route.asked_seconds - since.asked, route.truth.seconds - since.truth
    coupled = asked + truth
    physics = (route.elements - since.elements) * route.truth.bulk_cost
    best = asked + route.audit_rate * physics
    if not physics:  # where nobody knows what physics costs, it is no reason for anything
        physics = best = coupled
    fallback = max(truth - (route.truth.typical_seconds - since.typical), 0.0)
    return [int(seconds * _NANOSECONDS) for seconds in (physics, coupled, best, fallback)]


def _costs(nanoseconds: NDArray[np.int64]) -> Costs:
    return Costs(*(float(number) / _NANOSECONDS for number in nanoseconds.tolist()))
