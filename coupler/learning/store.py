"""The samples of a run on disk: few large segments, each complete or absent."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from coupler.atomic import replacing
from coupler.errors import CouplerError, FieldMismatch
from coupler.field import Field
from coupler.learning.samples import COLUMNS, SampleBatch
from coupler.operator import Signature

_BEGAN = "began_until"
# A segment may go while it is read, once per compaction; there are minutes between two.
_MOST_LOOKS = 5


@dataclass(frozen=True)
class History:
    """All samples on disk.

    Parameters
    ----------
    samples : SampleBatch
        In the order of (step, call, id), each element once.
    began_until : int
        Last step of the first segment ever written: up to there are the first samples of the run.
    segments : tuple of int
        Numbers of the segments they were read from.
    """

    samples: SampleBatch
    began_until: int
    segments: tuple[int, ...]


@dataclass(frozen=True)
class _Segment:
    samples: SampleBatch
    began_until: int


class SampleStore:
    """All samples of one operator in one folder, one HDF5 segment per :meth:`append`.

    Parameters
    ----------
    folder : Path
        The run's ``samples`` folder; made if missing. One process appends, one compacts, any may read, all at once.
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

    @property
    def empty(self) -> bool:
        """Whether nothing was ever appended."""
        return not self._segments()

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
        self._write(number, _Segment(batch, int(batch.step.max())))
        return self._path(number)

    def read(self) -> History:
        """Read all samples, in an order that does not depend on how they came.

        Returns
        -------
        History

        Raises
        ------
        CouplerError
            If there is no segment, or one is truncated, damaged or of another operator; the sentence names the file.

        Collective: no.
        """
        for looks_left in reversed(range(_MOST_LOOKS)):
            numbers = sorted(self._segments())
            if not numbers:
                break
            try:
                segments = [self._read_segment(self._path(number)) for number in numbers]
            except CouplerError:
                # A compaction may have put a segment's samples elsewhere since it was listed.
                if looks_left and not set(numbers) <= set(self._segments()):
                    continue
                raise
            # A resumed run writes elements again that it had written before it was killed.
            samples = SampleBatch.join([segment.samples for segment in segments]).sorted_once()
            return History(samples, segments[0].began_until, tuple(numbers))
        raise CouplerError(
            f'There are no samples of "{self._operator}" in {self._folder}, so nothing can be learned: '
            "check learning.mode and learning.renewal, or the path."
        )

    def compact(self, history: History, kept: SampleBatch) -> None:
        """Put what is still needed of some segments into the last of them, and delete the others.

        Killed in between, it leaves the old segments beside the new one: whoever reads both sees each element once,
        and the next compaction clears up. A segment appended since the history was read stays as it is.

        Parameters
        ----------
        history : History
            What :meth:`read` gave.
        kept : SampleBatch
            Its samples that stay; at least one.

        Collective: no; one process of the run calls it.
        """
        assert len(kept) > 0, "an empty segment would say nothing"
        *others, last = history.segments
        if not others and len(kept) == len(history.samples):
            return
        self._write(last, _Segment(kept, history.began_until))
        # The newest first: the oldest says where the run began, as long as there is another one.
        for number in reversed(others):
            self._path(number).unlink(missing_ok=True)
        # Nobody but a compaction that was killed can have left a half of these; whoever appends is beyond them.
        for number in self._numbers(r"\.{}\.part"):
            if number <= last:
                (self._folder / f".{self._path(number).name}.part").unlink(missing_ok=True)

    def rewind(self, step: int, *, stored: bool) -> None:
        """Forget the samples after a step: a run that goes on from there must not know its own future.

        Parameters
        ----------
        step : int
            Last step whose samples stay.
        stored : bool
            Whether anything had been stored by then; if not, all of it is of later.

        Raises
        ------
        CouplerError
            If a segment cannot be read.

        Collective: no; one process of the run calls it, while no training is under way.
        """
        for number in sorted(self._segments(), reverse=True):
            segment = self._read_segment(self._path(number)) if stored else None
            kept = None if segment is None else segment.samples.take(segment.samples.step <= step)
            if segment is None or kept is None or not len(kept):
                self._path(number).unlink()
            elif len(kept) < len(segment.samples):
                self._write(number, _Segment(kept, segment.began_until))

    def _columns(self) -> dict[str, tuple[Field, ...]]:
        # Of a tile its fields: the names of thousands of cells have no room in an attribute.
        return {"inputs": self._signature.input_fields, "truth": self._signature.output_fields}

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._operator}-{number:05d}.h5"

    def _segments(self) -> list[int]:
        return self._numbers("{}")

    def _numbers(self, form: str) -> list[int]:
        pattern = re.compile(form.format(rf"{re.escape(self._operator)}-(\d{{5,}})\.h5"))
        matches = (pattern.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(match.group(1)) for match in matches if match]

    def _write(self, number: int, segment: _Segment) -> None:
        # Into memory first: HDF5 itself ends the process when a disk is full.
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            for name in COLUMNS:
                # The checksum finds what a disk lost; a truncated file HDF5 refuses by itself.
                file.create_dataset(name, data=getattr(segment.samples, name), chunks=True, fletcher32=True)
            file.attrs["operator"] = self._operator
            file.attrs[_BEGAN] = segment.began_until
            for name, columns in self._columns().items():
                file[name].attrs["names"] = [column.name for column in columns]
                file[name].attrs["units"] = [column.unit for column in columns]
        with replacing(self._path(number)) as temporary:
            temporary.write_bytes(image.getbuffer())

    def _read_segment(self, path: Path) -> _Segment:
        try:
            with h5py.File(path, "r") as file:
                for name, columns in self._columns().items():
                    _check_columns(path, name, [str(item) for item in file[name].attrs["names"]], columns)
                samples = SampleBatch(**{name: file[name][...] for name in COLUMNS})
                # Segments from before there were compactions do not say it: each began where it ends.
                return _Segment(samples, int(file.attrs.get(_BEGAN, np.max(samples.step, initial=0))))
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
