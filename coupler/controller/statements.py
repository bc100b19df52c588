"""Statements beside the main one: what each output, or each region, has lost, all at once with probability 1 - delta.

A table of bounds is read by looking for its worst line, and a line that was chosen after looking needs all of them to
hold. So delta is split evenly over the lines (Bonferroni): the price of each is ln(K m / delta) instead of
ln(K / delta). The certificate of the run as a whole is no line of the table and keeps its own delta.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from coupler.controller.certificate import AuditedSums, Bound, Certificate, Tally


@dataclass(frozen=True)
class Losses:
    """What the audits of a step found of one statement that shares its decisions with others: integers.

    Parameters
    ----------
    loss : int
        Sum of this statement's quantised losses over the audited, accepted elements [2**-32].
    exceedances : int
        How many of them were outside the tolerance of this statement.
    """

    loss: int
    exceedances: int


@dataclass(frozen=True)
class Statements:
    """A family of bounds that hold together; every function of it is pure.

    Parameters
    ----------
    certificate : Certificate
        Its delta is that of the whole family: the probability that any line ever fails.
    names : tuple of str
        Of the lines, each once: outputs or regions.
    """

    certificate: Certificate
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(set(self.names)) > 0, self.names

    @cached_property
    def each(self) -> Certificate:
        """The certificate of one line: the same constants, its part of delta."""
        return replace(self.certificate, delta=self.certificate.delta / len(self.names))

    def start(self) -> tuple[Tally, ...]:
        """Give the tallies before the first decision, one for each name."""
        return (self.each.start(),) * len(self.names)

    def add(self, tallies: Sequence[Tally], sums: Sequence[AuditedSums]) -> tuple[Tally, ...]:
        """Give the tallies after one more step, or after one more group of decisions with a common audit rate.

        Parameters
        ----------
        tallies : sequence of Tally
            Everything before, in the order of the names.
        sums : sequence of AuditedSums
            Of all ranks, one for each name: :func:`of_outputs` makes them where all lines share their decisions; a
            region has its own decisions, audits and accepted beside its losses.

        Returns
        -------
        tuple of Tally

        Collective: no, but the sums must be those of all ranks, and the same on all of them.
        """
        assert len(tallies) == len(sums) == len(self.names), (len(tallies), len(sums), self.names)
        return tuple(self.each.add(tally, part) for tally, part in zip(tallies, sums, strict=True))

    def bounds(self, tallies: Sequence[Tally]) -> dict[str, Bound]:
        """Say what each line certifies, by name; all of it holds at once."""
        assert len(tallies) == len(self.names), (len(tallies), self.names)
        return {name: self.each.bound(tally) for name, tally in zip(self.names, tallies, strict=True)}

    def sentence(self, bounds: dict[str, Bound]) -> str:
        """State all lines in one sentence, the worst per decision first."""
        worst = sorted(bounds.items(), key=lambda line: -line[1].loss_bound_per_decision)
        lines = ", ".join(
            f"{name} {bound.loss_bound_per_decision:.3g} per decision and {bound.loss_bound_per_accepted:.3g} per "
            f"accepted decision"
            for name, bound in worst
        )
        return (
            f"With probability at least {1 - self.certificate.delta:g} over the audit coins, for all of these at once, "
            f"the mean capped error was at most: {lines}."
        )


def of_outputs(sums: AuditedSums, losses: Sequence[Losses]) -> tuple[AuditedSums, ...]:
    """Make the sums of every output from those of the step and what each output lost.

    Decisions, audits and accepted elements are those of the step: the gate decides on an element, not on an output.

    Parameters
    ----------
    sums : AuditedSums
        Of the step.
    losses : sequence of Losses
        Of each output alone, min(error_j / cap, 1); none is above the loss of the step, which is that of the worst.

    Returns
    -------
    tuple of AuditedSums

    Collective: no.
    """
    assert all(one.loss <= sums.loss and one.exceedances <= sums.exceedances for one in losses), (sums, losses)
    return tuple(replace(sums, loss=one.loss, exceedances=one.exceedances, withheld_loss=0) for one in losses)
