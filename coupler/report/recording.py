"""Recordings: the fields of a run over time as they lie on disk, read moment by moment."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError


@dataclass(frozen=True)
class Recording:
    """What ``fields.h5`` holds; the numbers themselves stay on disk until :meth:`frame` asks for them.

    Parameters
    ----------
    path : Path
        The file.
    units : mapping of str to str
        Unit by name of every field, in the file's order.
    steps : tuple of int
        Steps at which the fields were written.
    times : tuple of float
        Time at those steps, in the kernel's unit.
    centres : tuple of ndarray (cells,)
        Cell centres, one array per dimension, in the kernel's unit of length.
    """

    path: Path
    units: Mapping[str, str]
    steps: tuple[int, ...]
    times: tuple[float, ...]
    centres: tuple[NDArray[np.float64], ...]

    @property
    def lengths(self) -> tuple[float, ...]:
        """Size of the box per dimension; centres lie half a cell off the edges."""
        return tuple(float(axis[0] + axis[-1]) for axis in self.centres)

    @property
    def elongation(self) -> float:
        """Height of a plane over its width, for two or three dimensions."""
        *_, up, right = self.lengths
        return up / right

    def frame(self, field: str, moment: int) -> NDArray[np.float64]:
        """Read one field at one moment, an array of the grid's shape.

        Raises
        ------
        CouplerError
            If the file cannot be read.
        """
        with reading(self.path), h5py.File(self.path, "r") as file:
            numbers: NDArray[np.float64] = file[field][moment]
        return numbers

    def moment(self, step: int) -> str:
        """Name a moment in a title."""
        return f"t = {self.times[self.steps.index(step)]:.4g}"


def read_recording(path: Path) -> Recording:
    """Read all of ``fields.h5`` but the fields.

    A run that was killed while it wrote may have more of one field than of the next: only moments that are
    there in full count.

    Raises
    ------
    CouplerError
        If the file is missing, cannot be read or holds no moment in full.

    Collective: no.
    """
    with reading(path), h5py.File(path, "r") as file:
        fields = {name: data for name, data in file.items() if "units" in data.attrs}
        whole = min(len(data) for data in (file["step"], file["time"], *fields.values()))
        recording = Recording(
            path=path,
            units={name: str(data.attrs["units"]) for name, data in fields.items()},
            steps=tuple(int(step) for step in file["step"][:whole]),
            times=tuple(float(time) for time in file["time"][:whole]),
            centres=tuple(file[name][:] for name in ("axis0", "axis1", "axis2") if name in file),
        )
    if not (recording.steps and recording.units):
        raise CouplerError(
            f"{path} holds no field at any moment, so nothing can be drawn or compared: give the folder of a run "
            "that reached its first output."
        )
    return recording


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong while a file is read into one sentence that names it.

    Raises
    ------
    CouplerError
        If the file is missing, is cut short or holds something else than a run writes.
    """
    try:
        yield
    except FileNotFoundError:
        raise CouplerError(
            f"{path} is missing, without which this run cannot be drawn or compared: give the folder of a run "
            "that ended."
        ) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CouplerError(
            f"{path} cannot be read ({reason}), so it was cut short or is no file of a run: run the case again into "
            "another folder."
        ) from error
