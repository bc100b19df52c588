"""Operators: what a declaration may say, and the error in units of the tolerance."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coupler.errors import FieldMismatch, PluginError
from coupler.field import Field
from coupler.operator import Operator, Signature

Floats = NDArray[np.float64]


def _double(inputs: Floats, dt: float) -> Floats:
    return 2.0 * inputs


def _operator(**changes: Any) -> Operator:
    declared: dict[str, Any] = {"inputs": ("u", "v"), "outputs": ("u", "v"), "atol": 1e-6, "rtol": 1e-3}
    return Operator(changes.pop("truth", _double), **(declared | changes))


@pytest.mark.parametrize(
    ("given", "per_output"),
    [
        (1, (1.0, 1.0)),
        (1e-3, (1e-3, 1e-3)),
        ([1, 2], (1.0, 2.0)),
        (np.array([0.5]), (0.5, 0.5)),
        ((3, 4.0), (3.0, 4.0)),
    ],
)
def test_a_tolerance_is_one_number_or_one_per_output(given: Any, per_output: tuple[float, ...]) -> None:
    assert _operator(atol=given).signature.atol == per_output
    assert _operator(rtol=given).signature.rtol == per_output
    assert _operator().with_tolerance(atol=given).signature.atol == per_output


@pytest.mark.parametrize("key", ["atol", "rtol"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, [1.0, -1.0], None])
def test_a_tolerance_that_measures_nothing_is_refused(key: str, value: Any) -> None:
    with pytest.raises(PluginError, match="atol must be positive and rtol not negative"):
        _operator(**{key: value})


def test_a_relative_tolerance_may_be_zero_and_an_absolute_one_may_not() -> None:
    assert _operator(rtol=0).signature.rtol == (0.0, 0.0)
    with pytest.raises(PluginError, match=r'Output "u" has atol=0\.0'):
        _operator(atol=0)
    with pytest.raises(PluginError, match=r'Output "u" has atol=0\.0'):
        _operator().with_tolerance(atol=0)


@pytest.mark.parametrize("value", [[], [1.0, 2.0, 3.0]])
def test_a_wrong_number_of_tolerances_is_refused(value: list[float]) -> None:
    with pytest.raises(PluginError, match=rf"atol has {len(value)} values for 2 outputs \(u, v\): give one"):
        _operator(atol=value)


def test_another_tolerance_leaves_the_operator_as_it_was() -> None:
    operator = _operator()

    other = operator.with_tolerance(rtol=0.5)

    assert operator.signature.rtol == (1e-3, 1e-3)
    assert (other.signature.atol, other.signature.rtol) == (operator.signature.atol, (0.5, 0.5))
    assert other.truth is operator.truth


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": ("u", "u")}, 'names the column "u" twice'),
        ({"outputs": ("v", Field("v"))}, 'names the column "v" twice'),
        ({"inputs": ()}, "needs at least one input and one output"),
        ({"outputs": []}, "needs at least one input and one output"),
        ({"inputs": "temperature"}, r'write a tuple of names, as in \("temperature",\)'),
        ({"inputs": ("a b",)}, "names become keys"),
        ({"conserved": {"mass": {"w": 1.0}}}, 'sum "mass" uses "w", which is not both an input and an output'),
        ({"inputs": ("u",), "conserved": {"mass": {"v": 1.0}}}, 'sum "mass" uses "v", which is not both'),
        ({"conserved": {"mass": {"u": math.nan}}}, 'sum "mass" weighs "u" with nan'),
        ({"conserved": {"mass": ("u", "v")}}, r"sum \"mass\" is \('u', 'v'\): write its weights"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        _operator(**changes)


def test_conserved_sums_are_weights_of_columns_and_a_copy() -> None:
    mass = {"u": 1.0, "v": 0.5}

    operator = _operator(conserved={"mass": mass})
    mass["w"] = 3.0

    assert operator.signature.conserved == {"mass": {"u": 1.0, "v": 0.5}}


def test_increments_name_the_input_of_every_output() -> None:
    operator = _operator(inputs=("t", "v", "u"), outputs=("u", "rate", "v"))

    assert operator.signature.increments == (2, -1, 1)
    assert operator.signature.input_names == ("t", "v", "u")
    assert operator.signature.output_names == ("u", "rate", "v")


def test_named_columns_take_unit_and_bounds_of_the_kernels_fields() -> None:
    fields = (Field("u", unit="K", bounds=(0, None)), Field("v", unit="m"), Field("w"))

    bound = _operator(conserved={"mass": {"u": 1.0}}).bound_to(fields)

    assert bound.signature.inputs == bound.signature.outputs == fields[:2]
    assert bound.signature.conserved == {"mass": {"u": 1.0}}


def test_a_column_that_says_its_own_bounds_keeps_them() -> None:
    tight = Field("u", unit="K", bounds=(0, 1))

    bound = _operator(outputs=(tight, "v")).bound_to((Field("u", bounds=(0, 9)), Field("v", unit="m")))

    assert bound.signature.outputs == (tight, Field("v", unit="m"))


def test_a_column_that_is_no_field_is_named_with_the_nearest() -> None:
    fields = (Field("temperature"), Field("v"))

    with pytest.raises(PluginError, match=r'"temperatures", which is not a field .* Did you mean "temperature"'):
        _operator(inputs=("temperatures", "v")).bound_to(fields)


def test_the_truth_is_evaluated_and_becomes_numbers() -> None:
    assert _operator().evaluate_truth(np.array([[1.0, 2.0]]), 0.1).tolist() == [[2.0, 4.0]]
    assert _operator(truth=lambda inputs, dt: [[1, 2]]).evaluate_truth(np.zeros((1, 2)), 0.1).dtype == np.float64


@pytest.mark.parametrize(
    "answer", [np.zeros((3, 1)), np.zeros((2, 2)), np.zeros(6), np.zeros((3, 2, 1)), None, 0.0], ids=str
)
def test_a_truth_of_another_shape_is_refused(answer: Any) -> None:
    operator = _operator(truth=lambda inputs, dt: answer)

    with pytest.raises(FieldMismatch, match=r"The truth returned an array of shape .* declares \(3, 2\) \(u, v\)"):
        operator.evaluate_truth(np.zeros((3, 2)), 0.1)


def test_the_truth_is_not_asked_about_nothing() -> None:
    operator = _operator(truth=lambda inputs, dt: 1 / 0)

    assert operator.evaluate_truth(np.empty((0, 2)), 0.1).shape == (0, 2)


def test_an_error_of_one_is_at_tolerance() -> None:
    signature = _operator(atol=[0.1, 1.0], rtol=[0.0, 0.5]).signature
    truth = np.array([[1.0, 2.0], [1.0, -2.0], [1.0, 2.0]])
    answer = truth + np.array([[0.1, 0.0], [0.05, -4.0], [0.0, 0.0]])

    # Rounding of 1.1 - 1.0; the largest of the outputs counts.
    assert signature.error(answer, truth) == pytest.approx([1.0, 2.0, 0.0], rel=1e-12)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["answer", "truth"])
def test_what_is_not_finite_is_infinitely_wrong(where: str, wrong: float) -> None:
    arrays = {"answer": np.zeros((2, 2)), "truth": np.zeros((2, 2))}
    arrays[where][0, 1] = wrong

    assert _operator().signature.error(**arrays).tolist() == [math.inf, 0.0]


@pytest.mark.filterwarnings("error")
def test_errors_beyond_all_numbers_are_infinite_without_a_warning() -> None:
    signature = _operator(rtol=10.0).signature

    assert signature.error(np.array([[1e308, 0.0]]), np.array([[-1e308, 0.0]])).tolist() == [math.inf]
    assert signature.error(np.full((1, 2), math.inf), np.full((1, 2), math.inf)).tolist() == [math.inf]


def test_no_elements_have_no_errors() -> None:
    assert _operator().signature.error(np.empty((0, 2)), np.empty((0, 2))).shape == (0,)


def _ordered(pair: tuple[float | None, float | None]) -> bool:
    lower, upper = pair
    return lower is None or upper is None or lower < upper


bounds = st.none() | st.floats(-1e300, 1e300)
fields = st.builds(
    Field,
    st.sampled_from(["u", "v", "température"]),
    st.text(max_size=5),
    st.tuples(bounds, bounds).filter(_ordered),
)
columns = st.lists(fields, min_size=1, max_size=3, unique_by=lambda field: field.name).map(tuple)


@given(columns=columns, tolerance=st.floats(1e-300, 1e300), weight=st.floats(allow_nan=False, allow_infinity=False))
def test_a_signature_survives_json(columns: tuple[Field, ...], tolerance: float, weight: float) -> None:
    mass = {columns[0].name: weight}
    operator = _operator(inputs=columns, outputs=columns, atol=tolerance, rtol=tolerance, conserved={"mass": mass})

    text = json.dumps(operator.signature.to_json(), allow_nan=False)

    assert Signature.from_json(json.loads(text)) == operator.signature


def test_numbers_of_numpy_survive_json() -> None:
    bounds: Any = (np.float32(0.5), np.int64(2))
    columns = (Field("u", bounds=bounds),)
    operator = _operator(inputs=columns, outputs=columns, conserved={"mass": {"u": np.int32(1)}})

    text = json.dumps(operator.signature.to_json())

    assert Signature.from_json(json.loads(text)) == operator.signature


def test_an_operator_says_what_it_is() -> None:
    assert repr(_operator(atol=[1, 2])) == "Operator(u, v -> u, v; atol=(1.0, 2.0), rtol=(0.001, 0.001))"
