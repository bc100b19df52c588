"""Reading a tape: all calls of one operator of a run, one by one, by name or as samples."""

import operator as comparison
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.errors import CouplerError, FieldMismatch
from coupler.learning.samples import SampleBatch
from coupler.operator import Signature
from coupler.tape.call import TapeCall
from coupler.tape.draw import draw_samples
from coupler.tape.folder import TapeFolder
from coupler.tape.head import TapeHead
from coupler.tape.segment import Segment
from coupler.tape.tree import tree


class Tape:
    """The recorded truth of one operator, a sequence of :class:`TapeCall` in order of step and call.

    Only the index is held in memory; rows are read when they are asked for::

        tape = Tape("runs/bz-001", "reaction")
        for call in tape:
            error = tape.signature.error(answer(call.inputs, call.dt), call.truth)

    Parameters
    ----------
    path : Path or str
        The run folder, or the folder ``tape`` in it. The run may be going on: what it has written is read.
    operator : str, optional
        Name of the operator; may be left out where there is one only.

    Raises
    ------
    CouplerError
        If there is no such tape, or a segment is missing, truncated, damaged or of another operator; the sentence
        names the file.

    Collective: no.
    """

    def __init__(self, path: Path | str, operator: str | None = None) -> None:
        folder = TapeFolder(Path(path))
        self.folder = folder.path
        self.operator = folder.only() if operator is None else operator
        self._segments = [Segment.at(file) for file in folder.segments(self.operator)]
        self.head: TapeHead = self._segments[0].head
        for segment in self._segments:
            _check_head(segment, self.operator, self.head)
        self._index = _index(self._segments)

    @property
    def signature(self) -> Signature:
        """Names, units, bounds, tolerances and conserved sums of the operator."""
        return self.head.signature

    @property
    def steps(self) -> NDArray[np.int64]:
        """The time steps that have a call on the tape, ascending."""
        return np.unique(self._index.step)

    @property
    def dt(self) -> NDArray[np.float64]:
        """The time steps that calls were made with, each once, ascending."""
        return np.unique(self._index.dt)

    @property
    def elements(self) -> int:
        """Elements of all calls."""
        return int(self._index.rows.sum())

    @property
    def files(self) -> list[Path]:
        """The segments."""
        return [segment.path for segment in self._segments]

    def __len__(self) -> int:
        return len(self._index.step)

    def __iter__(self) -> Iterator[TapeCall]:
        return self.calls()

    def __getitem__(self, position: int) -> TapeCall:
        return next(self._read(np.array([range(len(self))[comparison.index(position)]])))

    def at(self, step: int, call: int | None = None) -> TapeCall:
        """Read one call.

        Parameters
        ----------
        step : int
            Time step; the first is 1.
        call : int, optional
            Number of the call within the step, over all operators; the operator's first if left out.

        Raises
        ------
        CouplerError
            If the tape has no such call.

        Collective: no.
        """
        found = np.flatnonzero((self._index.step == step) & (call is None or self._index.call == call))
        if len(found) == 0:
            wanted = f"step {step}" if call is None else f"call {call} of step {step}"
            held = f"steps {self.steps[0]} to {self.steps[-1]}" if len(self) else "no call at all"
            raise CouplerError(
                f'The tape of "{self.operator}" in {self.folder} has no {wanted}: it holds {held}, every '
                f"{self.head.every}. step. tape.steps lists them."
            )
        return self[int(found[0])]

    def calls(self, *, since: int = 0, until: int | None = None) -> Iterator[TapeCall]:
        """Read the calls of some steps, one by one.

        Parameters
        ----------
        since, until : int
            First and last time step that count; all, if left out.

        Collective: no.
        """
        step = self._index.step
        return self._read(np.flatnonzero((step >= since) & (until is None or step <= until)))

    def columns(self, *, since: int = 0, until: int | None = None) -> dict[str, NDArray[np.generic]]:
        """Give calls as columns of equal length, in memory: ``pandas.DataFrame(tape.columns())`` is a table.

        Parameters
        ----------
        since, until : int
            First and last time step that count; all, if left out.

        Returns
        -------
        dict
            ``step``, ``call``, ``id``, ``dt``, then ``inputs.NAME`` and ``truth.NAME`` in the operator's order.

        Collective: no.
        """
        batch = self.samples(since=since, until=until)
        columns: dict[str, NDArray[np.generic]] = {
            "step": batch.step,
            "call": batch.call,
            "id": batch.ids,
            "dt": batch.dt,
        }
        for kind, names, values in (
            ("inputs", self.signature.input_names, batch.inputs),
            ("truth", self.signature.output_names, batch.truth),
        ):
            columns |= {f"{kind}.{name}": values[:, number] for number, name in enumerate(names)}
        return columns

    def samples(self, *, since: int = 0, until: int | None = None, most: int | None = None) -> SampleBatch:
        """Give samples to learn from: all elements of some steps, or so many of them drawn by hash.

        Parameters
        ----------
        since, until : int
            First and last time step that count; all, if left out.
        most : int, optional
            Most samples; more are thinned by a hash of (step, call, id), everywhere alike. All, if left out.

        Returns
        -------
        SampleBatch
            Sorted by (step, call, id); ``SampleStore.append`` takes it. ``reason`` is ``PHYSICS`` throughout.

        Collective: no.
        """
        assert most is None or most >= 0, most
        return draw_samples(self.calls(since=since, until=until), self.signature, most)

    def __repr__(self) -> str:
        calls = np.unique(self._index.step, return_counts=True)[1] if len(self) else np.zeros(1, np.int64)
        return tree(
            self.head,
            folder=self.folder,
            steps=self.steps,
            calls=(int(calls.min()), int(calls.max())),
            elements=self.elements,
            dt=self.dt,
            file_bytes=[file.stat().st_size for file in self.files],
        )

    def _read(self, positions: NDArray[np.intp]) -> Iterator[TapeCall]:
        """Read calls by position, opening each segment once."""
        numbers, places = self._index.segment[positions], self._index.place[positions]
        for number in np.unique(numbers):
            yield from self._segments[number].calls(places[numbers == number].tolist())


@dataclass(frozen=True, eq=False)
class _Index:
    """Every call: its names, its length, and where it is."""

    step: NDArray[np.int64]
    call: NDArray[np.int64]
    dt: NDArray[np.float64]
    rows: NDArray[np.int64]
    segment: NDArray[np.intp]
    place: NDArray[np.intp]


def _index(segments: Sequence[Segment]) -> _Index:
    """Put the indices of all segments together.

    A resumed run writes again what it had written after its checkpoint: from the first call of a segment on, those of
    the segments before are superseded.
    """
    lengths = [len(segment.step) for segment in segments]
    step, call, dt = (
        np.concatenate([getattr(segment, name) for segment in segments]) for name in ("step", "call", "dt")
    )
    kept = np.ones(len(step), np.bool_)
    for first in np.cumsum(lengths)[:-1]:
        if first < len(step):
            before = slice(0, first)
            kept[before] &= (step[before] < step[first]) | (
                (step[before] == step[first]) & (call[before] < call[first])
            )
    return _Index(
        step=step[kept],
        call=call[kept],
        dt=dt[kept],
        rows=np.concatenate([np.diff(segment.offset) for segment in segments])[kept],
        segment=np.repeat(np.arange(len(segments)), lengths)[kept],
        place=np.concatenate([np.arange(length) for length in lengths])[kept],
    )


def _check_head(segment: Segment, operator: str, head: TapeHead) -> None:
    if segment.head.operator != operator:
        raise CouplerError(
            f'The tape {segment.path} says that it is of the operator "{segment.head.operator}", not of "{operator}": '
            "it was renamed or copied here. Move it away, or read it under its own name."
        )
    if segment.head.signature != head.signature:
        raise FieldMismatch(
            f"The tape {segment.path} has other columns, units or tolerances than the segments before it: it comes "
            "from another run. Give every run a folder of its own."
        )
