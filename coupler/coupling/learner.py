"""The learner of one operator on one rank: keeps samples, starts training rounds, says when a version takes over.

Every decision here follows from the reduced counts and the step, so all ranks take it at the same step boundary.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coupler.case import Case
from coupler.checkpoint import Column
from coupler.controller import Coins, Stream
from coupler.coupling.call import Piece, Reasons
from coupler.coupling.counts import Counts
from coupler.coupling.nodes import Nodes
from coupler.coupling.route import Route
from coupler.errors import CouplerError
from coupler.learning.draws import element_draws
from coupler.learning.registry import ModelCard, Registry
from coupler.learning.rounds import RoundFolder, RoundOutcome
from coupler.learning.samples import COLUMNS, SampleBatch, unselected
from coupler.learning.store import SampleStore
from coupler.learning.trainer import TrainingTask
from coupler.learning.trigger import KeepShares, TrainingTrigger, keep_shares
from coupler.records import Reason
from coupler.runfolder import RunFolder
from coupler.serving.supervision import Supervision

_log = logging.getLogger("coupler.learning")
# A round that takes longer than this in deterministic mode is given up [s].
_ROUND_SECONDS = 1800.0
_LOOK_SECONDS = 0.02
# Longest until every node sees a file that rank 0 has written [s].
_SEEN_SECONDS = 120.0
# Weight of the last step in the smoothed share of elements that fall back.
_SMOOTHING = 0.05
_FAILURE_LOOK_SECONDS = 1.0
_KEPT = 0x4E97


@dataclass(frozen=True)
class LearnerPlan:
    """What a learner needs to know of its run.

    Parameters
    ----------
    index, name : int, str
        The operator.
    case : Case
        The effective case.
    folder : RunFolder
        Where samples and models go.
    """

    index: int
    name: str
    case: Case
    folder: RunFolder


@dataclass(frozen=True)
class LearnerMemory:
    """What a learner needs to go on, besides the samples that are not on disk yet.

    Parameters
    ----------
    available, trained_on : int
        Samples kept so far, and when the last training began.
    fallback_share : float
        Smoothed share of elements that fall back.
    keep_shares : KeepShares
        What is kept of the truth's answers.
    rounds, began : int
        Rounds that have started, and the step at which the one under way did; -1 if none is.
    incumbent : int or None
        The version that answered then.
    latest : int
        The last version that the ranks have heard of.
    learns, worthwhile : bool
        As in :class:`Learner`.
    resumable : tuple of tuple of int
        Per checkpoint that is kept, this one included, the steps whose samples are needed to go on from it.
    """

    available: int
    trained_on: int
    fallback_share: float
    keep_shares: KeepShares
    rounds: int
    began: int
    incumbent: int | None
    latest: int
    learns: bool
    worthwhile: bool
    resumable: tuple[tuple[int, ...], ...]


class Learner:
    """Collects samples from a route and runs its training rounds.

    Attributes
    ----------
    learns : bool
        Whether there is anybody to learn.
    worthwhile : bool
        Whether learning may pay, as far as is known; if not, it rests.
    waits : bool
        Whether a training would not be worth its time yet: the newest samples are kept then.

    Parameters
    ----------
    plan : LearnerPlan
        Operator, case and folder.
    route : Route
        Whose truth is learned from.
    nodes : Nodes
        The ranks.
    service : Supervision or None
        Who has models trained; None except on rank 0.
    """

    def __init__(self, plan: LearnerPlan, route: Route, nodes: Nodes, service: Supervision | None) -> None:
        learning = plan.case.learning
        self._plan, self._route, self._nodes, self._service = plan, route, nodes, service
        self._trigger = TrainingTrigger(first=learning.first, growth=learning.growth, capacity=learning.buffer)
        self._store = SampleStore(plan.folder.samples, plan.name, route.operator.signature)
        self._rounds = RoundFolder(plan.folder.models, plan.name)
        self._registry = Registry(plan.folder.models)
        self._pending: list[SampleBatch] = []
        self._coins = Coins(plan.case.run.seed, Stream.SAMPLE)
        self._rows, self._inputs = np.empty(0, np.int64), np.empty((0, 0))
        self._available = self._trained_on = 0
        self._fallback_share = 0.0
        self._keep_shares = KeepShares(0.0, 0.0)  # until the first sum says how many elements there are
        self._round, self._round_started = 0, -1
        self._incumbent: int | None = None
        self._latest = 0
        self._resumable: tuple[tuple[int, ...], ...] = ()
        self._outcome_seen = False
        self._looked_at = time.monotonic()
        self.learns, self._collects = learning.trains, learning.mode == "collect"
        self.worthwhile, self.waits = True, False
        route.on_truth = self._keep

    @property
    def index(self) -> int:
        """The operator's number."""
        return self._plan.index

    @property
    def rounds(self) -> int:
        """Training rounds that have started."""
        return self._round

    @property
    def training(self) -> bool:
        """Whether a round is under way."""
        return self._round_started >= 0

    def card(self, version: int) -> ModelCard:
        """Give the card of a version of this operator's model."""
        return self._registry.card(self._plan.name, version)

    def inherit(self, card: ModelCard) -> None:
        """Know of a version that the run begins with. Collective: no."""
        self._latest = card.version

    def count_outcome(self) -> None:
        """Add to this rank's counts whether it sees the outcome of the round under way. Collective: no."""
        if self.training and self._nodes.leads:
            self._publish_failure()
            # Thousands of nodes that ask a shared file system in every step would be all it has to do: the others
            # begin to look once rank 0 has seen it.
            if self._nodes.first or self._outcome_seen:
                self._route.counts.rounds_done = int(self._rounds.published(self._round))

    def end_step(self, step: int, totals: Counts, *, may_start: bool) -> ModelCard | None:
        """Take in the reduced counts; start a round if one is due, finish one if it has ended.

        Parameters
        ----------
        step : int
            The step that ends now.
        totals : Counts
            Sums over all ranks.
        may_start : bool
            Whether a round may start: not while a candidate is on trial.

        Returns
        -------
        ModelCard or None
            The candidate of a round that has ended.

        Collective: yes at steps where a round starts or a run that collects has a buffer full, as samples are gathered
        then; otherwise no.
        """
        self._available += totals.samples
        if self._collects and self._fresh >= self._plan.case.learning.buffer:
            self.flush()
            self._trained_on = self._available
        self._outcome_seen = self.training and totals.rounds_done > 0
        self._keep_shares = self._shares_of(totals)
        share = totals.decisions["fallback"] / totals.elements if totals.elements else 0.0
        self._fallback_share += _SMOOTHING * (share - self._fallback_share)
        if self.training:
            return self._finish_round() if self._round_ended(step, totals) else None
        if may_start and self.learns and self.worthwhile and self._due():
            self._start_round(step)
        return None

    def flush(self) -> None:
        """Write the samples not yet on disk as one segment. Collective: yes."""
        batches = self._nodes.job.gather(self._pending)
        self._pending = []
        if batches is not None:
            everything = [batch for rank in batches for batch in rank]
            if everything:
                self._store.append(SampleBatch.join(everything))

    def expect_resumption(self, step: int) -> None:
        """Take care that the run can go on from the end of this step as long as its checkpoint is kept.

        What a training that is under way learns from must stay as well: it will begin again. Collective: no.
        """
        needed = (step, self._round_started) if self.training else (step,)
        self._resumable = (*self._resumable, needed)[-self._plan.case.run.checkpoints :]

    @property
    def memory(self) -> LearnerMemory:
        """What is needed to go on."""
        return LearnerMemory(
            available=self._available,
            trained_on=self._trained_on,
            fallback_share=self._fallback_share,
            keep_shares=self._keep_shares,
            rounds=self._round,
            began=self._round_started,
            incumbent=self._incumbent,
            latest=self._latest,
            learns=self.learns,
            worthwhile=self.worthwhile,
            resumable=self._resumable,
        )

    def columns(self) -> list[Column]:
        """Give the samples of all ranks that are not on disk yet, as columns of a checkpoint. Collective: no."""
        return [Column(f"samples/{self._plan.name}/{name}", partial(self._gather, name)) for name in COLUMNS]

    def resume(self, memory: LearnerMemory, pending: SampleBatch | None) -> None:
        """Go on from what was known; a training that was under way begins again, from the same samples.

        Parameters
        ----------
        memory : LearnerMemory
            What was known.
        pending : SampleBatch or None
            The samples that were not on disk; on rank 0, None elsewhere.

        Collective: no.
        """
        self._available, self._trained_on = memory.available, memory.trained_on
        self._fallback_share, self._keep_shares = memory.fallback_share, memory.keep_shares
        self._round, self._round_started = memory.rounds, memory.began
        self._incumbent, self._latest, self._resumable = memory.incumbent, memory.latest, memory.resumable
        self.learns, self.worthwhile = memory.learns, memory.worthwhile
        self._pending = [pending] if pending is not None and len(pending) else []
        if self.training and self._nodes.first:
            assert self._service is not None
            self._service.train(self._plan.index, self._round, self._task(self._round_started))

    @property
    def _fresh(self) -> int:
        """Samples that nobody has been given yet, of all ranks."""
        return self._available - self._trained_on

    def _gather(self, name: str) -> NDArray[Any] | None:
        """Give a column of the samples not on disk, of all ranks, on rank 0. Collective: yes."""
        signature = self._route.operator.signature
        nothing = getattr(SampleBatch.none(len(signature.inputs), len(signature.outputs)), name)
        mine = np.concatenate([nothing, *(getattr(batch, name) for batch in self._pending)])
        everyone = self._nodes.job.gather(mine)
        return None if everyone is None else np.concatenate(everyone)

    def _keep(self, piece: Piece, reasons: Reasons) -> None:
        """Keep a random share of the truth's answers of either kind; neither coins nor draws depend on the ranks."""
        wanted = self._collects or (self.learns and self.worthwhile)
        full = self._fresh >= self._plan.case.learning.buffer
        if not wanted or (full and not self.waits):
            return
        if len(self._rows) < len(piece.ids):
            self._rows, self._inputs = np.empty(len(piece.ids), np.int64), np.empty_like(piece.inputs)
        found = self._coins.choose(
            self._keep_shares.largest, piece.step, piece.call, piece.ids, piece.inputs, self._rows, self._inputs
        )
        rows = self._rows[:found]
        kept = self._stays(piece, reasons, rows)
        rows = rows[kept]
        if len(rows) == 0:
            return
        if full:
            self._forget_oldest(len(rows))
        self._route.counts.samples += len(rows)
        self._pending.append(
            SampleBatch(
                inputs=self._inputs[:found][kept],
                dt=np.full(len(rows), piece.dt),
                truth=piece.outputs[rows],
                step=np.full(len(rows), piece.step, np.int64),
                call=np.full(len(rows), piece.call, np.int64),
                ids=piece.ids[rows],
                reason=reasons[rows],
            )
        )

    def _forget_oldest(self, count: int) -> None:
        """Make room for new samples where a training is not worth its time yet: it will be for what is new."""
        while count > 0 and self._pending:
            count -= len(self._pending.pop(0))

    def _stays(self, piece: Piece, reasons: Reasons, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which of the rows that a coin chose stay: the truth was computed, and the smaller share is kept to."""
        shares, why, steps = self._keep_shares, reasons[rows], np.full(len(rows), piece.step)
        draws = element_draws(steps, np.full(len(rows), piece.call), piece.ids[rows], purpose=_KEPT) * shares.largest
        share = np.where(unselected(why), shares.unselected, shares.selected)
        stays: NDArray[np.bool_] = (why != Reason.ACCEPTED) & (draws < share)
        return stays

    def _due(self) -> bool:
        """Whether to train now; sooner where the model is found wrong, or takes little off the truth."""
        urgent = self._route.state.alarms.any or self._fallback_share > self._plan.case.learning.fallback
        return self._trigger.due(self._trained_on, self._available, urgent=urgent)

    def _shares_of(self, totals: Counts) -> KeepShares:
        learning = self._plan.case.learning
        whole = int(totals.reasons[unselected(np.arange(len(Reason), dtype=np.uint8))].sum())
        chosen = totals.elements - whole - int(totals.reasons[Reason.ACCEPTED])
        return keep_shares(whole, chosen, capacity=learning.buffer, steps=learning.renewal)

    def _start_round(self, step: int) -> None:
        self.flush()
        self._round += 1
        self._round_started, self._incumbent = step, self._route.state.version or None
        self._trained_on = self._available
        if self._nodes.first:
            assert self._service is not None
            self._service.train(self._plan.index, self._round, self._task(step))

    def _task(self, step: int) -> TrainingTask:
        case = self._plan.case
        return TrainingTask(
            operator=self._plan.name,
            surrogate=case.surrogate.name,
            params=case.surrogate.params,
            signature=self._route.operator.signature.to_json(),
            samples=str(self._plan.folder.samples),
            models=str(self._plan.folder.models),
            capacity=case.learning.buffer,
            anchors=case.learning.anchors,
            recent=case.learning.recent,
            regions=case.controller.regions,
            seed=case.run.seed + self._round,
            seconds=case.learning.budget if case.learning.mode == "asynchronous" else None,
            cap=case.controller.cap,
            target=case.controller.target,
            step=step,
            incumbent=self._incumbent,
            needed=self._route.needed_versions,
            resumable=tuple(sorted({one for steps in self._resumable for one in steps})),
        )

    def _round_ended(self, step: int, totals: Counts) -> bool:
        if self._plan.case.learning.mode == "asynchronous":
            return bool(totals.rounds_done == self._nodes.count)
        if step < self._round_started + self._plan.case.learning.lag:
            return False
        self._wait_for_outcome()
        return True

    def _wait_for_outcome(self) -> None:
        """Deterministic mode: all ranks wait, so that the version takes over at its step, not when it is ready."""
        ends = time.monotonic() + _ROUND_SECONDS
        while not self._rounds.published(self._round):
            self._publish_failure()
            if time.monotonic() > ends and self._nodes.first:
                self._rounds.publish(self._round, _failure(f"training took longer than {_ROUND_SECONDS:.0f} s"))
            if time.monotonic() > ends + _SEEN_SECONDS:
                raise CouplerError(
                    f"step {self._round_started}: rank {self._nodes.job.rank} has waited "
                    f"{_ROUND_SECONDS + _SEEN_SECONDS:.0f} s for the outcome of training {self._round} of "
                    f"{self._plan.name}, which rank 0 has written by now: the run folder must be one that all nodes "
                    "see. Look at it with coupler doctor on all nodes."
                )
            time.sleep(_LOOK_SECONDS)

    def _publish_failure(self) -> None:
        """On rank 0: if the trainer died in mid-round, say so in its place, or the round would never end."""
        if self._service is None or not self._nodes.first or time.monotonic() - self._looked_at < _FAILURE_LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        failure = self._service.training_failure(self._plan.index)
        if failure is not None and not self._rounds.published(self._round):
            self._rounds.publish(self._round, _failure(failure))

    def _finish_round(self) -> ModelCard | None:
        outcome = self._rounds.read(self._round)
        self._round_started = -1
        self.learns = self.learns and not outcome.failed
        if outcome.failed and self._nodes.first:
            _log.warning("operator %s learns no more: %s", self._plan.name, outcome.sentence)
        if outcome.candidate is None:
            return None
        self._latest = outcome.candidate
        return self._registry.card(self._plan.name, outcome.candidate)


def _failure(why: str) -> RoundOutcome:
    return RoundOutcome(candidate=None, sentence=f"the trainer is lost: {why}", failed=True)
