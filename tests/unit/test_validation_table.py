"""The table of the validation suite: what is within tolerance, what is printed, and that its page has every row."""

from pathlib import Path

import pytest

from tests.validation.references import REFERENCES, Reference, reference, references
from tests.validation.table import Comparison, as_lines, as_property, from_properties, not_compared

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validation.md"


def test_every_reference_value_has_a_name_of_its_own_a_tolerance_and_a_source() -> None:
    names = [(row.problem, row.quantity) for row in REFERENCES]

    assert len(set(names)) == len(names)
    assert all(0 < row.tolerance < 1 and row.source for row in REFERENCES)


def test_a_difference_is_a_share_of_the_value_and_of_nothing_it_is_itself() -> None:
    assert Reference("p", "q", -2.0, 0.1, "s").difference(-2.5) == 0.25
    assert Reference("p", "q", 0.0, 0.1, "s").difference(0.25) == 0.25


@pytest.mark.parametrize("computed", [float("nan"), float("inf"), 2.3])
def test_what_is_not_finite_or_too_far_off_does_not_hold(computed: float) -> None:
    assert not Reference("p", "q", 2.0, 0.1, "s").holds(computed)


def test_a_value_compared_twice_shows_the_worse_of_the_two() -> None:
    row = REFERENCES[0]
    good, bad = (Comparison(row, row.value * (1 + share)) for share in (1e-12, 1e-3))

    for order in ([good, bad], [bad, good]):
        assert from_properties(map(as_property, order)) == [bad]


def test_a_value_that_came_out_as_no_number_is_the_worst() -> None:
    row = REFERENCES[0]
    compared = from_properties([(row.problem, row.quantity, value) for value in (row.value, float("nan"), row.value)])

    assert " nan | " in as_lines(compared)[-1] and "(!)" in as_lines(compared)[-1]


def test_the_table_has_a_row_per_comparison_all_as_wide_and_names_what_is_missing() -> None:
    compared = [Comparison(row, row.value) for row in REFERENCES[1:]]

    lines = as_lines(compared)

    assert len(lines) == 2 + len(compared)
    assert len(set(map(len, lines))) == 1
    assert not_compared(compared) == [f"{REFERENCES[0].problem} (1)"]


def test_a_mistyped_problem_or_quantity_names_the_nearest() -> None:
    with pytest.raises(KeyError, match='Did you mean "OREGO"'):
        references("OREGA")
    with pytest.raises(KeyError, match=r'Did you mean "y1\(360\)"'):
        reference("OREGO", "y1(36)")


def test_the_page_shows_every_row() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines()]
    shown = {tuple(cells[:3]) for cells in rows if len(cells) == 7}

    missing = [row for row in REFERENCES if (row.problem, row.quantity, f"{row.value:.10g}") not in shown]

    assert not missing, "copy the table that `make validation` prints into docs/validation.md"
