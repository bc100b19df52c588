"""What a caller hands over to be evaluated: rows, ids and room for the outputs, checked on every call."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coupler.errors import FieldMismatch
from coupler.operator import Signature


def check_out(out: NDArray[np.float64], inputs: NDArray[np.float64], signature: Signature) -> None:
    """Raise FieldMismatch if the outputs of these inputs cannot be written there."""
    expected = (len(inputs), len(signature.outputs))
    if out.shape != expected or out.dtype != np.float64 or not out.flags.c_contiguous or not out.flags.writeable:
        raise FieldMismatch(
            f"out has shape {out.shape} and type {out.dtype}; it must be a writable array of shape {expected} "
            f"({signature.outputs_in_words}) of float64 in C order: numpy.empty(...) makes one."
        )
    if np.may_share_memory(out, inputs):
        raise FieldMismatch(
            "out overlaps the inputs, and they are read again after the first results are written: pass another array."
        )


def checked_inputs(inputs: ArrayLike, signature: Signature) -> NDArray[np.float64]:
    """Give rows (n, n_in) as the hot path needs them; FieldMismatch if they are not the operator's."""
    x = np.ascontiguousarray(inputs, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(signature.inputs):
        raise FieldMismatch(
            f"The inputs have shape {x.shape}; the operator takes (n, {len(signature.inputs)}): "
            f"{signature.inputs_in_words}."
        )
    return x


def checked_ids(ids: ArrayLike, elements: int) -> NDArray[np.int64]:
    """Give the ids of so many elements, (elements,).

    Raises
    ------
    FieldMismatch
        If there is not one whole number per element.
    """
    numbers = np.ascontiguousarray(ids)
    if numbers.shape != (elements,) or numbers.dtype.kind not in "iu":
        raise FieldMismatch(
            f"The ids have shape {numbers.shape} and type {numbers.dtype}; there must be one whole number per element, "
            f"({elements},), unique over all ranks."
        )
    return numbers.astype(np.int64, copy=False)
