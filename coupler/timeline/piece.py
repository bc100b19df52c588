"""Pieces: one small file of spans per rank, which can be read at every moment, also after a kill.

A line of JSON says whose it is; then four float64 per span: number of its name, start and stop [s], and step. A clock
that has gone for a hundred days is still exact to some nanoseconds so.
"""

import json
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError

PIECES = "rank-*.spans"
"""What pieces are called in the folder ``trace`` of a run."""

NUMBERS = 4
"""Numbers per span."""

SPAN_NAMES = (
    "step",
    "setup",
    "truth",
    "wait",
    "gather",
    "gate",
    "scatter",
    "halo",
    "io",
    "sync",
    "learn",
    "twin",
    "ledger",
    "model",
)
"""What spans are called; the activities of the stopwatch are among them. Numbers in a piece count from here."""


@dataclass(frozen=True)
class Head:
    """Whose piece it is.

    Parameters
    ----------
    rank, node, pid : int
        Of the process.
    host : str
        Name of its machine.
    offset : int
        What to add to this rank's clock to get that of rank 0 [ns].
    doubt : int
        How far off that may be [ns].
    began : int
        When the run's set-up began, by this rank's clock [ns].
    names : tuple of str
        What the numbers in the column of names mean.
    """

    rank: int
    node: int
    pid: int
    host: str
    offset: int
    doubt: int
    began: int
    names: tuple[str, ...] = SPAN_NAMES


@dataclass(frozen=True)
class Piece:
    """What a piece holds: its head, and the spans (n, 4) as they were taken."""

    head: Head
    spans: NDArray[np.float64]


class PieceFile:
    """A growing piece; nothing of it is held back, so a kill loses what had not been appended.

    Parameters
    ----------
    path : Path
        The file; must not exist.
    head : Head
        Whose it is.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self._file = path.open("xb", buffering=0)
        self._file.write(json.dumps(asdict(head)).encode() + b"\n")

    def append(self, numbers: "array[float]") -> None:
        """Append spans. Collective: no."""
        self._file.write(numbers.tobytes())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def make_room(folder: Path) -> None:
    """Make the folder of the pieces; what a run left that goes on from there is put aside, as its clock was another.

    Collective: no; one rank calls it.
    """
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    if folder.exists():
        folder.rename(aside)
    folder.mkdir()


def read_piece(path: Path, most: int | None = None) -> Piece:
    """Read a piece; half a span at its end, which is just being written or was cut off, does not count.

    Parameters
    ----------
    path : Path
        The file.
    most : int, optional
        Spans to read, the first ones; all if left out.

    Raises
    ------
    CouplerError
        If it is no piece.

    Collective: no.
    """
    try:
        with path.open("rb") as file:
            fields = json.loads(file.readline())
            head = Head(**fields | {"names": tuple(fields["names"])})
            data = file.read() if most is None else file.read(8 * NUMBERS * most)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CouplerError(
            f"{path} cannot be read ({error}): it is no piece of a timeline, or its first line was cut off. Delete it "
            "to have the trace without this rank."
        ) from error
    whole = len(data) // (8 * NUMBERS) * (8 * NUMBERS)
    return Piece(head, np.frombuffer(data[:whole], np.float64).reshape(-1, NUMBERS))
