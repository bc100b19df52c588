"""One checkpoint: a file of arrays and a page of facts, each with its checksum.

=============  ==========================================================================================
``facts``      bytes of a JSON text: format, step, time, case, and the records of whoever has something to keep
other arrays   global arrays, whatever ranks wrote them; attribute ``sha256`` of their bytes in the file
=============  ==========================================================================================
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
from coupler.checkpoint.image import ArrayFile, verified
from coupler.checkpoint.plain import Plain
from coupler.errors import CouplerError

FORMAT = 1
"""Is counted up when a checkpoint of before can no longer be read."""
_FACTS = "facts"


class Column(NamedTuple):
    """An array of all ranks on its way into a checkpoint.

    Attributes
    ----------
    name : str
        What it is called there; ``/`` makes groups.
    gather : callable
        Gives it on rank 0, and None elsewhere; every rank calls it.
    """

    name: str
    gather: "Callable[[], NDArray[Any] | None]"


def write_checkpoint(path: Path | None, columns: Iterable[Column], facts: Callable[[], Mapping[str, Plain]]) -> None:
    """Gather and write a checkpoint: it is there and whole, or not there.

    Rank 0 holds one array at a time beside what its gathering needs.

    Parameters
    ----------
    path : Path or None
        The file to be; None on ranks that only hand over.
    columns : iterable of Column
        The same on every rank, in the same order.
    facts : callable
        Gives what else there is to keep, on rank 0 only.

    Raises
    ------
    OSError
        If it cannot be written; nothing of it is left then.

    Collective: as far as the columns are.
    """
    if path is None:
        for column in columns:
            column.gather()
        return
    with replacing(path) as temporary:
        file = ArrayFile(temporary)
        try:
            for column in columns:
                whole = column.gather()
                assert whole is not None, f"{column.name}: rank 0 has what was gathered"
                file.add(column.name, whole)
                del whole
            file.add(_FACTS, np.frombuffer(json.dumps({"format": FORMAT, **facts()}).encode(), np.uint8))
            file.finish()
        finally:
            file.close()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint on disk whose checksums were right.

    Parameters
    ----------
    path : Path
        The file.
    facts : mapping
        What was kept besides the arrays.
    """

    path: Path
    facts: Mapping[str, Plain]

    @staticmethod
    def read(path: Path) -> "Checkpoint":
        """Open a checkpoint and look at every byte of it.

        Raises
        ------
        CouplerError
            If it is truncated, damaged, foreign or of another format; the sentence names it.

        Collective: no; one rank does it for all.
        """
        with _reading(path) as file:
            arrays: list[h5py.Dataset] = []
            file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
            damaged = [array.name for array in arrays if not verified(path, array)]
            if damaged:
                raise ValueError(f"the checksum of {damaged[0].lstrip('/')} is not that of its bytes")
            facts = json.loads(bytes(file[_FACTS][...]))
            if not isinstance(facts, dict) or facts.get("format") != FORMAT:
                raise ValueError("it is no checkpoint, or one of another version of coupler")
        return Checkpoint(path, facts)

    @property
    def step(self) -> int:
        """Steps that had been made."""
        return int(self.facts["step"])

    def names(self, group: str) -> list[str]:
        """Give the names of the arrays and groups in a group; none if there is no such group."""
        with _reading(self.path) as file:
            return list(file[group]) if group in file else []

    def array(self, name: str, region: Any = ()) -> NDArray[Any]:
        """Read an array, or a region of it, as ``(slice, slice)``.

        Raises
        ------
        CouplerError
            If there is no such array.

        Collective: no.
        """
        with _reading(self.path) as file:
            return np.asarray(file[name][region])


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        said = str(error).strip().strip("\"'").partition("\n")[0]
        raise CouplerError(f"{path} cannot be used ({said})") from error
