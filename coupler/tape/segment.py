"""One segment of a tape: the rows of many calls one after another, complete or absent.

=============  ==================  ======================================================================
``ids``        (n,) int64          global ids, ascending within a call
``inputs``     (n, n_in) float64   operator inputs
``truth``      (n, n_out) float64  what the operator gave
``step``       (c,) int64          time step of each call
``call``       (c,) int64          its number within the step
``dt``         (c,) float64        its time step
``offset``     (c + 1,) int64      rows of call i are ``offset[i]`` to ``offset[i + 1]``
``signature``  text                the operator's signature, JSON: names, units, bounds, tolerances
attributes                         ``format``, ``operator``, ``mode``, ``every``, ``share``
=============  ==================  ======================================================================
"""

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
from coupler.errors import CouplerError
from coupler.operator import Signature
from coupler.tape.call import TapeCall
from coupler.tape.head import TapeHead

_FORMAT = "coupler tape 1"
# One call of a small run is read without much besides, and one of a large run in few pieces.
_CHUNK_ROWS = 8192
_COLUMNS = ("ids", "inputs", "truth", "step", "call", "dt", "offset")


def write_segment(path: Path, head: TapeHead, calls: Sequence[TapeCall]) -> None:
    """Write a segment; readers see all of it or nothing.

    Parameters
    ----------
    path : Path
        The file to be.
    head : TapeHead
        Whose calls they are.
    calls : sequence of TapeCall
        In order of step and call; may be empty.

    Raises
    ------
    CouplerError
        If the file cannot be written, for example because the disk is full. Nothing is left of it then.

    Collective: no.
    """
    # Into memory first: HDF5 itself ends the process by a segmentation fault when a disk is full.
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        _put_head(file, head)
        _put_rows(file, head.signature, calls)
        _put_index(file, calls)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(image.getbuffer())
    except OSError as error:
        raise CouplerError(
            f"The tape {path} cannot be written ({error.strerror}), and a tape with a hole would silently be that of "
            "another run; the segments before it are whole. Make room or give another --out; output.tape_every and "
            "output.tape_share make tapes smaller."
        ) from error


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment on disk: its head and index; rows are read when they are asked for.

    Parameters
    ----------
    path : Path
        The file.
    head : TapeHead
        What it says of itself.
    step, call, dt : ndarray (c,)
        What names each call, and its time step.
    offset : ndarray (c + 1,)
        Where the rows of each call begin and end.
    """

    path: Path
    head: TapeHead
    step: NDArray[np.int64]
    call: NDArray[np.int64]
    dt: NDArray[np.float64]
    offset: NDArray[np.int64]

    @classmethod
    def at(cls, path: Path) -> "Segment":
        """Read head and index of a file.

        Raises
        ------
        CouplerError
            If it is truncated, damaged or no tape; the sentence names it.

        Collective: no.
        """
        with _reading(path) as file:
            head = _head(file)
            index = {name: file[name][...] for name in ("step", "call", "dt", "offset")}
            _check_index(head.signature, {name: file[name].shape for name in _COLUMNS}, index)
        return cls(path, head, **index)

    def calls(self, positions: Iterable[int]) -> Iterator[TapeCall]:
        """Read calls by their position in this segment.

        Raises
        ------
        CouplerError
            If rows are damaged; the sentence names the file.

        Collective: no.
        """
        with _reading(self.path) as file:
            for position in positions:
                rows = slice(int(self.offset[position]), int(self.offset[position + 1]))
                yield TapeCall(
                    step=int(self.step[position]),
                    call=int(self.call[position]),
                    dt=float(self.dt[position]),
                    ids=file["ids"][rows],
                    inputs=file["inputs"][rows],
                    truth=file["truth"][rows],
                )


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CouplerError(
            f"The tape {path} cannot be read ({_one_line(error)}): the file is truncated, damaged or no tape of "
            "coupler, and without it the tape would silently be that of another run. Restore it, or move it and the "
            "later ones away to read what was before."
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())


def _put_head(file: h5py.File, head: TapeHead) -> None:
    for name, value in (
        ("format", _FORMAT),
        ("operator", head.operator),
        ("mode", head.mode),
        ("every", head.every),
        ("share", head.share),
    ):
        file.attrs[name] = value
    # A dataset: an attribute holds 64 KiB, and a mechanism of some hundred species says more of itself.
    file.create_dataset("signature", data=json.dumps(head.signature.to_json()))


def _head(file: h5py.File) -> TapeHead:
    if file.attrs.get("format") != _FORMAT:
        raise ValueError(f'it does not say "{_FORMAT}" in its attribute "format"')
    return TapeHead(
        operator=str(file.attrs["operator"]),
        signature=Signature.from_json(json.loads(file["signature"].asstr()[()])),
        mode=str(file.attrs["mode"]),
        every=int(file.attrs["every"]),
        share=float(file.attrs["share"]),
    )


def _put_index(file: h5py.File, calls: Sequence[TapeCall]) -> None:
    _put(file, "step", [np.array([call.step for call in calls], np.int64)])
    _put(file, "call", [np.array([call.call for call in calls], np.int64)])
    _put(file, "dt", [np.array([call.dt for call in calls], np.float64)])
    _put(file, "offset", [np.cumsum([0, *map(len, calls)], dtype=np.int64)])


def _put_rows(file: h5py.File, signature: Signature, calls: Sequence[TapeCall]) -> None:
    _put(file, "ids", [np.empty(0, np.int64), *(call.ids for call in calls)])
    _put(file, "inputs", [np.empty((0, len(signature.inputs))), *(call.inputs for call in calls)])
    _put(file, "truth", [np.empty((0, len(signature.outputs))), *(call.truth for call in calls)])


def _put(file: h5py.File, name: str, parts: Sequence[NDArray[np.generic]]) -> None:
    """Write one column. The checksum finds what a disk lost; a truncated file HDF5 refuses by itself."""
    rows, rest = sum(map(len, parts)), parts[0].shape[1:]
    pieces = max(1, math.ceil(rows / _CHUNK_ROWS))
    dataset = file.create_dataset(
        name,
        shape=(rows, *rest),
        dtype=parts[0].dtype,
        maxshape=(None, *rest),
        # All of one length: what the last one lacks is written, too.
        chunks=(max(1, math.ceil(rows / pieces)), *rest),
        fletcher32=True,
    )
    start = 0
    for block in _blocks(parts):
        dataset[start : start + len(block)] = block
        start += len(block)


def _blocks(parts: Sequence[NDArray[np.generic]]) -> Iterator[NDArray[np.generic]]:
    """Put small parts together and leave large ones alone: a copy of everything costs as much as writing it."""
    together: list[NDArray[np.generic]] = []
    for number, part in enumerate(parts, start=1):
        together.append(part)
        if sum(map(len, together)) >= _CHUNK_ROWS or number == len(parts):
            yield np.concatenate(together) if len(together) > 1 else part
            together = []


def _check_index(signature: Signature, shapes: dict[str, tuple[int, ...]], index: dict[str, NDArray[np.int64]]) -> None:
    """Refuse an index that does not fit the rows, or is not in order."""
    calls, rows, offset = len(index["step"]), int(index["offset"][-1]), index["offset"]
    expected = {
        **dict.fromkeys(("step", "call", "dt"), (calls,)),
        "offset": (calls + 1,),
        "ids": (rows,),
        "inputs": (rows, len(signature.inputs)),
        "truth": (rows, len(signature.outputs)),
    }
    wrong = [name for name in _COLUMNS if shapes[name] != expected[name]]
    if wrong:
        raise ValueError(f'"{wrong[0]}" has shape {shapes[wrong[0]]} where its index says {expected[wrong[0]]}')
    later, same = np.diff(index["step"]) > 0, np.diff(index["step"]) == 0
    ordered = later | (same & (np.diff(index["call"]) > 0))
    if not ordered.all() or offset[0] != 0 or (np.diff(offset) < 0).any():
        raise ValueError("its calls are not in order")
