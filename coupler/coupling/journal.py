"""The journal: what the ranks write down while they run, the ledger together and the metrics on rank 0."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.clock import SpanTaker
from coupler.coupling import entries
from coupler.coupling.account import StepTotals
from coupler.coupling.call import Audits, CallRecord
from coupler.coupling.nodes import Nodes, on_first
from coupler.coupling.route import Route
from coupler.grid import wait
from coupler.ledger import AUDIT, RECORD, UNANSWERED, UNANSWERED_IDS, LedgerFile
from coupler.progress import MetricsFile, Progress
from coupler.records import Event
from coupler.runfolder import RunFolder
from coupler.tracking import Teller

# Steps between two gatherings of the ranks' records: collective, so it must follow from the step.
_GATHER_STEPS = 100
# Rank 0 writes metrics at most this often [s]: many lines at once cost little, and between steps every line a lot.
_NOTE_SECONDS = 0.25
# Rank 0 writes the ledger at most this often [s], and less often where writing takes long: every rank waits for it.
_WRITE_SECONDS, _WRITE_SHARE = 1.0, 0.01
# What ranks gather, in this order.
_GATHERED: Mapping[str, np.dtype[np.void]] = {
    "records": RECORD,
    "audits": AUDIT,
    "unanswered": UNANSWERED,
    "unanswered_ids": UNANSWERED_IDS,
}
Table = NDArray[np.void]
# Rows travel in blocks of so many bytes.
_BLOCK_BYTES = 64


@dataclass(frozen=True)
class JournalMemory:
    """Where the files stand.

    Parameters
    ----------
    rows : dict of str to int
        Rows of the ledger by table.
    metrics : int
        Bytes of the metrics.
    groups : int
        Number of the next group of ids, on any rank.
    """

    rows: dict[str, int]
    metrics: int
    groups: int


class Journal:
    """Ledger records of this rank, gathered to rank 0 every now and then; one line of metrics per step.

    Both files can be read at every moment, and what they hold is whole; metrics are at most half a second old
    when a step ends, the ledger about as old as its last gathering.

    Attributes
    ----------
    tellers : sequence of Teller
        Who tell others of steps and events; none except on rank 0.
    spans : SpanTaker or None
        Told of every write, where the run keeps a timeline.

    Parameters
    ----------
    folder : RunFolder
        Where the files go.
    nodes : Nodes
        The ranks.
    operators : sequence of str
        Operator names.
    since : JournalMemory, optional
        Go on with the files that are there, from where they stood; what follows is cut off.

    Collective: yes.
    """

    def __init__(
        self, folder: RunFolder, nodes: Nodes, operators: Sequence[str], since: "JournalMemory | None" = None
    ) -> None:
        self._comm = nodes.job
        self._calls: list[entries.OperatorCall] = []
        self._audits: list[Table] = []
        self._groups = entries.Groups(nodes.job.rank, 0 if since is None else since.groups)
        self._gathering: _Gathering | None = None
        self._gathered: list[Mapping[str, Table]] = []
        self._lines: list[Callable[[], Progress]] = []
        self._steps: list[entries.OperatorStep] = []
        self._events: list[Event] = []
        self._noted = self._written = time.monotonic()
        self._cost = 0.0
        self._ledger: LedgerFile | None = None
        self.tellers: Sequence[Teller] = ()
        self.spans: SpanTaker | None = None
        self._metrics: MetricsFile | None = None

        def create() -> None:
            self._ledger = LedgerFile(folder.ledger, operators, rows=None if since is None else since.rows)
            self._metrics = MetricsFile(folder.metrics, None if since is None else since.metrics)

        on_first(nodes.job, create)

    def record(self, operator: int, call: CallRecord) -> None:
        """Take one call of this rank. Collective: no."""
        self._calls.append(entries.OperatorCall(operator, call))

    def watch(self, routes: Sequence[Route]) -> None:
        """Note every audited answer of these routes by itself from now on. Collective: no."""
        for operator, route in enumerate(routes):
            route.observer.on_audits = self._listener(operator)

    def count(self, totals: StepTotals, bounds: Sequence[float]) -> None:
        """Take what was counted in a step over all ranks, and where the certificates stand. Collective: no."""
        if self._ledger is not None:
            self._steps.append(entries.OperatorStep(totals, tuple(bounds)))

    def tell(self, event: Event) -> None:
        """Take an event, on every rank alike. Collective: no."""
        if self._ledger is not None:
            self._events.append(event)
        for teller in self.tellers:
            teller.event(event)

    def note(self, progress: Callable[[], Progress]) -> None:
        """Note the progress of a step.

        Parameters
        ----------
        progress : callable
            Gives it; called on rank 0 only, now or up to a quarter of a second later.

        Collective: no.
        """
        if self._metrics is not None:
            self._lines.append(progress)
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

    def save(self) -> JournalMemory | None:
        """Write all records of all ranks, and say where the files stand; on rank 0. Collective: yes."""
        self.flush()
        groups = self._comm.allreduce(self._groups.count, MPI.MAX)
        if self._ledger is None or self._metrics is None:
            return None
        return JournalMemory(self._ledger.rows, self._metrics.length, groups)

    def close(self) -> None:
        """Close metrics and ledger; records that were not flushed are not written. Collective: no."""
        if self._ledger is not None:
            self._ledger.close()
        if self._metrics is not None:
            self._note()
            self._metrics.close()

    def _listener(self, operator: int) -> Callable[[Audits], None]:
        def listen(audits: Audits) -> None:
            rows = np.zeros(len(audits.ids), AUDIT)
            rows["operator"] = operator
            for name, values in zip(("step", "call", "id", "score", "error", "verdict"), audits, strict=True):
                rows[name] = values
            self._audits.append(rows)

        return listen

    def _take_rows(self) -> dict[str, Table]:
        calls, self._calls = self._calls, []
        audits, self._audits = self._audits, []
        return {
            "records": entries.records(calls, self._comm.rank),
            "audits": np.concatenate(audits) if audits else np.empty(0, AUDIT),
            **self._groups.rows(calls),
        }

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
        if time.monotonic() - self._written >= max(_WRITE_SECONDS, self._cost / _WRITE_SHARE):
            self._write()

    def _note(self) -> None:
        if self._metrics is not None and self._lines:
            steps = [progress() for progress in self._lines]
            self._metrics.extend(steps)
            for teller in self.tellers:
                teller.steps(steps)
        self._lines.clear()
        self._noted = time.monotonic()

    def _write(self) -> None:
        started, began = time.monotonic(), time.perf_counter()
        if self._ledger is not None:
            rows = {name: np.concatenate([one[name] for one in self._gathered]) for name in _GATHERED if self._gathered}
            others = {"steps": entries.steps(self._steps), "events": entries.events(self._events)}
            self._ledger.append(rows.pop("records", np.empty(0, RECORD)), rows | others)
        for done in (self._gathered, self._steps, self._events):
            done.clear()
        self._written = time.monotonic()
        self._cost = self._written - started
        if self.spans is not None and self._ledger is not None:
            self.spans.span("ledger", began, time.perf_counter())


def _padded(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill up the last block."""
    return np.concatenate([data, np.zeros(-data.size % _BLOCK_BYTES, np.uint8)])


class _Gathering:
    """Rows on their way to rank 0, in two collectives: how many bytes each rank has per table, then the rows.

    Whoever goes on with it a step later finds each complete, unless a rank is a whole step behind.
    """

    def __init__(self, comm: MPI.Intracomm, mine: Mapping[str, Table]) -> None:
        self._comm = comm
        parts = [mine[name].view(np.uint8) for name in _GATHERED]
        self._mine = _padded(np.concatenate(parts))
        self._length = np.array([part.size for part in parts], np.int64)
        self._lengths = np.zeros((comm.size, len(parts)), np.int64)
        self._everyone: NDArray[np.uint8] | None = None
        self._request = comm.Igather(self._length, self._lengths)

    def advance(self) -> Mapping[str, Table] | None:
        """Complete what is under way; give the rows of all ranks on rank 0, and none elsewhere, when it was all."""
        wait([self._request])
        if self._everyone is not None:
            return self._sorted_out(self._everyone)
        first = self._comm.rank == 0
        blocks = -(-self._lengths.sum(axis=1) // _BLOCK_BYTES)
        self._everyone = np.empty(int(blocks.sum()) * _BLOCK_BYTES if first else 0, np.uint8)
        # In blocks: bytes would be too many for MPI's 32-bit counts from 2 GiB on.
        block = MPI.BYTE.Create_contiguous(_BLOCK_BYTES).Commit()
        arriving = [self._everyone, blocks, block] if first else None
        self._request = self._comm.Igatherv([self._mine, self._mine.size // _BLOCK_BYTES, block], arriving)
        block.Free()
        return None

    def _sorted_out(self, everyone: NDArray[np.uint8]) -> dict[str, Table]:
        """Give what came, rank after rank and table after table, by table."""
        # What fills a rank's last block is a part of its own, and left aside.
        filling = -self._lengths.sum(axis=1, keepdims=True) % _BLOCK_BYTES
        lengths = np.concatenate([self._lengths, filling], axis=1)
        whole = np.split(everyone, np.cumsum(lengths)[:-1]) if everyone.size else [everyone] * lengths.size
        parts = [part for place, part in enumerate(whole) if (place + 1) % lengths.shape[1]]
        return {
            name: np.concatenate(parts[place :: len(_GATHERED)]).view(dtype)
            for place, (name, dtype) in enumerate(_GATHERED.items())
        }
