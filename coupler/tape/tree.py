"""A tape in words: what its ``repr`` shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.field import Field
from coupler.operator import Signature
from coupler.tape.head import TapeHead


def tree(
    head: TapeHead,
    *,
    folder: Path,
    steps: NDArray[np.int64],
    calls: tuple[int, int],
    elements: int,
    dt: NDArray[np.float64],
    file_bytes: Sequence[int],
) -> str:
    """Give a tape as a small tree.

    Parameters
    ----------
    head : TapeHead
        Operator, mode, and what was recorded.
    folder : Path
        Where it lies.
    steps, dt : ndarray
        Recorded steps and the time steps of their calls, ascending.
    calls : pair of int
        Fewest and most calls per step.
    elements : int
        Of all calls.
    file_bytes : sequence of int
        Size of every segment.
    """
    signature = head.signature
    lines = (
        f"inputs    {', '.join(map(_column, signature.input_fields))}{_element(signature)}",
        f"outputs   {', '.join(_output(signature, number) for number in range(len(signature.output_fields)))}",
        f"steps     {_range(steps)}{_counted(len(steps), calls)}",
        f"elements  {elements}",
        f"dt        {_range(dt)}",
        f"bytes     {sum(file_bytes)} in {_plural(len(file_bytes), 'file')}",
    )
    marks = ["├──"] * (len(lines) - 1) + ["└──"]
    return "\n".join([_title(head, folder), *(f"{mark} {line}" for mark, line in zip(marks, lines, strict=True))])


def _title(head: TapeHead, folder: Path) -> str:
    steps = "every step" if head.every == 1 else f"every {head.every}. step"
    share = "all elements" if head.share == 1.0 else f"{head.share:.3g} of the elements"
    return f'Tape of "{head.operator}" in {folder}: mode {head.mode}, {steps}, {share}'


def _column(column: Field) -> str:
    return f"{column.name} [{column.unit}]"


def _output(signature: Signature, number: int) -> str:
    atol, rtol, field = signature.field_atol[number], signature.field_rtol[number], signature.output_fields[number]
    return f"{_column(field)} ± ({atol:.3g} + {rtol:.3g}|{field.name}|)"


def _element(signature: Signature) -> str:
    return "" if signature.tiled is None else f" on {signature.tiled.tile}"


def _range(values: NDArray[np.int64] | NDArray[np.float64]) -> str:
    if len(values) == 0:
        return "none"
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} … {values[-1]}"


def _counted(steps: int, calls: tuple[int, int]) -> str:
    if steps == 0:
        return ""
    fewest, most = calls
    each = _plural(most, "call") if fewest == most else f"{fewest} to {most} calls"
    return f" ({steps} of them, {each} each)"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
