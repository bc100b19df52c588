"""Sharing truth among the ranks of a node, as a session sees it: setting it up, and whether it pays."""

import logging
from collections.abc import Sequence

from coupler.coupling.counts import Counts
from coupler.coupling.nodes import Nodes, together
from coupler.coupling.plan import SessionPlan
from coupler.coupling.route import Route
from coupler.errors import CouplerError
from coupler.exchange.bench import Bench, benches_in
from coupler.exchange.table import BenchShape
from coupler.exchange.workshop import Workshop, WorkshopLayout
from coupler.operator import Operator

_log = logging.getLogger("coupler.sharing")
# Steps over which gain and cost are added up before sharing is judged.
_WINDOW_STEPS = 10
# Steps without sharing before it is tried again: at first, and at most, as they double.
_FIRST_PAUSE, _LONGEST_PAUSE = 20, 2560


class SharingSwitch:
    """Whether one operator's truth is shared: as long as neighbours do more for each other than sharing costs.

    It follows from reduced counts and the number of steps, so all ranks switch at the same step boundary. Results do
    not hang on it, only seconds.

    Attributes
    ----------
    on : bool
        Whether the next step shares.

    Parameters
    ----------
    always : bool
        Whether it stays on, whatever it brings.
    """

    def __init__(self, *, always: bool) -> None:
        self.on = True
        self._always = always
        self._pause = _FIRST_PAUSE
        self._steps = self._gain = self._cost = 0

    def advance(self, counts: Counts) -> None:
        """Take in a step's counts, summed over the ranks. Collective: no."""
        self._steps += 1
        if self._always:
            return
        if not self.on:
            if self._steps >= self._pause:
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                self._begin(on=True)
            return
        self._gain += counts.shared_nanoseconds
        self._cost += counts.sharing_nanoseconds
        if self._steps >= _WINDOW_STEPS:
            pays = self._gain > self._cost
            if pays:
                self._pause = _FIRST_PAUSE
            self._begin(on=pays)

    def renew(self) -> None:
        """Try it anew, as when another model has taken over and other elements go to the truth."""
        self._pause = _FIRST_PAUSE
        self._begin(on=True)

    def _begin(self, *, on: bool) -> None:
        self.on = on
        self._steps = self._gain = self._cost = 0


class Sharing:
    """This rank's part in sharing truth: a bench and a switch for every operator; no bench where nothing is shared.

    Attributes
    ----------
    benches : list of Bench
        One per operator, or none.

    Parameters
    ----------
    plan : SessionPlan
        Whether it may be; with ``exchange.sharing = "auto"`` a node that has no room for it goes without.
    nodes : Nodes
        The ranks.
    routes : sequence of Route
        One per operator; where truth is shared, their truth goes to the benches.

    Raises
    ------
    CouplerError
        If it must be and cannot, on every rank alike.

    Collective: yes.
    """

    def __init__(self, plan: SessionPlan, nodes: Nodes, routes: Sequence[Route]) -> None:
        wish = plan.case.exchange.sharing
        may = wish == "on" or (wish == "auto" and plan.learns)
        self.benches = _open_benches(plan, nodes) if may else []
        self._switches = [SharingSwitch(always=wish == "on") for _ in routes]
        for route, bench in zip(routes, self.benches, strict=False):
            route.truth.worker = bench

    def bench(self, index: int) -> Bench | None:
        """Give the bench of an operator, if it has one. Collective: no."""
        return self.benches[index] if self.benches else None

    def count(self, routes: Sequence[Route]) -> None:
        """Add what sharing brought and cost since the last time to the counts of the step. Collective: no."""
        for route, bench in zip(routes, self.benches, strict=False):
            tally = bench.take_tally()
            route.counts.shared_elements += tally.elements
            route.counts.shared_nanoseconds += tally.nanoseconds
            route.counts.sharing_nanoseconds += tally.overhead

    def advance(self, counts: Sequence[Counts]) -> None:
        """Share from the next step on what pays; every rank sees the same counts, so all do. Collective: no."""
        for switch, totals in zip(self._switches, counts, strict=True):
            switch.advance(totals)
        for switch, bench in zip(self._switches, self.benches, strict=False):
            bench.on = switch.on

    def renew(self, index: int) -> None:
        """Try it anew for an operator, as when another model has taken over. Collective: no."""
        self._switches[index].renew()

    @property
    def lending_seconds(self) -> float:
        """Time this rank has spent on its neighbours' elements [s]."""
        return sum(bench.lending_seconds for bench in self.benches)


def _open_benches(plan: SessionPlan, nodes: Nodes) -> list[Bench]:
    operators = tuple(plan.operators.values())
    elements = tuple(plan.elements[name] for name in plan.operators)
    try:
        return together(nodes.job, lambda: open_workshop(nodes, operators, elements))
    except CouplerError as error:
        if plan.case.exchange.sharing == "on":
            raise CouplerError(f'exchange.sharing = "on": {error} "auto" goes on without sharing.') from error
        if nodes.first:
            _log.warning("truth is not shared among the ranks of a node: %s", error)
        return []


def open_workshop(nodes: Nodes, operators: Sequence[Operator], elements: Sequence[int]) -> list[Bench]:
    """Make the node's workshop and give this rank's benches, one per operator; none if it has its node to itself.

    Parameters
    ----------
    nodes : Nodes
        The ranks.
    operators : sequence of Operator
        Whose truth may be shared, on all ranks alike.
    elements : sequence of int
        Of each, most elements of this rank in one call, as far as is known; more are shared in rounds.

    Raises
    ------
    CouplerError
        If the node has no room for it, on every rank of the node.

    Collective: yes, over the node.
    """
    node = nodes.node
    if node.size == 1:
        return []
    mine = tuple(BenchShape.of(operator, count) for operator, count in zip(operators, elements, strict=True))
    layout = WorkshopLayout(tuple(node.allgather(mine)))
    made = together(node, lambda: Workshop.create(layout, operators) if node.rank == 0 else None)
    address = node.bcast(None if made is None else made.address)
    workshop = together(node, lambda: made or Workshop.attach(address, layout, node.rank, operators))
    workshop.close()  # everybody who may map it has
    return benches_in(workshop)
