"""The validation suite: ``agrees`` compares with a reference value, and the table of all of them ends the session."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.validation.references import Reference, reference, references
from tests.validation.table import PROPERTY, Comparison, as_lines, as_property

HERE = Path(__file__).parent


class Agrees:
    """Call it as ``agrees(problem, quantity, computed)``: notes both for the table, and fails out of tolerance."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note

    def __call__(self, problem: str, quantity: str, computed: float) -> None:
        self._compare([reference(problem, quantity)], [computed])

    def with_all_of(self, problem: str, computed: Sequence[float]) -> None:
        """Compare every row of a problem, in the order of the references."""
        self._compare(references(problem), computed)

    def _compare(self, rows: Sequence[Reference], computed: Sequence[float]) -> None:
        comparisons = [Comparison(row, float(value)) for row, value in zip(rows, computed, strict=True)]
        for comparison in comparisons:
            self._note(PROPERTY, as_property(comparison))
        wrong = [comparison for comparison in comparisons if not comparison.reference.holds(comparison.computed)]
        assert not wrong, "\n".join(["out of tolerance:", *as_lines(wrong)])


@pytest.fixture
def agrees(record_property: Callable[[str, object], None]) -> Agrees:
    """Give a function that compares with a reference value; see :class:`Agrees`."""
    return Agrees(record_property)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here, so that `make validation` finds it before anything is left out by its marker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.reference)
