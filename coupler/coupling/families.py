"""The families of statements a run makes beside the main one: for each output, and for each box of the inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from coupler.controller import Certificate, Losses, Statements, Tally, of_outputs
from coupler.controller.boxes import box_sums
from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.summary import FamilySummary, StatementSummary


@dataclass
class _Family:
    """Statements that hold together, and the evidence for them."""

    name: str
    statements: Statements
    tallies: tuple[Tally, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.tallies = self.statements.start()


class Families:
    """Adds up what the statements about outputs and boxes rest on.

    Parameters
    ----------
    certificate : Certificate
        Of the run; each family has its delta once more.
    routes : mapping of operator name to Route
        Whose outputs and boxes.
    outputs : bool
        Whether there is a statement for each output.
    """

    def __init__(self, certificate: Certificate, routes: Mapping[str, Route], *, outputs: bool) -> None:
        self._outputs: dict[int, _Family] = {}
        self._boxes: dict[int, _Family] = {}
        for index, (operator, route) in enumerate(routes.items()):
            if outputs:
                names = tuple(item.name for item in route.operator.signature.output_fields)
                self._outputs[index] = _Family(f"outputs of {operator}", Statements(certificate, names))
            if route.observer.boxes.names:
                self._boxes[index] = _Family(
                    f"boxes of {operator}", Statements(certificate, route.observer.boxes.names)
                )

    def add(self, index: int, counts: Counts, audit_rate: float) -> None:
        """Take in a step of one operator, summed over the ranks. Collective: no."""
        if (family := self._outputs.get(index)) is not None:
            losses = [Losses(loss, beyond) for loss, beyond in counts.measures.outputs.T.tolist()]
            sums = of_outputs(counts.findings(audit_rate).sums, losses)
            family.tallies = family.statements.add(family.tallies, sums)
        if (family := self._boxes.get(index)) is not None:
            family.tallies = family.statements.add(family.tallies, box_sums(counts.boxes, audit_rate))

    @property
    def tallies(self) -> tuple[tuple[Tally, ...], ...]:
        """The evidence of all of them, to go on from."""
        return tuple(family.tallies for family in (*self._outputs.values(), *self._boxes.values()))

    def resume(self, tallies: tuple[tuple[Tally, ...], ...]) -> None:
        """Go on from what was known."""
        families = (*self._outputs.values(), *self._boxes.values())
        for family, known in zip(families, tallies, strict=True):
            family.tallies = known

    def summary(self) -> list[FamilySummary]:
        """Say what all of them certify."""
        return [_summary(family) for family in (*self._outputs.values(), *self._boxes.values())]


def _summary(family: _Family) -> FamilySummary:
    bounds = family.statements.bounds(family.tallies)
    lines = {
        name: StatementSummary(
            decisions=bound.decisions,
            accepted=bound.accepted,
            audits=bound.audits,
            loss_bound_per_decision=bound.loss_bound_per_decision,
            loss_bound_per_accepted=bound.loss_bound_per_accepted,
            loss_estimate_per_decision=bound.loss_estimate_per_decision,
            exceedance_bound=bound.exceedance_bound,
        )
        for name, bound in bounds.items()
    }
    return FamilySummary(name=family.name, lines=lines, sentence=family.statements.sentence(bounds))
