"""Limits: what every answer must keep, whatever its score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.errors import FieldMismatch
from coupler.operator import Signature

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Limits:
    """What every answer must keep whatever its score; arrays, prepared once per model.

    Parameters
    ----------
    range_lower, range_upper : ndarray (n_in,)
        Box of the inputs the model was trained on.
    lower, upper : ndarray (n_out,)
        Bounds of the output fields.
    before, after : ndarray (n_sums, n_in) and (n_sums, n_out)
        Weights of the conserved sums on inputs and outputs.
    slack : ndarray (n_sums,)
        Defect a sum may always have: sum of abs(weight) atol.
    slope : ndarray (n_sums, n_out)
        Further defect per abs(output): abs(weight) rtol.
    """

    range_lower: Floats
    range_upper: Floats
    lower: Floats
    upper: Floats
    before: Floats
    after: Floats
    slack: Floats
    slope: Floats

    @staticmethod
    def of(signature: Signature, range_lower: Floats, range_upper: Floats) -> "Limits":
        """Prepare the limits of an operator and a model.

        Parameters
        ----------
        signature : Signature
            Of the operator.
        range_lower, range_upper : ndarray (n_in,)
            Box of the inputs the model was trained on; infinities where there is none.

        Raises
        ------
        FieldMismatch
            If the box has not one number per input.

        Collective: no.
        """
        expected = (len(signature.inputs),)
        if np.shape(range_lower) != expected or np.shape(range_upper) != expected:
            raise FieldMismatch(
                f"The training range has shapes {np.shape(range_lower)} and {np.shape(range_upper)} where the operator "
                f"has {expected[0]} inputs ({signature.inputs_in_words}). Give one lower and one upper each."
            )
        after = _weights(signature, signature.output_names)
        return Limits(
            range_lower=np.array(range_lower, dtype=np.float64),
            range_upper=np.array(range_upper, dtype=np.float64),
            lower=np.array([column.lower for column in signature.outputs]),
            upper=np.array([column.upper for column in signature.outputs]),
            before=_weights(signature, signature.input_names),
            after=after,
            slack=np.abs(after) @ np.asarray(signature.atol),
            slope=np.abs(after) * np.asarray(signature.rtol),
        )


def _weights(signature: Signature, names: tuple[str, ...]) -> Floats:
    sums = signature.element_sums.values()
    rows = [[float(weights.get(name, 0.0)) for name in names] for weights in sums]
    return np.array(rows, dtype=np.float64).reshape(len(sums), len(names))
