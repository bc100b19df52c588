"""The recorder: every rank's operator calls with their truth, gathered to rank 0 and put on tape there."""

from collections.abc import Iterator, Mapping

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.config import Case
from coupler.coupling.nodes import Nodes, on_first
from coupler.coupling.reduction import StepReduction
from coupler.errors import FieldMismatch
from coupler.grid import wait
from coupler.learning.draws import element_draws
from coupler.operator import Operator, Signature
from coupler.runfolder import RunFolder
from coupler.tape import SEGMENT_BYTES, TapeCall, TapeHead, TapeWriter

GATHER_BYTES = 64 * 2**20
"""Rows of all ranks together that are gathered at once: from so many on, at the end of the next step."""

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
        self._writers: list[TapeWriter] = []

        def create() -> None:
            folder.tape.mkdir(exist_ok=True)
            for name, operator in operators.items():
                head = TapeHead(name, operator.signature, case.controller.mode, self._every, case.output.tape_share)
                # All operators' segments together fit the bound, however many there are.
                size = segment_bytes // len(operators)
                self._writers.append(TapeWriter(folder.tape, head, segment_bytes=size))

        on_first(nodes.job, create)
        self._orders = [_Order() for _ in self._writers]

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

    def flush(self) -> None:
        """Put everything that was recorded on disk, so that a run can go on from here. Collective: yes."""
        self._reduction.finish()
        self._gather()
        for writer in self._writers:
            writer.flush()

    def finish(self) -> None:
        """Write the rest of all tapes. Collective: yes."""
        self.flush()
        for writer in self._writers:
            writer.close()

    def _gather(self) -> None:
        for number, pending in enumerate(self._pending):
            calls, rows = pending.take()
            everyone_s_calls, everyone_s_rows = _gathered(self._comm, calls), _gathered(self._comm, rows)
            if self._comm.rank == 0:
                for call in _merged(everyone_s_calls, everyone_s_rows, self._orders[number]):
                    self._writers[number].add(call)


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


class _Pending:
    """Calls of this rank for one operator that have not been gathered."""

    def __init__(self, signature: Signature) -> None:
        self._row = np.dtype(
            [
                ("id", np.int64),
                ("inputs", np.float64, (len(signature.inputs),)),
                ("truth", np.float64, (len(signature.outputs),)),
            ]
        )
        self._calls: list[tuple[int, int, float, int]] = []
        self._rows: list[NDArray[np.void]] = []
        self.nbytes = 0

    def add(self, call: TapeCall, chosen: NDArray[np.intp] | slice) -> None:
        ids = call.ids[chosen]
        rows = np.empty(len(ids), self._row)
        rows["id"], rows["inputs"], rows["truth"] = ids, call.inputs[chosen], call.truth[chosen]
        self._calls.append((call.step, call.call, call.dt, len(ids)))
        self._rows.append(rows)
        self.nbytes += rows.nbytes + _CALL.itemsize

    def take(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Give the calls and the rows of all of them, and begin anew."""
        calls, rows = np.array(self._calls, _CALL), np.concatenate([np.empty(0, self._row), *self._rows])
        self._calls, self._rows, self.nbytes = [], [], 0
        return calls, rows


class _Order:
    """The order of a call's elements by id, kept for the next call, which mostly has the same."""

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._order = np.empty(0, np.intp)

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Give the rows in order of their ids."""
        if not np.array_equal(ids, self._ids):
            self._ids, self._order = ids, np.argsort(ids, kind="stable")
            _check_unique(ids[self._order])
        return self._order


def _check_unique(ids: NDArray[np.int64]) -> None:
    twice = ids[:-1][ids[1:] == ids[:-1]]
    if len(twice):
        raise FieldMismatch(
            f"The id {twice[0]} was given to several elements of one call, and on a tape nobody could tell them apart. "
            "Ids must be unique over all ranks: number the elements globally, for example "
            "comm.rank * n + numpy.arange(n)."
        )


def _gathered(comm: MPI.Intracomm, mine: NDArray[np.void]) -> NDArray[np.void]:
    """Give the records of all ranks, one rank after the other, on rank 0, and none elsewhere. Collective: yes."""
    if comm.size == 1:
        return mine
    lengths = np.zeros(comm.size, np.int64)
    wait([comm.Igather(np.array([len(mine)], np.int64), lengths)])
    everyone = np.empty(int(lengths.sum()) if comm.rank == 0 else 0, mine.dtype)
    # In units of records: bytes would be too many for MPI's 32-bit counts from 2 GiB on.
    record = MPI.BYTE.Create_contiguous(mine.dtype.itemsize).Commit()
    arriving = [everyone.view(np.uint8), lengths, record] if comm.rank == 0 else None
    wait([comm.Igatherv([mine.view(np.uint8), len(mine), record], arriving)])
    record.Free()
    return everyone


def _merged(calls: NDArray[np.void], rows: NDArray[np.void], order: _Order) -> Iterator[TapeCall]:
    """Put together what the ranks have of each call, in order of step, call and id."""
    stops = np.cumsum(calls["rows"])
    by_name = np.lexsort((calls["call"], calls["step"]))
    names = np.stack([calls["step"], calls["call"]])[:, by_name]
    changes = np.flatnonzero((names[:, 1:] != names[:, :-1]).any(axis=0)) + 1
    for part in np.split(by_name, changes) if len(by_name) else ():
        parts = [rows[stops[i] - calls["rows"][i] : stops[i]] for i in part]
        together = np.concatenate(parts)
        first = calls[part[0]]
        sorted_rows = together[order.of(np.ascontiguousarray(together["id"]))]
        yield TapeCall(
            step=int(first["step"]),
            call=int(first["call"]),
            dt=_common_dt(calls[part]),
            ids=np.ascontiguousarray(sorted_rows["id"]),
            inputs=np.ascontiguousarray(sorted_rows["inputs"]),
            truth=np.ascontiguousarray(sorted_rows["truth"]),
        )


def _common_dt(calls: NDArray[np.void]) -> float:
    """Give the time step of all ranks that have elements in a call; of the first, if none has any."""
    used = np.unique(calls["dt"][calls["rows"] > 0])
    if len(used) > 1:
        raise FieldMismatch(
            f"step {calls['step'][0]}: ranks called evaluate with dt = {used[0]} and dt = {used[-1]} in the same call, "
            "and a tape keeps one dt per call. Make calls with different dt one after the other on every rank, with no "
            "elements where a rank has none, or set output.tape = false."
        )
    return float(used[0] if len(used) else calls["dt"][0])
