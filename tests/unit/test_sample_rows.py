"""The rows that forms are timed on where nobody knows yet what a model will be asked: about one, within bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from coupler.field import Field
from coupler.operator import Signature
from coupler.serving.forms import sample_rows

BOUND = some.one_of(some.none(), some.sampled_from([-1.0, 0.0, 0.1, 1.0, 10.0]), some.floats(-1e4, 1e4))

FIELDS = (Field("x"), Field("y"))
SIGNATURE = Signature.of(FIELDS, FIELDS, atol=1.0, rtol=0.0, conserved={}, tile=None)


def apart(ends: tuple[float | None, float | None]) -> bool:
    lower, upper = ends
    return lower is None or upper is None or upper - lower > 1e-3


@settings(deadline=None)
@given(some.lists(some.tuples(BOUND, BOUND).filter(apart), min_size=1))
def test_rows_lie_within_whatever_bounds_the_inputs_have(bounds: list[tuple[float | None, float | None]]) -> None:
    fields = tuple(Field(f"x{place}", bounds=ends) for place, ends in enumerate(bounds))

    parts = sample_rows(Signature.of(fields, fields, atol=1.0, rtol=0.0, conserved={}, tile=None), None)

    inputs = np.concatenate([part.inputs for part in parts])
    assert np.isfinite(inputs).all()
    for column, field in zip(inputs.T, fields, strict=True):
        assert (column >= field.lower - 1e-9 * abs(field.lower)).all()
        assert (column <= field.upper + 1e-9 * abs(field.upper)).all()
        assert np.ptp(column) > 0


def test_a_temperature_that_is_never_about_one_is_as_low_as_it_may_be() -> None:
    field = Field("temperature", unit="K", bounds=(200.0, 3500.0))

    parts = sample_rows(Signature.of((field,), (field,), atol=1.0, rtol=0.0, conserved={}, tile=None), None)

    inputs = np.concatenate([part.inputs for part in parts])
    assert inputs.min() >= 200.0
    assert 1000.0 < inputs.max() <= 2000.0


@pytest.mark.parametrize("count", [100, 5000])
def test_states_a_model_was_judged_on_are_taken_evenly_however_many_there_are(count: int) -> None:
    judged = np.column_stack([np.arange(count), -np.arange(count)]).astype(np.float64)

    parts = sample_rows(SIGNATURE, None, judged)

    inputs = np.concatenate([part.inputs for part in parts])
    assert len(inputs) == len(np.concatenate([part.mean for part in parts])) > 1000
    np.testing.assert_array_equal(inputs[:, 0], -inputs[:, 1])
    assert (inputs[0, 0], inputs[-1, 0]) == (0, count - 1)
    assert np.diff(inputs[:, 0]).max() <= max(1, -(-count // len(inputs)))


@pytest.mark.parametrize("count", [0, 99])
def test_numbers_are_drawn_where_a_model_was_judged_on_next_to_nothing(count: int) -> None:
    drawn = sample_rows(SIGNATURE, None, np.full((count, 2), 7.0))

    np.testing.assert_array_equal(drawn[0].inputs, sample_rows(SIGNATURE, None)[0].inputs)
