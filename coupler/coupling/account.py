"""The account of a run: what all ranks did so far, per operator and together, and what may be claimed of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from coupler.controller import Bound, Controller, Tally, sentence
from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.progress import Progress
from coupler.records import Reason
from coupler.summary import CertificateSummary, Decisions


@dataclass(frozen=True)
class StepTotals:
    """Reduced counts of one step.

    Parameters
    ----------
    step : int
        The step they belong to.
    counts : tuple of Counts
        One per operator, over all ranks.
    audit_rates : tuple of float
        Rates the coins of that step had.
    """

    step: int
    counts: tuple[Counts, ...]
    audit_rates: tuple[float, ...]


class Account:
    """Adds up steps. All operators together share one certificate here; each has its own in its controller.

    Parameters
    ----------
    routes : sequence of Route
        For the present thresholds and versions.
    controller : Controller
        Whose certificate is stated for all operators together.
    """

    def __init__(self, routes: Sequence[Route], controller: Controller) -> None:
        self._routes, self._controller = routes, controller
        self._tally: Tally = controller.certificate.start()
        self.total = Counts()
        self._last = StepTotals(0, (), ())

    @property
    def bound(self) -> Bound:
        """What may be claimed of all operators together."""
        return self._controller.certificate.bound(self._tally)

    def add(self, totals: StepTotals) -> None:
        """Take in a step: every operator's controller, then the certificate of all."""
        for route, counts, rate in zip(self._routes, totals.counts, totals.audit_rates, strict=True):
            sums = counts.sums(rate)
            route.state = route.controller.advance(route.state, sums)
            self._tally = self._controller.certificate.add(self._tally, sums)
            self.total.add(counts)
        self._last = totals

    def progress(self, seconds: float) -> Progress:
        """Say where the run is; threshold and version are the first operator's."""
        step = Counts()
        for counts in self._last.counts:
            step.add(counts)
        bound, state = self.bound, self._routes[0].state
        return Progress(
            step=self._last.step,
            elements=step.elements,
            decisions=step.decisions,
            loss_bound=bound.loss_bound_per_decision,
            loss_estimate=bound.loss_estimate_per_decision,
            exceedance_bound=bound.exceedance_bound,
            threshold=state.threshold,
            version=state.version,
            seconds=seconds,
        )

    def decisions(self) -> Decisions:
        """Give the six numbers of ``summary.json``."""
        return Decisions(**self.total.decisions)

    def reasons(self) -> dict[str, int]:
        """Give the elements by reason, those that occurred."""
        return {reason.name.lower(): int(self.total.reasons[reason]) for reason in Reason if self.total.reasons[reason]}

    def certificate(self) -> CertificateSummary:
        """Give the certificate of ``summary.json``."""
        bound = self.bound
        return CertificateSummary(
            delta=bound.delta,
            cap=bound.cap,
            target=self._controller.target,
            loss_bound_per_decision=bound.loss_bound_per_decision,
            loss_estimate_per_decision=bound.loss_estimate_per_decision,
            exceedance_bound=bound.exceedance_bound,
            audits=bound.audits,
            loss_bound_per_accepted=bound.loss_bound_per_accepted,
            exceedance_estimate=bound.exceedance_estimate,
            sentence=sentence(bound),
        )
