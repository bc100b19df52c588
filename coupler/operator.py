"""Operators: the expensive map from inputs to outputs that a surrogate may stand in for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coupler.errors import FieldMismatch, PluginError, did_you_mean
from coupler.field import Field

Truth = Callable[[NDArray[np.float64], float], NDArray[np.float64]]


@dataclass(frozen=True)
class Signature:
    """What a surrogate must know of an operator: names, units, bounds, tolerances and conserved sums.

    It is plain data and travels to the server as JSON; the truth itself never leaves the ranks.

    Parameters
    ----------
    inputs, outputs : tuple of Field
        Columns of the input and output arrays, in order.
    atol, rtol : tuple of float
        Tolerance per output: an answer is at tolerance when |surrogate - truth| = atol + rtol |truth|.
    conserved : mapping of name to {column: weight}
        Linear sums over columns that the operator leaves as they are.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    atol: tuple[float, ...]
    rtol: tuple[float, ...]
    conserved: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input columns."""
        return tuple(column.name for column in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the output columns."""
        return tuple(column.name for column in self.outputs)

    @property
    def increments(self) -> tuple[int, ...]:
        """For each output the input column of the same name, or -1: where an increment can be predicted."""
        names = self.input_names
        return tuple(names.index(name) if name in names else -1 for name in self.output_names)

    def error(self, answer: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Measure answers against the truth in units of the tolerance.

        Parameters
        ----------
        answer, truth : ndarray (n, n_out)
            What the surrogate said and what is right.

        Returns
        -------
        ndarray (n,)
            max over outputs of |answer - truth| / (atol + rtol |truth|); 1.0 is "at tolerance", infinite where
            the answer is not finite.

        Collective: no.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            scale = np.asarray(self.atol) + np.asarray(self.rtol) * np.abs(truth)
            scaled: NDArray[np.float64] = np.max(np.abs(answer - truth) / scale, axis=1, initial=0.0)
        return np.where(np.isfinite(scaled), scaled, np.inf)

    def to_json(self) -> dict[str, object]:
        """Give the signature as plain JSON data; :meth:`from_json` reads it back."""
        return {
            "inputs": [_field_json(column) for column in self.inputs],
            "outputs": [_field_json(column) for column in self.outputs],
            "atol": list(self.atol),
            "rtol": list(self.rtol),
            "conserved": {
                name: {column: float(weight) for column, weight in weights.items()}
                for name, weights in self.conserved.items()
            },
        }

    @staticmethod
    def from_json(data: Mapping[str, object]) -> "Signature":
        """Read what :meth:`to_json` gave."""
        columns = {key: tuple(_field_from_json(item) for item in data[key]) for key in ("inputs", "outputs")}  # type: ignore[attr-defined]
        return Signature(
            inputs=columns["inputs"],
            outputs=columns["outputs"],
            atol=tuple(data["atol"]),  # type: ignore[arg-type]
            rtol=tuple(data["rtol"]),  # type: ignore[arg-type]
            conserved=data["conserved"],  # type: ignore[arg-type]
        )


class Operator:
    """The expensive map: outputs = truth(inputs, dt) on a batch of elements, with all that is known about it.

    Parameters
    ----------
    truth : callable
        ``truth(inputs, dt)`` with inputs (n, n_in) float64, C order, never written to, and the time step dt;
        returns (n, n_out). Each row depends on its own inputs only, bitwise the same in any batch.
    inputs, outputs : sequence of str or Field
        Columns. A name takes unit and bounds from the kernel's field of that name; a field stands for itself.
    atol, rtol : float or one per output
        Tolerance: an answer is at tolerance when |surrogate - truth| = atol + rtol |truth|.
    conserved : mapping, optional
        Sums the operator leaves unchanged, as ``{"mass": {"u": 1.0, "v": 1.0}}`` over columns that are both
        inputs and outputs.

    Raises
    ------
    PluginError
        If a tolerance is not positive, a column is named twice or a conserved sum makes no sense.
    """

    def __init__(
        self,
        truth: Truth,
        *,
        inputs: Sequence[str | Field],
        outputs: Sequence[str | Field],
        atol: ArrayLike,
        rtol: ArrayLike,
        conserved: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        columns_in, columns_out = _as_fields(inputs), _as_fields(outputs)
        self.truth = truth
        self.signature = Signature(
            inputs=columns_in,
            outputs=columns_out,
            atol=_per_output("atol", atol, columns_out),
            rtol=_per_output("rtol", rtol, columns_out),
            conserved=_as_sums(conserved or {}),
        )
        _check_tolerances(self.signature)
        _check_conserved(self.signature)

    def bound_to(self, fields: Sequence[Field]) -> "Operator":
        """Take unit and bounds of every named column from a kernel's fields.

        Raises
        ------
        PluginError
            If a column is not a field of the kernel.
        """
        known = {item.name: item for item in fields}

        def resolve(column: Field) -> Field:
            if column.name not in known:
                raise PluginError(
                    f'The operator names the column "{column.name}", which is not a field of the kernel.'
                    f"{did_you_mean(column.name, known)}"
                )
            return known[column.name] if column == Field(column.name) else column

        signature = replace(
            self.signature,
            inputs=tuple(resolve(column) for column in self.signature.inputs),
            outputs=tuple(resolve(column) for column in self.signature.outputs),
        )
        return self._with(signature)

    def with_tolerance(self, *, atol: ArrayLike | None = None, rtol: ArrayLike | None = None) -> "Operator":
        """Give the same operator with other tolerances, as a case file may ask."""
        outputs = self.signature.outputs
        signature = replace(
            self.signature,
            atol=self.signature.atol if atol is None else _per_output("atol", atol, outputs),
            rtol=self.signature.rtol if rtol is None else _per_output("rtol", rtol, outputs),
        )
        _check_tolerances(signature)
        return self._with(signature)

    def evaluate_truth(self, inputs: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
        """Compute the truth and check the shape of what comes back.

        Parameters
        ----------
        inputs : ndarray (n, n_in)
            Operator inputs, units as declared.
        dt : float
            Time step.

        Returns
        -------
        ndarray (n, n_out)

        Raises
        ------
        FieldMismatch
            If the truth returns another shape than the operator declares.

        Collective: no.
        """
        expected = (inputs.shape[0], len(self.signature.outputs))
        if inputs.shape[0] == 0:
            return np.empty(expected)
        outputs = np.asarray(self.truth(inputs, dt), dtype=np.float64)
        if outputs.shape != expected:
            raise FieldMismatch(
                f"The truth returned an array of shape {outputs.shape} where the operator declares {expected} "
                f"({', '.join(self.signature.output_names)}). Return one row per element and one column per output."
            )
        return outputs

    def _with(self, signature: Signature) -> "Operator":
        other = object.__new__(Operator)
        other.truth, other.signature = self.truth, signature
        return other

    def __repr__(self) -> str:
        ins, outs = ", ".join(self.signature.input_names), ", ".join(self.signature.output_names)
        return f"Operator({ins} -> {outs}; atol={self.signature.atol}, rtol={self.signature.rtol})"


def _as_fields(columns: Sequence[str | Field]) -> tuple[Field, ...]:
    if isinstance(columns, str):  # a sequence, too, of letters: ("u") is no tuple
        raise PluginError(f'An operator\'s columns are "{columns}": write a tuple of names, as in ("{columns}",).')
    fields = tuple(Field(column) if isinstance(column, str) else column for column in columns)
    names = [item.name for item in fields]
    if not names:
        raise PluginError("An operator needs at least one input and one output.")
    for name in names:
        if names.count(name) > 1:
            raise PluginError(f'The operator names the column "{name}" twice.')
    return fields


def _as_sums(conserved: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    for name, weights in conserved.items():
        if not isinstance(weights, Mapping):
            raise PluginError(f'The conserved sum "{name}" is {weights!r}: write its weights, as in {{"u": 1.0}}.')
    return {name: dict(weights) for name, weights in conserved.items()}


def _per_output(key: str, value: ArrayLike, outputs: tuple[Field, ...]) -> tuple[float, ...]:
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if values.size not in (1, len(outputs)):
        names = ", ".join(column.name for column in outputs)
        raise PluginError(
            f"{key} has {values.size} values for {len(outputs)} outputs ({names}): give one, or one each."
        )
    return tuple(float(item) for item in np.broadcast_to(values, (len(outputs),)))


def _check_tolerances(signature: Signature) -> None:
    for name, atol, rtol in zip(signature.output_names, signature.atol, signature.rtol, strict=True):
        if not (np.isfinite(atol) and np.isfinite(rtol) and atol > 0 and rtol >= 0):
            raise PluginError(
                f'Output "{name}" has atol={atol}, rtol={rtol}: the error is measured in units of atol + rtol |truth|, '
                "so atol must be positive and rtol not negative."
            )


def _check_conserved(signature: Signature) -> None:
    both = set(signature.input_names) & set(signature.output_names)
    for name, weights in signature.conserved.items():
        for column, weight in weights.items():
            if column not in both:
                raise PluginError(
                    f'The conserved sum "{name}" uses "{column}", which is not both an input and an output.'
                    f"{did_you_mean(column, both)}"
                )
            if not np.isfinite(weight):
                raise PluginError(f'The conserved sum "{name}" weighs "{column}" with {weight}: give a finite number.')


def _field_json(column: Field) -> dict[str, object]:
    bounds = [None if bound is None else float(bound) for bound in column.bounds]
    return {"name": column.name, "unit": column.unit, "bounds": bounds}


def _field_from_json(data: Mapping[str, object]) -> Field:
    bounds: tuple[float | None, float | None] = tuple(data["bounds"])  # type: ignore[arg-type, assignment]
    return Field(str(data["name"]), str(data["unit"]), bounds)
