"""The recorder: every rank's operator calls with their truth, gathered to rank 0 and put on tape there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.case import Case
from coupler.coupling.nodes import Nodes, on_first
from coupler.coupling.reduction import StepReduction
from coupler.coupling.uniqueness import NUMBER_GLOBALLY, shared_id
from coupler.errors import FieldMismatch
from coupler.grid import wait
from coupler.learning.draws import element_draws
from coupler.operator import Operator, Signature
from coupler.runfolder import RunFolder
from coupler.tape import SEGMENT_BYTES, TapeCall, TapeHead, TapeWriter

GATHER_BYTES = 64 * 2**20
"""Rows of all ranks together that are gathered at once: from so many on, at the end of the next step."""

Scalar = TypeVar("Scalar", bound=np.generic)
_RECORDED = 0x7A9D
_CALL = np.dtype([("step", np.int64), ("call", np.int64), ("dt", np.float64), ("rows", np.int64)])


class TapeRecorder:
    """Takes the calls of this rank and sees to it that rank 0 writes all of them.

    Whether records are gathered follows from a sum that every rank knows, so all do it at the same step; ranks wait
    for each other then, and at no other time. Each rank holds at most ``GATHER_BYTES`` and its rows of two recorded
    steps, twice while they travel; rank 0 holds as much of all ranks, and segments of ``SEGMENT_BYTES`` twice.

    Parameters
    ----------
    folder : RunFolder
        Where the tapes go; made below it.
    nodes : Nodes
        The ranks.
    operators : mapping of name to Operator
        Whose calls; one tape each.
    case : Case
        ``output`` says what is recorded.
    gather_bytes, segment_bytes : int
        Bounds of what is held in memory: rows of all ranks before they are gathered, calls before they are written.

    Collective: yes.
    """

    def __init__(
        self,
        folder: RunFolder,
        nodes: Nodes,
        operators: Mapping[str, Operator],
        case: Case,
        *,
        gather_bytes: int = GATHER_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._comm, self._every, self._gather_bytes = nodes.job, case.output.tape_every, gather_bytes
        self._choice = _Choice(case.output.tape_share)
        self._pending = [_Pending(operator.signature) for operator in operators.values()]
        self._reduction = StepReduction(nodes.job, 1)
        self._orders = [_Order() for _ in operators]

        def create() -> list[TapeWriter]:
            folder.tape.mkdir(exist_ok=True)
            heads = [
                TapeHead(name, operator.signature, case.controller.mode, self._every, case.output.tape_share)
                for name, operator in operators.items()
            ]
            # All operators' segments together fit the bound, however many there are.
            return [TapeWriter(folder.tape, head, segment_bytes=segment_bytes // len(heads)) for head in heads]

        self._writers = on_first(nodes.job, create)

    def record(self, operator: int, call: TapeCall) -> None:
        """Take one call of this rank; its arrays are copied. Collective: no."""
        if call.step % self._every == 0:
            self._pending[operator].add(call, self._choice.of(call.ids))

    def end_step(self) -> None:
        """Use the sum of the step before; gather what there is if it is enough.

        Raises
        ------
        CouplerError
            On rank 0 alone, if a segment cannot be written or the ranks' calls do not fit together.

        Collective: yes; blocking at steps where rows are gathered.
        """
        total = self._reduction.finish()
        if total is not None and int(total[0]) >= self._gather_bytes:
            self._gather()
        self._reduction.start(np.array([sum(pending.nbytes for pending in self._pending)], np.int64))

    def save(self) -> None:
        """Put everything that was recorded on disk, so that a run can go on from here. Collective: yes."""
        self._reduction.finish()
        self._gather()
        for writer in self._writers if self._comm.rank == 0 else ():
            writer.save()

    def flush(self) -> None:
        """Put everything that was recorded on disk, and end the segments. Collective: yes."""
        self._reduction.finish()
        self._gather()
        for writer in self._writers:
            writer.flush()

    def finish(self) -> None:
        """Write the rest of all tapes. Collective: yes."""
        self.flush()
        for writer in self._writers if self._comm.rank == 0 else ():
            writer.close()

    def _gather(self) -> None:
        for pending, order, writer in zip(self._pending, self._orders, self._writers, strict=True):
            for call in _gathered_calls(self._comm, pending):
                writer.add(order.sorted(call))


class _Choice:
    """Which elements are recorded: those whose hash is below the share, the same in every step of every run."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty(0, np.intp)

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.intp] | slice:
        """Give the rows of those among these."""
        if self._share == 1.0:
            return slice(None)
        # Most ranks ask about the same elements again and again; comparing is cheaper than hashing.
        if not np.array_equal(ids, self._ids):
            nothing = np.zeros(len(ids), np.int64)
            self._ids = ids.copy()
            self._rows = np.flatnonzero(element_draws(nothing, nothing, ids, purpose=_RECORDED) < self._share)
        return self._rows


class _Rows(NamedTuple):
    """Elements of many calls, one call after another."""

    ids: NDArray[np.int64]
    inputs: NDArray[np.float64]
    truth: NDArray[np.float64]


class _Pending:
    """Calls of this rank for one operator that have not been gathered."""

    def __init__(self, signature: Signature) -> None:
        self._nothing = _Rows(
            np.empty(0, np.int64), np.empty((0, len(signature.inputs))), np.empty((0, len(signature.outputs)))
        )
        self._calls: list[TapeCall] = []
        self.nbytes = 0

    def add(self, call: TapeCall, chosen: NDArray[np.intp] | slice) -> None:
        ids, inputs, truth = call.ids[chosen], call.inputs[chosen], call.truth[chosen]
        if isinstance(chosen, slice):  # which copies nothing
            ids, inputs, truth = ids.copy(), inputs.copy(), truth.copy()
        self._calls.append(TapeCall(call.step, call.call, call.dt, ids, inputs, truth))
        self.nbytes += self._calls[-1].nbytes

    def take(self) -> list[TapeCall]:
        """Give the calls, and begin anew."""
        calls, self._calls, self.nbytes = self._calls, [], 0
        return calls

    def rows_of(self, calls: Sequence[TapeCall]) -> _Rows:
        """Put the rows of calls together."""
        return _Rows(
            np.concatenate([self._nothing.ids, *(call.ids for call in calls)]),
            np.concatenate([self._nothing.inputs, *(call.inputs for call in calls)]),
            np.concatenate([self._nothing.truth, *(call.truth for call in calls)]),
        )


class _Order:
    """The order of a call's elements by id, kept for the next call, which mostly has the same."""

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._order: NDArray[np.intp] | None = None  # none is needed

    def sorted(self, call: TapeCall) -> TapeCall:
        """Give a call with its rows in order of their ids."""
        if not np.array_equal(call.ids, self._ids):
            order = np.argsort(call.ids, kind="stable")
            _check_unique(call.ids[order])
            self._ids, self._order = call.ids, order if (np.diff(order) < 0).any() else None
        if self._order is None:
            return call
        rows = self._order
        return replace(call, ids=call.ids[rows], inputs=call.inputs[rows], truth=call.truth[rows])


def _check_unique(ids: NDArray[np.int64]) -> None:
    twice = shared_id(ids)
    if twice is not None:
        raise FieldMismatch(
            f"The id {twice} was given to several elements of one call, and on a tape nobody could tell them apart. "
            f"Ids must be unique over all ranks: {NUMBER_GLOBALLY}"
        )


def _gathered_calls(comm: MPI.Intracomm, pending: _Pending) -> Iterator[TapeCall]:
    """Give the calls of all ranks in order of step and call, on rank 0, and none elsewhere. Collective: yes."""
    mine = pending.take()
    if comm.size == 1:
        return iter(mine)
    heads = np.array([(call.step, call.call, call.dt, len(call)) for call in mine], _CALL)
    ids, inputs, truth = pending.rows_of(mine)
    del mine
    heads = _gathered(comm, heads)
    rows = _Rows(_gathered(comm, ids), _gathered(comm, inputs), _gathered(comm, truth))
    return _merged(heads, rows)


def _gathered(comm: MPI.Intracomm, mine: NDArray[Scalar]) -> NDArray[Scalar]:
    """Give the rows of all ranks, one rank after the other, on rank 0, and none elsewhere. Collective: yes."""
    lengths = np.zeros(comm.size, np.int64)
    wait([comm.Igather(np.array([len(mine)], np.int64), lengths)])
    everyone = np.empty((int(lengths.sum()) if comm.rank == 0 else 0, *mine.shape[1:]), mine.dtype)
    # In units of rows: bytes would be too many for MPI's 32-bit counts from 2 GiB on.
    row = MPI.BYTE.Create_contiguous(mine.dtype.itemsize * math.prod(mine.shape[1:])).Commit()
    arriving = [everyone.view(np.uint8), lengths, row] if comm.rank == 0 else None
    wait([comm.Igatherv([mine.view(np.uint8), len(mine), row], arriving)])
    row.Free()
    return everyone


def _merged(heads: NDArray[np.void], rows: _Rows) -> Iterator[TapeCall]:
    """Put together what the ranks have of each call."""
    stops = np.cumsum(heads["rows"])
    starts = stops - heads["rows"]
    by_name = np.lexsort((heads["call"], heads["step"]))
    names = np.stack([heads["step"], heads["call"]])[:, by_name]
    changes = np.flatnonzero((names[:, 1:] != names[:, :-1]).any(axis=0)) + 1
    for part in np.split(by_name, changes) if len(by_name) else ():
        places = [slice(starts[i], stops[i]) for i in part]
        yield TapeCall(
            step=int(heads["step"][part[0]]),
            call=int(heads["call"][part[0]]),
            dt=_common_dt(heads[part]),
            ids=np.concatenate([rows.ids[place] for place in places]),
            inputs=np.concatenate([rows.inputs[place] for place in places]),
            truth=np.concatenate([rows.truth[place] for place in places]),
        )


def _common_dt(heads: NDArray[np.void]) -> float:
    """Give the time step of all ranks that have elements in a call; of the first, if none has any."""
    used = np.unique(heads["dt"][heads["rows"] > 0])
    if len(used) > 1:
        raise FieldMismatch(
            f"step {heads['step'][0]}: ranks called evaluate with dt = {used[0]} and dt = {used[-1]} in the same call, "
            "and a tape keeps one dt per call. Make calls with different dt one after the other on every rank, with no "
            "elements where a rank has none, or set output.tape = false."
        )
    return float(used[0] if len(used) else heads["dt"][0])
