"""Contract lines: one promise of a plug-in each, and going through them."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError

Case = TypeVar("Case")
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class CheckLine:
    """What became of one promise.

    Parameters
    ----------
    line : str
        The promise in words.
    passed : bool
        Whether the plug-in keeps it.
    detail : str
        What is wrong and what to change; empty if nothing is.
    """

    line: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Line(Generic[Case]):
    """A promise and its test.

    Parameters
    ----------
    promise : str
        What a plug-in keeps to, in words.
    complaint : callable
        Tries it out; gives the empty string, or what is wrong.
    needs : tuple of callable
        Complaints of earlier lines without which this one cannot be judged: where one of them failed, the line
        is left out, so that one mistake is named once.
    """

    promise: str
    complaint: Callable[[Case], str]
    needs: tuple[Callable[[Case], str], ...] = ()


def go_through(lines: Sequence[Line[Case]], case: Case, about: str = "") -> list[CheckLine]:
    """Try every line that can be judged.

    Parameters
    ----------
    lines : sequence of Line
        In the order of their needs.
    case : Case
        What their complaints take.
    about : str
        Goes before every promise: which operator, how many dimensions.

    Collective: no.
    """
    results = []
    unfit: set[Callable[[Case], str]] = set()
    for line in lines:
        if unfit.intersection(line.needs):
            unfit.add(line.complaint)
            continue
        complaint = _complaint(line, case)
        if complaint:
            unfit.add(line.complaint)
        results.append(CheckLine(about + line.promise, not complaint, complaint))
    return results


def said(error: Exception) -> str:
    """Put what a plug-in raised into one sentence, with the place it came from."""
    if isinstance(error, CouplerError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def same_bits(one: NDArray[Scalar], other: NDArray[Scalar]) -> bool:
    """Tell whether two arrays are the same to the last bit, NaN included."""
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _complaint(line: Line[Case], case: Case) -> str:
    try:
        return line.complaint(case)
    except Exception as error:  # noqa: BLE001 - the edge of the user's code: the other lines go on
        return said(error)
