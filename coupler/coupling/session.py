"""A running session: everything that exists between the start and the end of a coupled run on this rank."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.checkpoint import Checkpoint, Column, Plain, Shelf, write_checkpoint
from coupler.clock import Stopwatch
from coupler.config import Case, RunSection
from coupler.controller import MOST_CALLS, Controller
from coupler.controller.boxes import Boxes
from coupler.controller.hysteresis import Remembered
from coupler.coupling.account import Account, StepTotals
from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.families import Families
from coupler.coupling.journal import Journal, JournalMemory
from coupler.coupling.memory import SessionMemory
from coupler.coupling.nodes import Nodes, on_first, together
from coupler.coupling.recorder import TapeRecorder
from coupler.coupling.reduction import StepReduction
from coupler.coupling.rehearsal import rehearse
from coupler.coupling.resumption import Resumption, signatures
from coupler.coupling.route import Route
from coupler.coupling.script import Script
from coupler.coupling.sharing import SharingSwitch, open_workshop
from coupler.coupling.statement import Results, statement
from coupler.coupling.wishes import NUMBERS as WISHES
from coupler.coupling.wishes import Wishes
from coupler.errors import CouplerError, FieldMismatch
from coupler.exchange.sharing import Bench
from coupler.operator import Operator
from coupler.progress import Progress
from coupler.records import TAKEOVERS, Event, EventKind
from coupler.runfolder import RunFolder, claim
from coupler.summary import FINISHED, STOPPED, ModelSummary, Summary
from coupler.tape import TapeCall

if TYPE_CHECKING:
    from coupler.coupling.following import Following
    from coupler.coupling.steering import Steering

_log = logging.getLogger("coupler.session")
# Books that need not be kept at once are kept this often [s].
_READ_SECONDS = 0.25


class _Unread(NamedTuple):
    """What came of a step and has not been looked at: sums over the ranks, what held, and seconds since the start."""

    step: int
    numbers: NDArray[np.int64]
    setting: tuple[StepSetting, ...]
    seconds: float


@dataclass(frozen=True)
class SessionPlan:
    """What a session is of; checked before it starts.

    Parameters
    ----------
    case : Case
        The effective case.
    operators : mapping of name to Operator
        With the case's tolerances.
    controller : Controller
        The rules, the same for every operator.
    out : Path or None
        The run folder, if the user chose one.
    name : str
        What the default run folder is named after.
    elements : mapping of name to int
        Most elements this rank asks about at once.
    hopeless : str
        Why no model could save anything, so that nothing is started for one; empty if one could.
    script : Script or None
        The run that this one does again, if it does.
    resumption : Resumption or None
        Where this run goes on from, if it does.
    """

    case: Case
    operators: Mapping[str, Operator]
    controller: Controller
    out: Path | None
    name: str
    elements: Mapping[str, int]
    script: Script | None = None
    hopeless: str = ""
    resumption: Resumption | None = None

    @property
    def learns(self) -> bool:
        """Whether there is to be a model."""
        return self.controller.asks and not self.hopeless

    @property
    def checkpointed(self) -> RunSection:
        """When checkpoints are wanted: never in a run that does another again."""
        return self.case.run if self.script is None else self.case.run.model_copy(update={"checkpoints": 0})


class Session:
    """Run folder, services, routes, steering and the reduction between them, from start to finish.

    Attributes
    ----------
    folder : RunFolder
        Where everything is written.
    routes : list of Route
        One per operator.
    events : list of Event
        What has happened to models and switches.

    Parameters
    ----------
    plan : SessionPlan
        What to start.
    comm : MPI.Intracomm
        All ranks.
    stopwatch : Stopwatch
        Where the seconds are charged.

    Raises
    ------
    CouplerError
        If something does not start, on every rank alike; what had started is stopped again.

    Collective: yes.
    """

    def __init__(self, plan: SessionPlan, comm: MPI.Intracomm, stopwatch: Stopwatch) -> None:
        self._plan, self._stopwatch = plan, stopwatch
        if plan.controller.mode == "surrogate" and comm.rank == 0:
            _log.warning(
                "MODE SURROGATE: every answer is taken, however wrong, and nothing is promised. For experiments."
            )
        since = None if plan.resumption is None else _memory_of(plan)
        self._step = self._began = 0 if since is None else since.step
        self._kept = -1
        self._call = 0
        self._models: list[ModelSummary] = []
        self.events: list[Event] = []
        self._setting: tuple[StepSetting, ...] = ()
        self._first_ids = np.empty(0, np.int64)
        self.routes = [self._route(operator) for operator in plan.operators.values()]
        families = Families(
            plan.controller.certificate,
            dict(zip(plan.operators, self.routes, strict=True)),
            outputs=plan.case.controller.certify_outputs,
        )
        self._account = Account(self.routes, plan.controller, families)
        with ExitStack() as started:
            self._nodes = Nodes.of(comm)
            self.folder = self._claim()
            failed_lock = started.enter_context(ExitStack())
            failed_lock.callback(self.folder.release)
            failed = started.enter_context(ExitStack())
            if self._nodes.first and since is None:
                failed.callback(self.folder.abandon)
            self.wishes = Wishes(plan.checkpointed, first=self._nodes.first)
            self._benches = self._start_sharing()
            self._journal = Journal(
                self.folder, self._nodes, tuple(plan.operators), None if since is None else since.journal
            )
            started.callback(self._journal.close)
            if plan.case.output.ledger == "audits":
                self._journal.watch(self.routes)
            self._live: Steering | None = None  # as long as nobody else says what happens
            self._steering: Steering | Following | None = None
            if plan.learns:
                if since is not None and since.steering is not None:
                    on_first(self._nodes.job, lambda: self._forget_future(since))
                self._steering = self._start_learning(started)
            if plan.hopeless:
                self._switch_all_off(tell=since is None)
            taped = plan.case.output.tape
            self._recorder = TapeRecorder(self.folder, self._nodes, plan.operators, plan.case) if taped else None
            # Where no model can ever take over, nothing hangs on a step's sums, and books are kept for many at once:
            # after the truth of a step every line of Python has left the caches, and costs five times as much.
            self._bookish = bool(self._benches) or (self._steering is not None and self._steering.learns)
            self._unread: list[_Unread] = []
            self._read_at = time.monotonic()
            length = sum(route.counts.shape.length for route in self.routes)
            self._reduction = StepReduction(self._nodes.job, length + WISHES)
            if since is not None:
                self._resume(since)
            failed.pop_all()
            failed_lock.pop_all()
            self._started = started.pop_all()

    @property
    def progress(self) -> Progress:
        """Where the run is, as of the last reduction."""
        self._read()
        return self._account.moment(self._stopwatch.total).progress()

    def evaluate(
        self,
        index: int,
        inputs: NDArray[np.float64],
        ids: NDArray[np.int64],
        dt: float,
        out: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Evaluate an operator on this rank's elements, into ``out`` if it is given. Collective: no."""
        if self._call >= MOST_CALLS:
            raise CouplerError(
                f"step {self._step + 1}: evaluate was called {self._call} times within one step, and the audit coins "
                "are numbered for fewer. Hand many elements over in one call, and call end_step once per step."
            )
        if self._call == 0 and self._step == self._began:
            self._first_ids = ids.copy()
        route = self.routes[index]
        outputs = np.empty((len(inputs), len(route.operator.signature.outputs))) if out is None else out
        bench = self._benches[index] if self._benches else None
        if bench is not None:
            bench.enter(self._step + 1, self._call)
        self._journal.record(index, route.evaluate(inputs, outputs, ids, dt, self._step + 1, self._call))
        if bench is not None:
            with self._stopwatch.timing("truth"):
                bench.help()
        if self._recorder is not None:
            with self._stopwatch.timing("io"):
                self._recorder.record(index, TapeCall(self._step + 1, self._call, dt, ids, inputs, outputs))
        self._call += 1
        return outputs

    def end_step(self) -> None:
        """End a step: use the reduction of the step before, start this one's. Collective: yes."""
        self._step += 1
        self._call = 0
        held = self._held()
        if self._step == self._began + 1:
            self._check_ids()
        with self._stopwatch.timing("sync"):
            setting = self._setting
            counts = self._take_in(self._step - 1)
            if self._steering is not None:
                self._steering.count_outcomes()
            self._start_reduction(held)
        if self._steering is not None:
            with self._stopwatch.timing("learn"):
                self._note(self._steering.end_step(self._step, counts, setting))
        if self._recorder is not None:
            with self._stopwatch.timing("io"):
                self._recorder.end_step()

    def checkpoint(self, columns: Sequence[Column], loop: Callable[[], Mapping[str, Plain]]) -> None:
        """Write a checkpoint of the end of this step, from which the run can go on with any number of ranks.

        Parameters
        ----------
        columns : sequence of Column
            The arrays of the loop around, alike on every rank.
        loop : callable
            Gives what else the loop wants to keep; called on rank 0.

        Collective: yes.
        """
        started = time.monotonic()
        with self._stopwatch.timing("io"):
            self._read()
            written = self._journal.save()
            if self._recorder is not None:
                self._recorder.save()
            if self._live is not None:
                self._live.expect_resumption(self._step)
            columns = [*self._columns(), *columns]
            if self._nodes.first:
                assert written is not None
                facts = partial(self._facts, self._memory(written), loop)
                keep = self._plan.case.run.checkpoints
                Shelf(self.folder.checkpoints).put(self._step, columns, facts, keep)
            else:
                write_checkpoint(None, columns, dict)
        self.wishes.done(time.monotonic() - started)
        self._kept = self._step

    def finish(self, results: Results) -> Summary:
        """Write what is left, stop everything, write the summary. Collective: yes."""
        held = self._held()
        self._take_in(self._step)
        # Decisions made since the last end of a step count as well.
        self._start_reduction(held)
        self._take_in(self._step + 1)
        self._read()
        seconds = self._stopwatch.seconds
        results = replace(results, loop_seconds=self._stopwatch.total - seconds["setup"] - seconds["twin"])
        with self._stopwatch.timing("io"):
            self._journal.flush()
            if (
                self._steering is not None and results.status == FINISHED
            ):  # what goes on has its samples in a checkpoint
                self._steering.flush()
            if self._recorder is not None:
                self._recorder.finish()
        self._started.close()
        routes = dict(zip(self._plan.operators, self.routes, strict=True))
        summary = statement(self._plan.case, self._nodes.job, self._stopwatch, self._account, routes, results)
        if self._nodes.first:
            summary.write(self.folder.summary)
            if results.status == FINISHED:
                shutil.rmtree(self.folder.checkpoints, ignore_errors=True)  # nobody goes on from here
            self.folder.release(finished=results.status == FINISHED)
        self._nodes.close()
        return summary

    def results(self) -> Results:
        """Give what the session knows of itself for the summary; the loop adds what it knows."""
        return Results(
            steps=self._step,
            models=self._models,
            retrainings=0 if self._steering is None else self._steering.rounds,
            events=self.events,
            loop_seconds=0.0,
            lending_seconds=sum(bench.lending_seconds for bench in self._benches),
            status=STOPPED if self.wishes.stop and self._kept == self._step else FINISHED,
        )

    def release(self) -> None:
        """Stop everything that was started, without talking to other ranks. Collective: no."""
        self._started.close()
        self.folder.release()

    def _route(self, operator: Operator) -> Route:
        case = self._plan.case
        deterministic = case.learning.mode == "deterministic"
        return Route(
            operator,
            self._plan.controller,
            seed=case.run.seed,
            deadline=case.exchange.patience if deterministic else case.exchange.deadline,
            must_answer=deterministic,
            stopwatch=self._stopwatch,
            regions=case.controller.regions if self._plan.controller.asks else 0,
            boxes=Boxes.of(operator.signature, case.controller.box),
        )

    def _claim(self) -> RunFolder:
        """Take the run folder; rank 0 alone holds its lock. Collective: yes."""
        plan, claimed = self._plan, list[RunFolder]()

        def take() -> Path:
            if plan.resumption is not None:
                claimed.append(plan.resumption.claim(self._nodes.job.size))
            else:
                claimed.append(claim(plan.out, plan.name, plan.case))
            return claimed[0].path

        path = on_first(self._nodes.job, take)
        return claimed[0] if claimed else RunFolder(path)

    def _columns(self) -> list[Column]:
        """Give the session's own arrays: the sum under way, samples not on disk, who was accepted last."""
        columns = [Column("sum", self._sum_under_way)]
        if self._live is not None:
            columns += self._live.columns()
        if self._plan.controller.hysteresis:
            columns += [column for index, route in enumerate(self.routes) for column in self._accepted(index, route)]
        return columns

    def _sum_under_way(self) -> NDArray[np.int64] | None:
        total = self._reduction.peek()
        return None if not self._nodes.first else np.empty(0, np.int64) if total is None else total

    def _accepted(self, index: int, route: Route) -> list[Column]:
        """Give who was accepted last, in rows of call, step and id."""

        def gather() -> NDArray[np.int64] | None:
            mine = [
                np.stack([np.full(len(one.ids), call), np.full(len(one.ids), one.step), one.ids], axis=1)
                for call, one in route.accepted.items()
            ]
            everyone = self._nodes.job.gather(np.concatenate([np.empty((0, 3), np.int64), *mine]))
            return None if everyone is None else np.concatenate(everyone)

        return [Column(f"accepted/{index}", gather)]

    def _memory(self, written: JournalMemory) -> SessionMemory:
        return SessionMemory(
            step=self._step,
            setting=self._setting,
            events=tuple(self.events),
            models=tuple(model.model_dump() for model in self._models),
            account=self._account.memory,
            journal=written,
            routes=tuple(route.memory for route in self.routes),
            steering=None if self._live is None else self._live.memory,
            hopeless=self._plan.hopeless,
        )

    def _facts(self, memory: SessionMemory, loop: Callable[[], Mapping[str, Plain]]) -> dict[str, Plain]:
        return {
            "step": self._step,
            "case": self._plan.case.to_toml(),
            "operators": signatures(self._plan.operators),
            "hopeless": self._plan.hopeless,
            "session": memory.to_plain(),
            "loop": dict(loop()),
        }

    def _forget_future(self, since: SessionMemory) -> None:
        """Delete samples, versions and rounds of what is to be done again: nobody may learn from the lost piece."""
        from coupler.learning.registry import Registry
        from coupler.learning.rounds import RoundFolder
        from coupler.learning.store import SampleStore

        registry = Registry(self.folder.models)
        for (name, operator), learned in zip(self._plan.operators.items(), since.steering.learners, strict=True):
            under_way = learned.began >= 0
            RoundFolder(self.folder.models, name).forget_from(learned.rounds + (not under_way))
            registry.forget_after(name, learned.latest)
            SampleStore(self.folder.samples, name, operator.signature).rewind(since.step, stored=learned.rounds > 0)

    def _resume(self, since: SessionMemory) -> None:
        """Stand where the run stood at the end of the checkpoint's step. Collective: yes."""
        assert self._plan.resumption is not None
        checkpoint = self._plan.resumption.checkpoint
        self._setting, self.events = since.setting, list(since.events)
        self._models = [ModelSummary(**model) for model in since.models]
        self._account.resume(since.account)
        for index, (route, known) in enumerate(zip(self.routes, since.routes, strict=True)):
            route.resume(known, on_first(self._nodes.job, partial(_accepted_in, checkpoint, index)))
        total = on_first(self._nodes.job, lambda: checkpoint.array("sum"))
        if len(total):
            total = total.copy()
            total[len(total) - WISHES :] = 0  # they have come true
            self._reduction.resume(total)
        if self._live is not None:
            self._resume_steering(self._live, since)

    def _resume_steering(self, steering: "Steering", since: SessionMemory) -> None:
        from coupler.learning.samples import COLUMNS, SampleBatch

        assert self._plan.resumption is not None
        checkpoint, service = self._plan.resumption.checkpoint, self._service

        def load() -> None:
            for index, route in enumerate(self.routes):
                for version in route.needed_versions:
                    if service is not None:
                        service.load(index, version)

        on_first(self._nodes.job, load)
        pending: list[SampleBatch | None] = [None] * len(self.routes)
        if self._nodes.first:
            pending = [
                SampleBatch(**{column: checkpoint.array(f"samples/{name}/{column}") for column in COLUMNS})
                for name in self._plan.operators
            ]
        together(self._nodes.job, lambda: steering.resume(since.steering, pending))

    def _switch_all_off(self, *, tell: bool) -> None:
        for index, route in enumerate(self.routes):
            route.off = True
            if not tell:
                continue
            self._note([Event(1, index, EventKind.SWITCHED_OFF, 0, self._plan.hopeless)])

    def _start_learning(self, started: ExitStack) -> "Steering | Following":
        # Imported here: a run of physics alone needs neither torch nor Ray.
        from coupler.coupling.following import follow
        from coupler.coupling.learner import Learner, LearnerPlan
        from coupler.coupling.services import NodeServices
        from coupler.coupling.steering import Steering
        from coupler.learning.registry import Registry

        plan = self._plan
        routes = dict(zip(plan.operators, self.routes, strict=True))
        for operator in plan.operators.values():
            rehearse(operator.signature)
        if (script := plan.script) is not None:
            on_first(self._nodes.job, lambda: script.copy_models(self.folder.models))
            return follow(script, routes, self.folder.models, started)
        services = NodeServices(plan.case, self._nodes, routes, plan.elements, self.folder.models)
        started.callback(services.close)
        self._service = services.service
        learners = [
            Learner(LearnerPlan(index, name, plan.case, self.folder), route, self._nodes, services.service)
            for index, (name, route) in enumerate(routes.items())
        ]
        self._live = Steering(plan.case, self._nodes, self.routes, learners, Registry(self.folder.models))
        return self._live

    def _start_sharing(self) -> list[Bench]:
        """Make the benches on which truth is shared, where it may be; a node that cannot have them goes without."""
        sharing, operators = self._plan.case.exchange.sharing, tuple(self._plan.operators.values())
        self._switches = [SharingSwitch(always=sharing == "on") for _ in operators]
        if sharing == "off" or (sharing == "auto" and not self._plan.learns):
            return []
        try:
            elements = tuple(self._plan.elements[name] for name in self._plan.operators)
            benches = together(self._nodes.job, lambda: open_workshop(self._nodes, operators, elements))
        except CouplerError as error:
            if sharing == "on":
                raise CouplerError(f'exchange.sharing = "on": {error} "auto" goes on without sharing.') from error
            if self._nodes.first:
                _log.warning("truth is not shared among the ranks of a node: %s", error)
            return []
        for route, bench in zip(self.routes, benches, strict=False):
            route.workshop = bench
        return benches

    def _held(self) -> tuple[StepSetting, ...]:
        """Say what held in the step that ends; to be asked before the sums of the step before move it."""
        return tuple(route.setting for route in self.routes)

    def _start_reduction(self, held: tuple[StepSetting, ...]) -> None:
        for route, bench in zip(self.routes, self._benches, strict=False):
            tally = bench.take_tally()
            route.counts.shared_elements += tally.elements
            route.counts.shared_nanoseconds += tally.nanoseconds
            route.counts.sharing_nanoseconds += tally.overhead
        self._setting = held
        self._reduction.start(*[route.counts.numbers for route in self.routes], self.wishes.numbers())
        for route in self.routes:
            route.counts.clear()

    def _check_ids(self) -> None:
        """Refuse ids that are not unique over the ranks: elements that share a coin would break the certificate."""
        everyone = self._nodes.job.gather(self._first_ids)

        def check() -> None:
            ids = np.sort(np.concatenate(everyone or []))
            twice = ids[:-1][ids[1:] == ids[:-1]]
            if len(twice):
                raise FieldMismatch(
                    f"step 1: the id {twice[0]} was given to several elements. Ids must be unique over all ranks, "
                    "because the audit coins hang on them: number the elements globally, for example "
                    "comm.rank * n + numpy.arange(n)."
                )

        on_first(self._nodes.job, check)

    def _take_in(self, step: int) -> tuple[Counts, ...]:
        """Use the reduction of a step: controllers and journal; give the counts, none if there was no such step."""
        reduced = self._reduction.finish()
        self.wishes.agree(self._step, None if reduced is None else reduced[-WISHES:])
        if reduced is None:
            return ()
        reduced = reduced[:-WISHES]
        if step <= self._step:
            self._journal.step(step)
        self._unread.append(_Unread(step, reduced.copy(), self._setting, self._stopwatch.total))
        if self._bookish or time.monotonic() - self._read_at > _READ_SECONDS:
            return self._read()
        return ()

    def _read(self) -> tuple[Counts, ...]:
        """Do the books of the steps whose sums have come; give the counts of the last one. Collective: no."""
        counts: tuple[Counts, ...] = ()
        for step, numbers, setting, seconds in self._unread:
            shapes = [route.counts.shape for route in self.routes]
            parts = np.split(numbers, np.cumsum([shape.length for shape in shapes])[:-1])
            counts = tuple(Counts(shape, part) for shape, part in zip(shapes, parts, strict=True))
            if step > self._step and not any(one.elements for one in counts):
                continue  # nothing was decided after the last end of a step
            totals = StepTotals(step, counts, setting)
            self._account.add(totals)
            if self._plan.learns:
                self._journal.count(totals, [route.loss_bound for route in self.routes])
            self._journal.note(self._account.moment(seconds).progress)
            self._switch_sharing(counts)
        self._unread.clear()
        self._read_at = time.monotonic()
        return counts

    def _switch_sharing(self, counts: tuple[Counts, ...]) -> None:
        """Share from the next step on what pays; every rank sees the same counts, so all do."""
        for switch, totals in zip(self._switches, counts, strict=True):
            switch.advance(totals)
        for switch, bench in zip(self._switches, self._benches, strict=False):
            bench.on = switch.on

    def _note(self, events: Sequence[Event]) -> None:
        """Write events down, and begin anew what hangs on the version that answers."""
        for event in events:
            self._journal.tell(event)
            self.events.append(event)
            if event.kind in TAKEOVERS:
                assert self._steering is not None
                self._switches[event.operator].renew()
                card = self._steering.card(event)
                self._models.append(
                    ModelSummary(operator=card.operator, version=card.version, step=event.step, sha256=card.sha256)
                )


def _memory_of(plan: SessionPlan) -> SessionMemory:
    if plan.learns:  # what is kept of learning is told by these classes
        from coupler.coupling import steering  # noqa: F401

    assert plan.resumption is not None
    return SessionMemory.from_plain(plan.resumption.checkpoint.facts["session"], plan.controller.rule)


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
