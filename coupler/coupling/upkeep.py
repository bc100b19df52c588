"""Upkeep: what rank 0 hears of the services becomes known to all ranks, at the same step, and is written down."""

from collections.abc import Sequence

from mpi4py import MPI

from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.records import NO_OPERATOR, Event, Notice
from coupler.serving.modelplan import Wanted
from coupler.serving.supervision import Supervision


class Upkeep:
    """Passes notices on to all ranks, and the versions that are asked to the supervisor.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks of the run.
    routes : sequence of Route
        Whose models are asked.
    supervision : Supervision or None
        The services; None except on rank 0.
    """

    def __init__(self, comm: MPI.Intracomm, routes: Sequence[Route], supervision: Supervision | None) -> None:
        self._comm, self._routes, self._supervision = comm, routes, supervision
        self._unsaid: list[Notice] = []

    def count(self) -> None:
        """Add to this rank's counts what it has to say. Collective: no."""
        if self._supervision is not None:
            self._unsaid += self._supervision.notices()
            self._routes[0].counts.notices = len(self._unsaid)

    def end_step(self, step: int, totals: Sequence[Counts]) -> list[Event]:
        """Give what has happened, on all ranks alike; let every rank turn to the server that answers it now.

        Parameters
        ----------
        step : int
            The step that ends now.
        totals : sequence of Counts
            Sums over the ranks of the step before, per operator; none after the first step.

        Collective: yes at steps where something has happened, otherwise no.
        """
        for route in self._routes:
            route.line.renew()
        return self.tell(step) if totals and totals[0].notices else []

    def want(self) -> None:
        """Say which versions are asked from now on. Collective: no."""
        if self._supervision is not None:
            numbered = enumerate(self._routes)
            self._supervision.want([Wanted(place, one) for place, route in numbered for one in route.needed_versions])

    def tell(self, step: int) -> list[Event]:
        """Give what has happened and has not been said, on all ranks. Collective: yes."""
        if self._supervision is not None:
            self._unsaid += self._supervision.notices()
        notices: list[Notice] = self._comm.bcast(self._unsaid)
        self._unsaid = []
        return [Event(step + 1, NO_OPERATOR, notice.kind, 0, notice.sentence) for notice in notices]
