"""The journal: what the ranks write down while they run, the ledger together and the metrics on rank 0."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coupler.controller import AuditedSums
from coupler.coupling.nodes import Nodes, on_first
from coupler.coupling.route import CallRecord
from coupler.ledger import RECORD, LedgerFile
from coupler.progress import MetricsFile, Progress
from coupler.runfolder import RunFolder

# Steps between two writes of the ledger: gathering it is collective, so it must not happen often.
_FLUSH_STEPS = 100


class Journal:
    """Ledger records of this rank, gathered to rank 0 every now and then; one line of metrics per step.

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
        self._nodes = nodes
        self._records: list[NDArray[np.void]] = []
        self._ledger: LedgerFile | None = None
        self._metrics: MetricsFile | None = None

        def create() -> None:
            self._ledger = LedgerFile(folder.ledger, operators)
            self._metrics = MetricsFile(folder.metrics)

        on_first(nodes.job, create)

    def record(self, operator: int, call: CallRecord) -> None:
        """Take one call of this rank. Collective: no."""
        record = np.zeros(1, RECORD)
        sums: AuditedSums = call.counts.sums(call.audit_rate)
        record["step"], record["call"], record["operator"], record["rank"] = (
            call.step,
            call.call,
            operator,
            self._nodes.job.rank,
        )
        record["version"], record["threshold"], record["audit_rate"] = call.version, call.threshold, call.audit_rate
        record["reasons"][0] = call.counts.reasons
        record["audits"], record["acceptable"], record["loss"], record["exceedances"] = (
            sums.audits,
            sums.accepted,
            sums.loss,
            sums.exceedances,
        )
        record["truth_seconds"], record["wait_seconds"], record["model_seconds"] = (
            call.truth_seconds,
            call.wait_seconds,
            call.model_seconds,
        )
        self._records.append(record)

    def step(self, step: int, progress: Progress) -> None:
        """Note the progress of a step. Collective: yes at every hundredth step, when the ledger is written."""
        if self._metrics is not None:
            self._metrics.append(progress)
        if step % _FLUSH_STEPS == 0:
            self.flush()

    def flush(self) -> None:
        """Write the ledger's records of all ranks. Collective: yes."""
        mine = np.concatenate(self._records) if self._records else np.zeros(0, RECORD)
        self._records.clear()
        everyone = self._nodes.job.gather(mine)
        if everyone is not None and self._ledger is not None:
            self._ledger.append(np.concatenate(everyone))

    def close(self) -> None:
        """Close the metrics; what was not flushed is not written. Collective: no."""
        if self._metrics is not None:
            self._metrics.close()
