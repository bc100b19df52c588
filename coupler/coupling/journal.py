"""The journal: what the ranks write down while they run, the ledger together and the metrics on rank 0."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.controller import AuditedSums
from coupler.coupling.nodes import Nodes, on_first
from coupler.coupling.route import CallRecord
from coupler.grid import wait
from coupler.ledger import RECORD, LedgerFile
from coupler.progress import MetricsFile, Progress
from coupler.records import Event
from coupler.runfolder import RunFolder

# Steps between two gatherings of the ranks' records: collective, so it must follow from the step.
_GATHER_STEPS = 100
# Rank 0 writes metrics at most this often [s]: many lines at once cost little, and between steps every line a lot.
_NOTE_SECONDS = 0.25
# Opening the ledger takes a millisecond; rank 0 does it at most this often [s].
_WRITE_SECONDS = 1.0


class Journal:
    """Ledger records of this rank, gathered to rank 0 every now and then; one line of metrics per step.

    Both files can be read at every moment, and what they hold is whole; metrics are at most half a second old
    when a step ends, the ledger as old as its last gathering.

    Parameters
    ----------
    folder : RunFolder
        Where the files go.
    nodes : Nodes
        The ranks.
    operators : sequence of str
        Operator names.

    Collective: yes.
    """

    def __init__(self, folder: RunFolder, nodes: Nodes, operators: Sequence[str]) -> None:
        self._comm = nodes.job
        self._calls: list[tuple[int, CallRecord]] = []
        self._gathering: _Gathering | None = None
        self._gathered: list[NDArray[np.void]] = []
        self._steps: list[Callable[[], Progress]] = []
        self._events: list[Event] = []
        self._noted = self._written = time.monotonic()
        self._ledger: LedgerFile | None = None
        self._metrics: MetricsFile | None = None

        def create() -> None:
            self._ledger = LedgerFile(folder.ledger, operators)
            self._metrics = MetricsFile(folder.metrics)

        on_first(nodes.job, create)

    def record(self, operator: int, call: CallRecord) -> None:
        """Take one call of this rank. Collective: no."""
        self._calls.append((operator, call))

    def tell(self, event: Event) -> None:
        """Take an event, on every rank alike. Collective: no."""
        if self._ledger is not None:
            self._events.append(event)

    def note(self, progress: Callable[[], Progress]) -> None:
        """Note the progress of a step.

        Parameters
        ----------
        progress : callable
            Gives it; called on rank 0 only, now or up to a quarter of a second later.

        Collective: no.
        """
        if self._metrics is not None:
            self._steps.append(progress)
            if time.monotonic() - self._noted >= _NOTE_SECONDS:
                self._note()

    def step(self, step: int) -> None:
        """See to the ledger.

        Parameters
        ----------
        step : int
            Which one; every rank calls this with every step.

        Collective: yes, non-blocking: every hundredth step starts to gather records, the next two go on with that.
        """
        if self._gathering is not None:
            self._advance()
        elif step % _GATHER_STEPS == 0:
            self._gathering = _Gathering(self._comm, self._take_rows())

    def flush(self) -> None:
        """Write all records of all ranks. Collective: yes."""
        self._complete()
        self._gathering = _Gathering(self._comm, self._take_rows())
        self._complete()
        self._write()
        self._note()

    def close(self) -> None:
        """Close the metrics; records that were not flushed are not written. Collective: no."""
        if self._metrics is not None:
            self._note()
            self._metrics.close()

    def _take_rows(self) -> NDArray[np.void]:
        calls, self._calls = self._calls, []
        return _rows(calls, self._comm.rank)

    def _complete(self) -> None:
        while self._gathering is not None:
            self._advance()

    def _advance(self) -> None:
        assert self._gathering is not None
        rows = self._gathering.advance()
        if rows is None:
            return
        self._gathering = None
        self._gathered.append(rows)
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def _note(self) -> None:
        if self._metrics is not None and self._steps:
            self._metrics.extend([progress() for progress in self._steps])
        self._steps.clear()
        self._noted = time.monotonic()

    def _write(self) -> None:
        if self._ledger is not None and self._gathered:
            self._ledger.append(np.concatenate(self._gathered))
        self._gathered.clear()
        self._written = time.monotonic()


class _Gathering:
    """Records on their way to rank 0, in two collectives: how many each rank has, then the records.

    Whoever goes on with it a step later finds each complete, unless a rank is a whole step behind.
    """

    def __init__(self, comm: MPI.Intracomm, mine: NDArray[np.void]) -> None:
        self._comm, self._mine = comm, mine
        self._length = np.array([mine.nbytes], np.int64)
        self._lengths = np.zeros(comm.size, np.int64)
        self._everyone: NDArray[np.uint8] | None = None
        self._request = comm.Igather(self._length, self._lengths)

    def advance(self) -> NDArray[np.void] | None:
        """Complete what is under way; give the records of all ranks on rank 0, and none elsewhere, when it was all."""
        wait([self._request])
        if self._everyone is not None:
            return self._everyone.view(RECORD)
        self._everyone = np.empty(int(self._lengths.sum()) if self._comm.rank == 0 else 0, np.uint8)
        arriving = (self._everyone, self._lengths) if self._comm.rank == 0 else None
        self._request = self._comm.Igatherv(self._mine.view(np.uint8), arriving)
        return None


def _rows(calls: Sequence[tuple[int, CallRecord]], rank: int) -> NDArray[np.void]:
    """Give records as the ledger has them."""
    rows = np.zeros(len(calls), RECORD)
    rows["operator"], rows["rank"] = [operator for operator, _ in calls], rank
    for name in _SAME:
        rows[name] = [getattr(call, name) for _, call in calls]
    if calls:
        rows["reasons"] = [call.reasons for _, call in calls]
        sums = [AuditedSums.of(call.audit_rate, call.sums) for _, call in calls]
        for name, attribute in _SUMS.items():
            rows[name] = [getattr(one, attribute) for one in sums]
    return rows


# Columns that are called as in a call's record, and those that are called otherwise in its sums.
_SAME = (
    "step",
    "call",
    "threshold",
    "audit_rate",
    "version",
    "truth_seconds",
    "wait_seconds",
    "model_seconds",
    "hidden_seconds",
)
_SUMS = {"audits": "audits", "acceptable": "accepted", "loss": "loss", "exceedances": "exceedances"}
