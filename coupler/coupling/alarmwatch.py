"""The alarm watch: notices when a region of an operator's inputs comes under alarm, and says so."""

from coupler.coupling.route import Route
from coupler.records import Event, EventKind


class AlarmWatch:
    """Compares the alarms of a route from step to step.

    Attributes
    ----------
    known : tuple of int
        The version and the number of its alarms as of the last step, to go on from.

    Parameters
    ----------
    index : int
        Number of the operator.
    route : Route
        Whose alarms.
    """

    def __init__(self, index: int, route: Route) -> None:
        self._index, self._route = index, route
        self.known = (0, 0)

    def end_step(self, step: int) -> list[Event]:
        """Give an event if there is a new alarm; it holds from the next step on. Collective: no."""
        alarms, version = self._route.state.alarms, self._route.state.version
        known = version, sum(alarms.raised)
        before, self.known = self.known, known
        if not known[1] or known == before:
            return []
        numbers = ", ".join(str(place) for place, raised in enumerate(alarms.raised) if raised)
        said = f"accepted answers were outside of tolerance in the mean in regions {numbers} of {len(alarms.raised)}"
        return [Event(step + 1, self._index, EventKind.ALARM, version, said)]
