"""Boxes: parts of the input space that the user names, for which the run makes statements of their own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.certificate import AuditedSums
from coupler.controller.limits import Floats
from coupler.controller.loss import quantised_loss, scaled_error
from coupler.errors import ConfigError, did_you_mean
from coupler.operator import Signature
from coupler.records import Reason

Integers = NDArray[np.int64]

# Per box: decisions, audits, accepted, their audited loss [2**-32], and how many of those were outside of tolerance.
BOX_NUMBERS = 5
_ACCEPTED = int(Reason.ACCEPTED)


class Boxes(NamedTuple):
    """Boxes in the input space of an operator; they may overlap, and need not cover it.

    Attributes
    ----------
    names : tuple of str
        As in the case.
    lower, upper : ndarray (boxes, n_in)
        An element is inside where lower <= input < upper.
    """

    names: tuple[str, ...]
    lower: Floats
    upper: Floats

    @staticmethod
    def of(signature: Signature, ranges: Mapping[str, Mapping[str, Sequence[float]]]) -> "Boxes":
        """Read those boxes of a case that lie in this operator's input space.

        Parameters
        ----------
        signature : Signature
            Of the operator.
        ranges : mapping of box to mapping of input to (float, float)
            Ranges of the inputs that matter; the others may be anything. A tile is inside where all its cells are, the
            halo included. A box with an input that the operator has not is another operator's.

        Collective: no.
        """
        inputs = _inputs(signature)
        mine = {box: sides for box, sides in ranges.items() if set(sides) <= set(inputs)}
        names, width = tuple(mine), len(signature.inputs) // len(inputs)
        lower, upper = np.full((len(names), len(inputs)), -np.inf), np.full((len(names), len(inputs)), np.inf)
        for place, sides in enumerate(mine.values()):
            for name, (low, high) in sides.items():
                lower[place, inputs.index(name)], upper[place, inputs.index(name)] = low, high
        return Boxes(names, lower.repeat(width, axis=1), upper.repeat(width, axis=1))


def check_boxes(signatures: Sequence[Signature], ranges: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Refuse boxes that lie in no operator's input space, or hold nothing.

    Raises
    ------
    ConfigError
        If no operator has all inputs of a box, or a range is empty.

    Collective: no.
    """
    known = sorted({name for signature in signatures for name in _inputs(signature)})
    for box, sides in ranges.items():
        if not any(set(sides) <= set(_inputs(signature)) for signature in signatures):
            strange = next((name for name in sides if name not in known), next(iter(sides)))
            raise ConfigError(
                f"[controller.box.{box}]: no operator has the inputs {', '.join(sides)} "
                f'together; "{strange}" is among them.{did_you_mean(strange, known)} There are {", ".join(known)}.'
            )
        for name, (low, high) in sides.items():
            if not low < high:
                raise ConfigError(f"[controller.box.{box}]: {name} = [{low}, {high}] is empty: lower end first.")


def _inputs(signature: Signature) -> list[str]:
    return [item.name for item in signature.input_fields]


def box_sums(numbers: Integers, audit_rate: float) -> tuple[AuditedSums, ...]:
    """Give the certificate of every box its numbers.

    Parameters
    ----------
    numbers : ndarray (boxes, BOX_NUMBERS) of int64
        Of a step, all ranks.
    audit_rate : float
        Of the step.
    """
    return tuple(AuditedSums(audit_rate, *row) for row in numbers.tolist())


def count_in_boxes(inputs: Floats, verdicts: NDArray[np.uint8], boxes: Boxes, numbers: Integers) -> None:
    """Count decisions and accepted ones by box.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs.
    verdicts : ndarray (n,) of uint8
        What the gate said, of audited elements, too; anything else than accepted where nothing was asked.
    boxes : Boxes
        The boxes.
    numbers : ndarray (boxes, BOX_NUMBERS) of int64
        Are added to.

    Collective: no. Releases the GIL.
    """
    _count(inputs, verdicts, boxes.lower, boxes.upper, numbers)


def audit_in_boxes(
    inputs: Floats,
    mean: Floats,
    verdicts: NDArray[np.uint8],
    truth: Floats,
    boxes: Boxes,
    atol: Floats,
    rtol: Floats,
    cap: float,
    numbers: Integers,
) -> None:
    """Add audited elements by box.

    Parameters
    ----------
    inputs, mean, truth : ndarray (m, n_in), (m, n_out) and (m, n_out)
        Of the audited elements.
    verdicts : ndarray (m,) of uint8
        What the gate said of them.
    boxes : Boxes
        The boxes.
    atol, rtol, cap
        As for the gate.
    numbers : ndarray (boxes, BOX_NUMBERS) of int64
        Are added to.

    Collective: no. Releases the GIL.
    """
    _audit(inputs, mean, verdicts, truth, boxes.lower, boxes.upper, atol, rtol, cap, numbers)


@njit(cache=True, nogil=True, inline="always")
def _inside(inputs: Floats, i: int, lower: Floats, upper: Floats, box: int) -> bool:
    inside = True
    for j in range(inputs.shape[1]):
        inside &= lower[box, j] <= inputs[i, j]
        inside &= inputs[i, j] < upper[box, j]
    return inside


@njit(cache=True, nogil=True)
def _count(inputs: Floats, verdicts: NDArray[np.uint8], lower: Floats, upper: Floats, numbers: Integers) -> None:
    for i in range(inputs.shape[0]):
        for box in range(lower.shape[0]):
            if _inside(inputs, i, lower, upper, box):
                numbers[box, 0] += 1
                numbers[box, 2] += verdicts[i] == _ACCEPTED


@njit(cache=True, nogil=True, error_model="numpy")
def _audit(
    inputs: Floats,
    mean: Floats,
    verdicts: NDArray[np.uint8],
    truth: Floats,
    lower: Floats,
    upper: Floats,
    atol: Floats,
    rtol: Floats,
    cap: float,
    numbers: Integers,
) -> None:
    for i in range(inputs.shape[0]):
        error = scaled_error(mean, i, truth, i, atol, rtol)
        for box in range(lower.shape[0]):
            if _inside(inputs, i, lower, upper, box):
                numbers[box, 1] += 1
                if verdicts[i] == _ACCEPTED:
                    numbers[box, 3] += quantised_loss(error, cap)
                    numbers[box, 4] += error > 1.0
