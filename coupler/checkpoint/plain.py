"""Records as plain data and back: what a checkpoint keeps as JSON, without pickle.

Whole numbers keep all their digits and floats all their bits. A record is named by its class, and only classes that
whoever reads hands over are made again: a file names nothing that gets imported or called.
"""

import base64
import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from coupler.errors import CouplerError

Plain: TypeAlias = Any  # None, bool, int, float, str, list and dict of them

_TUPLE, _RECORD, _FIELDS, _ENUM, _NAME, _ARRAY, _SHAPE, _BYTES, _PAIRS = (
    "tuple",
    "record",
    "fields",
    "enum",
    "name",
    "array",
    "shape",
    "bytes",
    "pairs",
)


def to_plain(value: object) -> Plain:
    """Give a record, or anything made of records, tuples, lists, mappings, enumerations, arrays and numbers, as JSON.

    Parameters
    ----------
    value : object
        Dataclasses, named tuples and enumerations are told by the names of their classes.

    Returns
    -------
    Plain
        What ``json.dumps`` takes.

    Raises
    ------
    CouplerError
        If there is something else in it, such as a function.

    Collective: no.
    """
    if isinstance(value, Enum):  # before str and int: many are both
        return {_ENUM: type(value).__name__, _NAME: value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        text = base64.b64encode(data.tobytes()).decode("ascii")
        return {_ARRAY: data.dtype.str, _SHAPE: list(value.shape), _BYTES: text}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {_RECORD: type(value).__name__, _FIELDS: fields}
    if isinstance(value, tuple) and isinstance(names := getattr(value, "_fields", None), tuple):
        return {_RECORD: type(value).__name__, _FIELDS: dict(zip(names, map(to_plain, value), strict=True))}
    if isinstance(value, tuple):
        return {_TUPLE: [to_plain(one) for one in value]}
    if isinstance(value, list):
        return [to_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {_PAIRS: [[to_plain(key), to_plain(one)] for key, one in value.items()]}
    raise CouplerError(
        f"A checkpoint cannot keep {type(value).__name__}: state that is to outlive the run must be a frozen dataclass "
        "or a named tuple of numbers, texts, arrays and such records."
    )


def from_plain(data: Plain, known: Mapping[str, type]) -> Any:
    """Make again what :func:`to_plain` was given.

    Parameters
    ----------
    data : Plain
        What it gave, after JSON and back.
    known : mapping of str to type
        The classes that may occur, by name.

    Raises
    ------
    ValueError
        If the data name another class, or do not fit it: they were written by other code.

    Collective: no.
    """
    if isinstance(data, list):
        return [from_plain(one, known) for one in data]
    if not isinstance(data, dict):
        return data
    if _TUPLE in data:
        return tuple(from_plain(one, known) for one in data[_TUPLE])
    if _PAIRS in data:
        return {from_plain(key, known): from_plain(one, known) for key, one in data[_PAIRS]}
    if _ARRAY in data:
        array = np.frombuffer(base64.b64decode(data[_BYTES]), np.dtype(data[_ARRAY]))
        return array.reshape(data[_SHAPE]).copy()
    name = str(data.get(_ENUM, data.get(_RECORD)))
    if name not in known:
        raise ValueError(f'there is no record called "{name}" in this version')
    kind = known[name]
    try:
        if _ENUM in data:
            return kind[data[_NAME]]  # type: ignore[index]
        return kind(**{key: from_plain(one, known) for key, one in data[_FIELDS].items()})
    except (TypeError, KeyError, AssertionError) as error:
        raise ValueError(f'the record "{name}" has another form in this version ({error})') from error


def records_of(modules: Iterable[ModuleType]) -> dict[str, type]:
    """Give the dataclasses, named tuples and enumerations that modules define or use, by name.

    A policy of a user's own keeps its state in classes of its own module.

    Collective: no.
    """
    found: dict[str, type] = {}
    for module in modules:
        for kind in vars(module).values():
            if isinstance(kind, type) and _is_record(kind):
                found[kind.__name__] = kind
    return found


def _is_record(kind: type) -> bool:
    named_tuple = issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)
    return dataclasses.is_dataclass(kind) or issubclass(kind, Enum) or named_tuple
