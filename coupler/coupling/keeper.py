"""The keeper: puts a session into a checkpoint, and stands another one where that one stood."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coupler.checkpoint import Checkpoint, Column, Plain, Shelf, write_checkpoint
from coupler.controller.hysteresis import Remembered
from coupler.coupling.account import Account
from coupler.coupling.journal import JournalMemory
from coupler.coupling.memory import SessionMemory, Standing
from coupler.coupling.nodes import Nodes, on_first, together
from coupler.coupling.plan import SessionPlan
from coupler.coupling.reduction import StepReduction
from coupler.coupling.resumption import signatures
from coupler.coupling.route import Route
from coupler.coupling.wishes import NUMBERS as WISHES
from coupler.lock import await_free
from coupler.operator import Operator
from coupler.runfolder import RunFolder
from coupler.serving.modelplan import Wanted

if TYPE_CHECKING:
    from coupler.coupling.steering import Steering
    from coupler.serving.supervision import Supervision

# What a killed run left is ended by its reaper within seconds [s].
_TRAINER_SECONDS = 30.0


class Keeper:
    """Knows all that outlives a session.

    Parameters
    ----------
    plan : SessionPlan
        What the session is of.
    nodes : Nodes
        The ranks.
    folder : RunFolder
        Where the checkpoints go.
    account : Account
        What was counted; its routes are those of the session.
    reduction : StepReduction
        Has the sum that is under way.
    steering : Steering or None
        Learning and versions, where there are any.
    """

    def __init__(
        self,
        plan: SessionPlan,
        nodes: Nodes,
        folder: RunFolder,
        account: Account,
        reduction: StepReduction,
        steering: "Steering | None",
    ) -> None:
        self._plan, self._nodes, self._account = plan, nodes, account
        self._shelf = Shelf(folder.checkpoints)
        self._reduction, self._steering = reduction, steering

    def write(
        self,
        moment: Standing,
        written: JournalMemory | None,
        columns: Sequence[Column],
        loop: Callable[[], Mapping[str, Plain]],
    ) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        moment : Standing
            Where the session stands.
        written : JournalMemory or None
            Where the files stand; on rank 0.
        columns, loop
            What the loop around keeps, as for ``Coupling.save``.

        Collective: yes.
        """
        if self._steering is not None:
            self._steering.expect_resumption(moment.step)
        columns = [*self._columns(), *columns]
        if written is None:
            write_checkpoint(None, columns, dict)
            return
        memory = SessionMemory(
            moment=moment,
            account=self._account.memory,
            journal=written,
            routes=tuple(route.memory for route in self._account.routes),
            steering=None if self._steering is None else self._steering.memory,
        ).to_plain()

        def facts() -> dict[str, Plain]:
            return {
                "step": moment.step,
                "case": self._plan.case.to_toml(),
                "operators": signatures(self._plan.operators),
                "hopeless": self._plan.hopeless,
                "coin_seed": self._plan.coin_seed,
                "session": memory,
                "loop": dict(loop()),
            }

        self._shelf.put(moment.step, columns, facts, self._plan.case.run.checkpoints)

    def resume(self, since: SessionMemory, supervision: "Supervision | None") -> None:
        """Stand where a run stood; the future of then has been forgotten.

        Parameters
        ----------
        since : SessionMemory
            What was known.
        supervision : Supervision or None
            Has the versions loaded that answer; on rank 0, where there is one.

        Collective: yes.
        """
        assert self._plan.resumption is not None
        checkpoint = self._plan.resumption.checkpoint
        self._account.resume(since.account)
        for index, (route, known) in enumerate(zip(self._account.routes, since.routes, strict=True)):
            route.resume(known, on_first(self._nodes.job, partial(_accepted_in, checkpoint, index)))
        total = on_first(self._nodes.job, lambda: checkpoint.array("sum"))
        if len(total):
            total[len(total) - WISHES :] = 0  # they have come true
            self._reduction.resume(total)
        if self._steering is not None:
            if supervision is not None:
                numbered = enumerate(self._account.routes)
                supervision.want([Wanted(place, one) for place, route in numbered for one in route.needed_versions])
            self._resume_steering(self._steering, since, checkpoint)

    def _resume_steering(self, steering: "Steering", since: SessionMemory, checkpoint: Checkpoint) -> None:
        from coupler.learning.samples import COLUMNS, SampleBatch

        pending: list[SampleBatch | None] = [None] * len(self._account.routes)
        if self._nodes.first:
            pending = [
                SampleBatch(**{column: checkpoint.array(f"samples/{name}/{column}") for column in COLUMNS})
                for name in self._plan.operators
            ]
        together(self._nodes.job, lambda: steering.resume(since.steering, pending))

    def _columns(self) -> list[Column]:
        """Give the session's own arrays: the sum under way, samples not on disk, who was accepted last."""
        columns = [Column("sum", self._sum_under_way)]
        if self._steering is not None:
            columns += self._steering.columns()
        if self._plan.controller.hysteresis:
            routes = enumerate(self._account.routes)
            columns += [Column(f"accepted/{index}", partial(self._accepted, route)) for index, route in routes]
        return columns

    def _sum_under_way(self) -> NDArray[np.int64] | None:
        total = self._reduction.peek()
        return None if not self._nodes.first else np.empty(0, np.int64) if total is None else total

    def _accepted(self, route: Route) -> NDArray[np.int64] | None:
        """Give who was accepted last on all ranks, in rows of call, step and id; on rank 0."""
        mine = [
            np.stack([np.full(len(one.ids), call), np.full(len(one.ids), one.step), one.ids], axis=1)
            for call, one in route.accepted.items()
        ]
        everyone = self._nodes.job.gather(np.concatenate([np.empty((0, 3), np.int64), *mine]))
        return None if everyone is None else np.concatenate(everyone)


def memory_of(plan: SessionPlan) -> SessionMemory:
    """Read what is known of the session that a plan goes on with.

    Raises
    ------
    CouplerError
        If it was written by other code.

    Collective: no.
    """
    if plan.learns:  # what is kept of learning is told by these classes
        from coupler.coupling import steering  # noqa: F401

    assert plan.resumption is not None
    return SessionMemory.from_plain(plan.resumption.checkpoint.facts["session"], plan.controller.rule)


def forget_future(folder: RunFolder, operators: Mapping[str, Operator], since: SessionMemory) -> None:
    """Delete samples, versions and rounds of what is to be done again: nobody may learn from the lost piece.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    operators : mapping of name to Operator
        All of them.
    since : SessionMemory
        What stays known.

    Collective: no; rank 0 does it.
    """
    from coupler.learning.registry import Registry
    from coupler.learning.rounds import TRAINING_LOCK, RoundFolder
    from coupler.learning.store import SampleStore

    await_free(folder.models / TRAINING_LOCK, _TRAINER_SECONDS)
    registry = Registry(folder.models)
    for (name, operator), learned in zip(operators.items(), since.steering.learners, strict=True):
        under_way = learned.began >= 0
        RoundFolder(folder.models, name).forget_from(learned.rounds + (not under_way))
        registry.forget_after(name, learned.latest)
        store = SampleStore(folder.samples, name, operator.signature)
        store.rewind(since.moment.step, stored=learned.trained_on > 0)


def _accepted_in(checkpoint: Checkpoint, index: int) -> dict[int, Remembered]:
    """Give who was accepted last, of all ranks, by call; nobody where that makes no difference."""
    if str(index) not in checkpoint.names("accepted"):
        return {}
    rows = checkpoint.array(f"accepted/{index}")
    calls = {call: rows[rows[:, 0] == call] for call in np.unique(rows[:, 0]).tolist()}
    return {
        call: Remembered(int(some[0, 1]), some[:, 2].copy(), np.ones(len(some), np.bool_))
        for call, some in calls.items()
    }
