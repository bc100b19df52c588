"""The contract of an operator: what the coupler relies on when it calls the truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.check.lines import CheckLine, Line, go_through, same_bits
from coupler.operator import Operator, Signature

# Enough to be many; few enough for a truth that takes a tenth of a second each.
_ELEMENTS = 64
_ALONE = 8
_PERTURBATION = 1e-3
# Rounding of a sum over a handful of columns, with room for an integrator that conserves to its own accuracy.
_CONSERVED_RTOL = 1e-9


@dataclass(frozen=True)
class OperatorCase:
    """An operator and elements to try it on.

    Parameters
    ----------
    operator : Operator
        Units and bounds resolved.
    inputs : ndarray (n, n_in)
        Elements.
    dt : float
        Time step.
    """

    operator: Operator
    inputs: NDArray[np.float64]
    dt: float

    def truth(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float64]:
        """Ask the truth, with a copy of these rows that it may spoil."""
        return self.operator.truth(np.array(self.inputs[rows], order="C"), self.dt)


def check_operator(operator: Operator, elements: NDArray[np.float64], dt: float, *, about: str = "") -> list[CheckLine]:
    """Go through the contract of an operator.

    Parameters
    ----------
    operator : Operator
        What to check.
    elements : ndarray (n, n_in)
        Inputs it meets in practice, from which some are drawn; none if n is 0, and then they are invented.
    dt : float
        Time step.
    about : str
        Goes before every line.

    Collective: no.
    """
    lines = (*_LINES, _CONSERVED) if operator.signature.element_sums else _LINES
    return go_through(lines, OperatorCase(operator, _choose(operator.signature, elements), dt), about)


def _choose(signature: Signature, elements: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw elements and add a copy of each, slightly perturbed, within the bounds."""
    generator = np.random.default_rng(0)
    if len(elements) == 0:
        elements = _invent(signature, generator)
    rows = generator.choice(len(elements), size=min(len(elements), _ELEMENTS), replace=False)
    drawn = elements[rows]
    near = drawn * (1.0 + _PERTURBATION * generator.standard_normal(drawn.shape))
    lower, upper = [[column.lower for column in signature.inputs], [column.upper for column in signature.inputs]]
    return np.concatenate([drawn, np.clip(near, lower, upper)])


def _invent(signature: Signature, generator: np.random.Generator) -> NDArray[np.float64]:
    """Make up elements of order one from the bounds alone, for an operator without a kernel."""
    columns = []
    for column in signature.inputs:
        if np.isfinite(column.lower) and np.isfinite(column.upper):
            columns.append(generator.uniform(column.lower, column.upper, _ELEMENTS))
        elif np.isfinite(column.lower):
            columns.append(column.lower + generator.lognormal(size=_ELEMENTS))
        elif np.isfinite(column.upper):
            columns.append(column.upper - generator.lognormal(size=_ELEMENTS))
        else:
            columns.append(generator.standard_normal(_ELEMENTS))
    return np.column_stack(columns)


def _returns_what_it_declares(case: OperatorCase) -> str:
    outputs: object = case.truth()
    if not isinstance(outputs, np.ndarray):
        return f"it returned a {type(outputs).__name__}: return a numpy array."
    expected = (len(case.inputs), len(case.operator.signature.outputs))
    if outputs.shape != expected:
        return f"it returned shape {outputs.shape} instead of {expected}: one row per element, one column per output."
    if outputs.dtype != np.float64:
        return f"it returned {outputs.dtype}: return float64, or accuracy is lost where nobody looks."
    return ""


def _leaves_its_inputs(case: OperatorCase) -> str:
    inputs = case.inputs.copy()
    case.operator.truth(inputs, case.dt)
    if same_bits(inputs, case.inputs):
        return ""
    names = np.array(case.operator.signature.input_names)
    changed = ", ".join(names[(inputs != case.inputs).any(axis=0)])
    return f"it wrote into the column {changed} of its inputs, which lie in the shared arena: work on a copy."


def _is_repeatable(case: OperatorCase) -> str:
    if same_bits(case.truth(), case.truth()):
        return ""
    return "the same inputs gave other bits the second time: seed what is random, keep no state between calls."


def _rows_are_independent(case: OperatorCase) -> str:
    together = case.truth()
    advice = "compute every row from its own inputs only, or runs depend on the number of ranks."
    for row in np.linspace(0, len(case.inputs) - 1, _ALONE, dtype=np.intp):
        if not same_bits(case.truth(np.array([row])), together[row : row + 1]):
            return f"element {row} alone gets another answer than among {len(case.inputs)}: {advice}"
    order = np.random.default_rng(1).permutation(len(case.inputs))
    if not same_bits(case.truth(order), together[order]):
        return f"elements in another order get other answers: {advice}"
    return ""


def _answers_nothing_with_nothing(case: OperatorCase) -> str:
    outputs = case.operator.evaluate_truth(case.inputs[:0].copy(), case.dt)
    return "" if len(outputs) == 0 else f"no elements gave {len(outputs)} answers."


def _is_finite(case: OperatorCase) -> str:
    finite = np.isfinite(case.truth()).all(axis=1)
    if finite.all():
        return ""
    first = case.inputs[np.argmin(finite)]
    return f"{np.sum(~finite)} of {finite.size} answers are not finite, first for {first}, dt = {case.dt:g}."


def _keeps_to_bounds(case: OperatorCase) -> str:
    outputs = case.truth()
    for column, field in enumerate(case.operator.signature.outputs):
        values = outputs[:, column]
        outside = (values < field.lower) | (values > field.upper)
        if outside.any():
            worst = values[np.argmax(outside)]
            return (
                f'"{field.name}" = {worst:g} is outside of {field.bounds}, and a surrogate that learns it is refused: '
                "widen the bounds or clip."
            )
    return ""


def _keeps_conserved_sums(case: OperatorCase) -> str:
    signature, outputs = case.operator.signature, case.truth()
    for name, weights in signature.element_sums.items():
        weight = np.array(list(weights.values()))
        before = case.inputs[:, [signature.input_names.index(column) for column in weights]] * weight
        after = outputs[:, [signature.output_names.index(column) for column in weights]] * weight
        drift = np.abs(after.sum(axis=1) - before.sum(axis=1))
        scale = np.maximum(np.abs(before).sum(axis=1), np.finfo(np.float64).tiny)
        if (drift > _CONSERVED_RTOL * scale).any():
            worst = np.max(drift / scale)
            return f'the sum "{name}" changes by up to {worst:.1e} of itself: keep it or do not declare it.'
    return ""


_LINES = (
    Line("the truth returns one row per element and one column per output, float64", _returns_what_it_declares),
    Line("the truth leaves its inputs as they are", _leaves_its_inputs),
    Line("the truth is bitwise repeatable", _is_repeatable),
    Line(
        "an answer depends on its own row only: bitwise the same alone, in any batch, in any order",
        _rows_are_independent,
        needs=(_returns_what_it_declares, _is_repeatable),
    ),
    Line("an empty batch gets an empty answer", _answers_nothing_with_nothing),
    Line("answers are finite", _is_finite, needs=(_returns_what_it_declares,)),
    Line(
        "answers are within the bounds of their fields", _keeps_to_bounds, needs=(_returns_what_it_declares, _is_finite)
    ),
)
_CONSERVED = Line(
    f"conserved sums are kept, to {_CONSERVED_RTOL:.0e} of themselves",
    _keeps_conserved_sums,
    needs=(_returns_what_it_declares, _is_finite),
)
