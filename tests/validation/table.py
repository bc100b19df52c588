"""The table of the validation suite: what was compared, what came out, and how it is printed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.validation.references import REFERENCES, Reference, reference

HEADINGS = ("problem", "quantity", "reference", "computed", "difference", "tolerance", "source")
# The name under which the reports of tests carry what they compared.
PROPERTY = "validation"
_RIGHT = range(2, 6)


@dataclass(frozen=True)
class Comparison:
    """A reference value and what was computed for it."""

    reference: Reference
    computed: float

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the row of the table."""
        row = self.reference
        difference = f"{row.difference(self.computed):.1e}" + ("" if row.holds(self.computed) else " (!)")
        numbers = f"{row.value:.10g}", f"{self.computed:.10g}", difference, f"{row.tolerance:.1g}"
        return (row.problem, row.quantity, *numbers, row.source)


def as_property(comparison: Comparison) -> tuple[str, str, float]:
    """Put a comparison into what a test's report can carry, also from another process."""
    return comparison.reference.problem, comparison.reference.quantity, comparison.computed


def from_properties(values: Iterable[Sequence[object]]) -> list[Comparison]:
    """Read what :func:`as_property` gave, in the order of the references; of several for one value, the worst."""
    found: dict[Reference, Comparison] = {}
    for problem, quantity, computed in values:
        assert isinstance(computed, float), (problem, quantity, computed)
        row = reference(str(problem), str(quantity))
        if row not in found or row.difference(computed) > row.difference(found[row].computed):
            found[row] = Comparison(row, computed)
    return [found[row] for row in REFERENCES if row in found]


def as_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """Lay the table out in columns; it is Markdown as well."""
    rows = [HEADINGS, *(comparison.cells for comparison in comparisons)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rule = [f"{'-' * (width - 1)}{':' if column in _RIGHT else '-'}" for column, width in enumerate(widths)]
    return ["| " + " | ".join(_padded(row, widths)) + " |" for row in (rows[0], rule, *rows[1:])]


def not_compared(comparisons: Sequence[Comparison]) -> list[str]:
    """Name the problems with reference values that nothing was compared with, and say how many."""
    seen = {comparison.reference for comparison in comparisons}
    missing = Counter(row.problem for row in REFERENCES if row not in seen)
    return [f"{problem} ({count})" for problem, count in missing.items()]


def print_table(reporter: pytest.TerminalReporter) -> None:
    """Print the table of what the tests of a session compared, if any did."""
    comparisons = from_properties(_noted(reporter))
    if not comparisons:
        return
    reporter.section("validation")
    for line in as_lines(comparisons):
        reporter.line(line)
    left = not_compared(comparisons)
    if left:
        reporter.line(f"Not compared in this session (`make validation` compares all): {', '.join(left)}")


def _noted(reporter: pytest.TerminalReporter) -> Iterator[Sequence[object]]:
    for reports in reporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                yield from (value for name, value in report.user_properties if name == PROPERTY)


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
