"""The samples of a run on disk: few large segments, each complete or absent."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
from coupler.errors import CouplerError, FieldMismatch
from coupler.field import Field
from coupler.learning.draws import element_draws
from coupler.operator import Signature

_COLUMNS = ("inputs", "dt", "truth", "step", "call", "ids", "reason")
_THINNING = 0x7417


@dataclass(frozen=True)
class SampleBatch:
    """Elements with their truth, and where in the run they come from.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs, units as the operator declares them.
    dt : ndarray (n,)
        Time step of each element.
    truth : ndarray (n, n_out)
        What the operator gave.
    step, call, ids : ndarray (n,), int64
        Time step, call within the step and global id; together they name an element.
    reason : ndarray (n,), uint8
        Why the truth was computed, a :class:`coupler.records.Reason`.
    """

    inputs: NDArray[np.float64]
    dt: NDArray[np.float64]
    truth: NDArray[np.float64]
    step: NDArray[np.int64]
    call: NDArray[np.int64]
    ids: NDArray[np.int64]
    reason: NDArray[np.uint8]

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        assert len(set(lengths.values())) == 1, f"columns of one batch differ in length: {lengths}"

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "SampleBatch":
        """Give the samples of these rows, in this order."""
        return SampleBatch(**{name: getattr(self, name)[rows] for name in _COLUMNS})

    @staticmethod
    def join(batches: Sequence["SampleBatch"]) -> "SampleBatch":
        """Put batches one after another; there must be at least one."""
        return SampleBatch(**{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _COLUMNS})


class SampleStore:
    """All samples of one operator in one folder, one HDF5 segment per :meth:`append`.

    Parameters
    ----------
    folder : Path
        The run's ``samples`` folder; made if missing. One process appends, any may read.
    operator : str
        Name of the operator, the first part of the file names.
    signature : Signature
        Its columns: names and units are written into every segment, and names are compared when one is read.
    """

    def __init__(self, folder: Path, operator: str, signature: Signature) -> None:
        self._folder = folder
        self._operator = operator
        self._signature = signature
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, batch: SampleBatch) -> Path:
        """Write a batch as a new segment; readers see all of it or nothing.

        Parameters
        ----------
        batch : SampleBatch
            At least one sample; call it once per training round, so that files stay few and large.

        Returns
        -------
        Path
            The segment.

        Collective: no; one process of the run calls it.
        """
        assert len(batch) > 0, "an empty segment would say nothing"
        number = max(self._segments(), default=0) + 1
        path = self._path(number)
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            for name in _COLUMNS:
                # The checksum finds what a disk lost; a truncated file HDF5 refuses by itself.
                file.create_dataset(name, data=getattr(batch, name), chunks=True, fletcher32=True)
            file.attrs["operator"] = self._operator
            for name, columns in self._columns().items():
                file[name].attrs["names"] = [column.name for column in columns]
                file[name].attrs["units"] = [column.unit for column in columns]
        return path

    def read(self, *, newest: int, until: int | None = None) -> SampleBatch:
        """Read the newest samples, in an order that does not depend on how they came.

        Parameters
        ----------
        newest : int
            Most samples to read. Of the oldest step that fits in part only, elements are drawn by hash, so that
            no region of the mesh is preferred.
        until : int, optional
            Last time step that counts: a resumed run must not learn from its own future.

        Returns
        -------
        SampleBatch
            Sorted by (step, call, id), each element once.

        Raises
        ------
        CouplerError
            If there is no segment, or one is truncated, damaged or of another operator; the sentence names the file.

        Collective: no.
        """
        segments: list[SampleBatch] = []
        for number in sorted(self._segments(), reverse=True):
            segment = self._read_segment(self._path(number))
            segments.append(segment if until is None else segment.take(segment.step <= until))
            # A resumed run writes elements again that it had written before it was killed.
            segments = [_sorted_once(SampleBatch.join(segments))]
            if len(segments[0]) >= newest:
                break
        if not segments:
            raise CouplerError(
                f'There are no samples of "{self._operator}" in {self._folder}, so nothing can be learned: '
                "check learning.mode and learning.renewal, or the path."
            )
        return _newest(segments[0], newest)

    def _columns(self) -> dict[str, tuple[Field, ...]]:
        return {"inputs": self._signature.inputs, "truth": self._signature.outputs}

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._operator}-{number:05d}.h5"

    def _segments(self) -> list[int]:
        pattern = re.compile(rf"{re.escape(self._operator)}-(\d{{5,}})\.h5")
        matches = (pattern.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(match.group(1)) for match in matches if match]

    def _read_segment(self, path: Path) -> SampleBatch:
        try:
            with h5py.File(path, "r") as file:
                for name, columns in self._columns().items():
                    _check_columns(path, name, [str(item) for item in file[name].attrs["names"]], columns)
                return SampleBatch(**{name: file[name][...] for name in _COLUMNS})
        except (OSError, KeyError, AttributeError) as error:
            raise CouplerError(
                f"The samples {path} cannot be read ({error}): the file is truncated, damaged or was not written by "
                "coupler, and training without it would silently be another training. Restore it, or delete it to go "
                "on without its samples."
            ) from error


def _check_columns(path: Path, kind: str, names: list[str], columns: tuple[Field, ...]) -> None:
    expected = [column.name for column in columns]
    if names != expected:
        raise FieldMismatch(
            f"The samples {path} hold {kind} {', '.join(names)}, but the operator has {', '.join(expected)}: they "
            "belong to another operator. Give the run a folder of its own."
        )


def _sorted_once(batch: SampleBatch) -> SampleBatch:
    order = np.lexsort((batch.ids, batch.call, batch.step))
    keys = np.stack([batch.step, batch.call, batch.ids])[:, order]
    first = np.ones(len(batch), dtype=np.bool_)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return batch.take(order[first])


def _newest(batch: SampleBatch, count: int) -> SampleBatch:
    if len(batch) <= count:
        return batch
    draws = element_draws(batch.step, batch.call, batch.ids, purpose=_THINNING)
    chosen = np.lexsort((draws, batch.step))[len(batch) - count :]
    return batch.take(np.sort(chosen))
