"""The account of a run: what all ranks did so far, per operator and together, and what may be claimed of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coupler.controller import AuditedSums, Bound, Certificate, Controller, Findings, Tally, sentence
from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.families import Families
from coupler.coupling.route import Route
from coupler.progress import Progress
from coupler.records import Reason
from coupler.summary import CertificateSummary, Decisions, SharedTruth


@dataclass(frozen=True)
class StepTotals:
    """Reduced counts of one step.

    Parameters
    ----------
    step : int
        The step they belong to.
    counts : tuple of Counts
        One per operator, over all ranks.
    settings : tuple of StepSetting
        What held in that step, per operator.
    """

    step: int
    counts: tuple[Counts, ...]
    settings: tuple[StepSetting, ...]


class Moment(NamedTuple):
    """All that the progress of a step follows from, noted in no time and worked out when somebody wants to know.

    Attributes
    ----------
    totals : StepTotals
        Of the step; nobody changes them any more.
    certificate, tally : Certificate, Tally
        The rule, and the evidence of the whole run so far.
    threshold, version : float, int
        Of the first operator.
    seconds : float
        Since the run's set-up began.
    restarts : int
        Of servers, so far.
    """

    totals: StepTotals
    certificate: Certificate
    tally: Tally
    threshold: float
    version: int
    seconds: float
    restarts: int

    def progress(self) -> Progress:
        """Say where the run is."""
        step = Counts()
        for counts in self.totals.counts:
            step.add(counts)
        bound = self.certificate.bound(self.tally)
        return Progress(
            step=self.totals.step,
            elements=step.elements,
            decisions=step.decisions,
            loss_bound=bound.loss_bound_per_decision,
            loss_estimate=bound.loss_estimate_per_decision,
            exceedance_bound=bound.exceedance_bound,
            threshold=self.threshold,
            version=self.version,
            seconds=self.seconds,
            server_restarts=self.restarts,
        )


@dataclass(frozen=True)
class AccountMemory:
    """What an account needs to go on.

    Parameters
    ----------
    step : int
        Steps taken in.
    tally : Tally
        Evidence for the statement about all operators.
    counts : tuple of int
        All numbers so far.
    families : tuple of tuple of Tally
        Evidence of each family.
    """

    step: int
    tally: Tally
    counts: tuple[int, ...]
    families: tuple[tuple[Tally, ...], ...]


class Account:
    """Adds up steps. All operators together share one certificate here; each has its own in its controller.

    Attributes
    ----------
    routes : sequence of Route
        Whose steps they are.
    total : Counts
        All of them together.

    Parameters
    ----------
    routes : sequence of Route
        For the present thresholds and versions.
    controller : Controller
        Whose certificate is stated for all operators together.
    families : Families
        Statements about outputs and boxes.
    """

    def __init__(self, routes: Sequence[Route], controller: Controller, families: Families) -> None:
        self.routes, self._controller, self._families = routes, controller, families
        self._tally: Tally = controller.certificate.start()
        self.total = Counts()
        self._last = StepTotals(0, (), ())

    @property
    def memory(self) -> AccountMemory:
        """What is needed to go on."""
        return AccountMemory(self._last.step, self._tally, tuple(self.total.numbers.tolist()), self._families.tallies)

    def resume(self, memory: AccountMemory) -> None:
        """Go on from what was known."""
        self._last, self._tally = StepTotals(memory.step, (), ()), memory.tally
        self.total.numbers[:] = memory.counts
        self._families.resume(memory.families)

    @property
    def bound(self) -> Bound:
        """What may be claimed of all operators together."""
        certificate, tally = self._controller.certificate, self._tally
        if not self._controller.asks:  # where no answer is asked for, nothing is lost: the steps are not looked at
            tally = certificate.add(tally, AuditedSums(audit_rate=0.0, decisions=self.total.elements))
        return certificate.bound(tally)

    def add(self, totals: StepTotals) -> None:
        """Take in a step: every operator's controller, then the certificate of all."""
        for counts in totals.counts:
            self.total.add(counts)
        self._last = totals
        if self._controller.asks:
            self._learn(totals)

    def _learn(self, totals: StepTotals) -> None:
        for index, (counts, setting) in enumerate(zip(totals.counts, totals.settings, strict=True)):
            route = self.routes[index]
            self._families.add(index, counts, setting.audit_rate)
            findings = counts.findings(setting.audit_rate)
            if setting.version != route.state.version:
                findings = Findings(findings.sums)  # its scores say nothing of the version that answers now
            route.state = route.controller.advance(route.state, findings)
            alone = len(self.routes) == 1  # then its own evidence is all there is
            self._tally = route.state.tally if alone else self._controller.certificate.add(self._tally, findings.sums)

    def moment(self, seconds: float, restarts: int) -> Moment:
        """Note where the run is; threshold and version are the first operator's."""
        state, certificate = self.routes[0].state, self._controller.certificate
        return Moment(self._last, certificate, self._tally, state.threshold, state.version, seconds, restarts)

    def decisions(self) -> Decisions:
        """Give the six numbers of ``summary.json``."""
        return Decisions(**self.total.decisions)

    def reasons(self) -> dict[str, int]:
        """Give the elements by reason, those that occurred."""
        return {reason.name.lower(): int(self.total.reasons[reason]) for reason in Reason if self.total.reasons[reason]}

    def shared(self) -> SharedTruth:
        """Give what ranks computed for each other."""
        return SharedTruth(
            elements=self.total.shared_elements,
            seconds=self.total.shared_nanoseconds * 1e-9,
            overhead_seconds=self.total.sharing_nanoseconds * 1e-9,
        )

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
            families=self._families.summary(),
        )
