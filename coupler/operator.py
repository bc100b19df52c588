"""Operators: the expensive map from inputs to outputs that a surrogate may stand in for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coupler.errors import FieldMismatch, PluginError, did_you_mean
from coupler.field import Field
from coupler.tile import Tile, Tiled, TileTruth, tile_from_json

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
        Tolerance per output: an answer is at tolerance when ``|surrogate - truth| = atol + rtol |truth|``.
    conserved : mapping of name to {field: weight}
        Linear sums over columns that the operator leaves as they are; where elements are tiles, sums over the cells of
        the whole domain.
    tiled : Tiled, optional
        Which fields the columns are the cells of, where elements are tiles.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    atol: tuple[float, ...]
    rtol: tuple[float, ...]
    conserved: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tiled: Tiled | None = None

    @staticmethod
    def of(
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        *,
        atol: ArrayLike,
        rtol: ArrayLike,
        conserved: Mapping[str, Mapping[str, float]],
        tile: Tile | None,
    ) -> "Signature":
        """Declare an operator over fields: every field a column, or as many columns as a tile has cells.

        Parameters
        ----------
        inputs, outputs : tuple of Field
            The fields.
        atol, rtol : float or one per output field
            Tolerance.
        conserved : mapping
            As above.
        tile : Tile or None
            The element; a cell if None.

        Raises
        ------
        PluginError
            If a tolerance has neither one value nor one per output field.
        """
        absolute, relative = _per_output("atol", atol, outputs), _per_output("rtol", rtol, outputs)
        if tile is None:
            return Signature(inputs, outputs, absolute, relative, conserved)
        tiled = Tiled(tile, inputs, outputs)
        return Signature(
            inputs=tiled.input_columns,
            outputs=tiled.output_columns,
            atol=tiled.per_output(absolute),
            rtol=tiled.per_output(relative),
            conserved=conserved,
            tiled=tiled,
        )

    def with_declared(
        self,
        *,
        inputs: tuple[Field, ...] | None = None,
        outputs: tuple[Field, ...] | None = None,
        atol: ArrayLike | None = None,
        rtol: ArrayLike | None = None,
    ) -> "Signature":
        """Give the same with something declared otherwise: fields, or tolerances, one or one per output field.

        Raises
        ------
        PluginError
            If a tolerance has neither one value nor one per output field.
        """
        return Signature.of(
            inputs or self.input_fields,
            outputs or self.output_fields,
            atol=self.field_atol if atol is None else atol,
            rtol=self.field_rtol if rtol is None else rtol,
            conserved=self.conserved,
            tile=None if self.tiled is None else self.tiled.tile,
        )

    @property
    def input_fields(self) -> tuple[Field, ...]:
        """The fields that are read: the input columns, or what they are the cells of."""
        return self.inputs if self.tiled is None else self.tiled.inputs

    @property
    def output_fields(self) -> tuple[Field, ...]:
        """The fields that are replaced: the output columns, or what they are the cells of."""
        return self.outputs if self.tiled is None else self.tiled.outputs

    @property
    def element_sums(self) -> Mapping[str, Mapping[str, float]]:
        """The conserved sums that every element keeps by itself: none where elements are tiles, as their edges leak."""
        return self.conserved if self.tiled is None else {}

    @property
    def field_atol(self) -> tuple[float, ...]:
        """Absolute tolerance per output field."""
        return self.atol[:: len(self.outputs) // len(self.output_fields)]

    @property
    def field_rtol(self) -> tuple[float, ...]:
        """Relative tolerance per output field."""
        return self.rtol[:: len(self.outputs) // len(self.output_fields)]

    @property
    def inputs_in_words(self) -> str:
        """The input fields, and what an element is if it is no cell: for messages."""
        return self._in_words(self.input_fields)

    @property
    def outputs_in_words(self) -> str:
        """The output fields, and what an element is if it is no cell: for messages."""
        return self._in_words(self.output_fields)

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
        places = {name: place for place, name in enumerate(self.input_names)}
        return tuple(places.get(name, -1) for name in self.output_names)

    def error(self, answer: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Measure answers against the truth in units of the tolerance.

        Parameters
        ----------
        answer, truth : ndarray (n, n_out)
            What the surrogate said and what is right.

        Returns
        -------
        ndarray (n,)
            max over outputs of ``|answer - truth| / (atol + rtol |truth|)``; 1.0 is "at tolerance", infinite where
            the answer is not finite.

        Collective: no.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            scale = np.asarray(self.atol) + np.asarray(self.rtol) * np.abs(truth)
            scaled: NDArray[np.float64] = np.max(np.abs(answer - truth) / scale, axis=1, initial=0.0)
        return np.where(np.isfinite(scaled), scaled, np.inf)

    def to_json(self) -> dict[str, object]:
        """Give the signature as plain JSON data, by fields; :meth:`from_json` reads it back."""
        data: dict[str, object] = {
            "inputs": [_field_json(item) for item in self.input_fields],
            "outputs": [_field_json(item) for item in self.output_fields],
            "atol": list(self.field_atol),
            "rtol": list(self.field_rtol),
            "conserved": {
                name: {item: float(weight) for item, weight in weights.items()}
                for name, weights in self.conserved.items()
            },
        }
        return data if self.tiled is None else data | {"tile": self.tiled.to_json()}

    @staticmethod
    def from_json(data: Mapping[str, object]) -> "Signature":
        """Read what :meth:`to_json` gave."""
        fields = {key: tuple(_field_from_json(item) for item in data[key]) for key in ("inputs", "outputs")}  # type: ignore[attr-defined]
        tile = data.get("tile")
        return Signature.of(
            fields["inputs"],
            fields["outputs"],
            atol=tuple(data["atol"]),  # type: ignore[arg-type]
            rtol=tuple(data["rtol"]),  # type: ignore[arg-type]
            conserved=data["conserved"],  # type: ignore[arg-type]
            tile=None if tile is None else tile_from_json(tile),  # type: ignore[arg-type]
        )

    def _in_words(self, fields: tuple[Field, ...]) -> str:
        names = ", ".join(item.name for item in fields)
        return names if self.tiled is None else f"{names} on {self.tiled.tile}"


class Operator:
    """The expensive map: outputs = truth(inputs, dt) on a batch of elements, with all that is known about it.

    Parameters
    ----------
    truth : callable
        ``truth(inputs, dt)`` with inputs (n, n_in) float64, C order, never written to, and the time step dt;
        returns (n, n_out). Each row depends on its own inputs only, bitwise the same in any batch. With a tile, inputs
        ``(n, n_fields, *tile.padded)`` and outputs ``(n, n_fields, *tile.shape)``.
    inputs, outputs : sequence of str or Field
        Columns, or with a tile the fields it has cells of. A name takes unit and bounds from the kernel's field of that
        name; a field stands for itself.
    atol, rtol : float or one per name in outputs
        Tolerance: an answer is at tolerance when ``|surrogate - truth| = atol + rtol |truth|``.
    conserved : mapping, optional
        Sums the operator leaves unchanged, as ``{"mass": {"u": 1.0, "v": 1.0}}`` over names that are both
        inputs and outputs. What crosses the edges of a tile changes its sum, so with a tile they are those of the whole
        domain: the summary reports them, and no answer is refused or repaired for them.
    tile : Tile, optional
        What an element is: a block of cells with its halo. A cell, or whatever a row means to you, if left out.

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
        tile: Tile | None = None,
    ) -> None:
        self.signature = Signature.of(
            _as_fields(inputs),
            _as_fields(outputs),
            atol=atol,
            rtol=rtol,
            conserved=_as_sums(conserved or {}),
            tile=_as_tile(tile),
        )
        tiled = self.signature.tiled
        self.truth: Truth = truth if tiled is None else TileTruth(truth, tiled)
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

        return self._with(
            inputs=tuple(map(resolve, self.signature.input_fields)),
            outputs=tuple(map(resolve, self.signature.output_fields)),
        )

    def with_tolerance(self, *, atol: ArrayLike | None = None, rtol: ArrayLike | None = None) -> "Operator":
        """Give the same operator with other tolerances, as a case file may ask."""
        other = self._with(atol=atol, rtol=rtol)
        _check_tolerances(other.signature)
        return other

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
                f"({self.signature.outputs_in_words}). {self._wanted(len(inputs))}"
            )
        return outputs

    def _wanted(self, count: int) -> str:
        tiled = self.signature.tiled
        if tiled is None:
            return "Return one row per element and one column per output."
        return f"Return an array of shape {(count, *tiled.output_shape)}: one block per tile, without its halo."

    def _with(
        self,
        *,
        inputs: tuple[Field, ...] | None = None,
        outputs: tuple[Field, ...] | None = None,
        atol: ArrayLike | None = None,
        rtol: ArrayLike | None = None,
    ) -> "Operator":
        """Give this operator with something declared otherwise."""
        other = object.__new__(Operator)
        other.truth = self.truth
        other.signature = self.signature.with_declared(inputs=inputs, outputs=outputs, atol=atol, rtol=rtol)
        return other

    def __repr__(self) -> str:
        said = self.signature
        ins, outs = ", ".join(item.name for item in said.input_fields), said.outputs_in_words
        return f"Operator({ins} -> {outs}; atol={said.field_atol}, rtol={said.field_rtol})"


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


def _as_tile(tile: Tile | None) -> Tile | None:
    if not isinstance(tile, Tile | None):
        raise PluginError(f"An operator's tile is {tile!r}: write tile=Tile((16, 16), halo=8).")
    return tile


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
    names = [item.name for item in signature.output_fields]
    for name, atol, rtol in zip(names, signature.field_atol, signature.field_rtol, strict=True):
        if not (np.isfinite(atol) and np.isfinite(rtol) and atol > 0 and rtol >= 0):
            raise PluginError(
                f'Output "{name}" has atol={atol}, rtol={rtol}: the error is measured in units of atol + rtol |truth|, '
                "so atol must be positive and rtol not negative."
            )


def _check_conserved(signature: Signature) -> None:
    read, given = ({item.name for item in fields} for fields in (signature.input_fields, signature.output_fields))
    both = read & given
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
