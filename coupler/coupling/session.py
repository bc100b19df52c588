"""A running session: everything that exists between the start and the end of a coupled run on this rank."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.checkpoint import Column, Plain
from coupler.clock import Stopwatch
from coupler.controller import MOST_CALLS
from coupler.controller.boxes import Boxes
from coupler.coupling.account import Account
from coupler.coupling.books import Books
from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.families import Families
from coupler.coupling.journal import Journal
from coupler.coupling.keeper import Keeper, forget_future, memory_of
from coupler.coupling.memory import Standing
from coupler.coupling.nodes import Nodes, on_first
from coupler.coupling.plan import SessionPlan
from coupler.coupling.recorder import TapeRecorder
from coupler.coupling.reduction import StepReduction
from coupler.coupling.rehearsal import rehearse
from coupler.coupling.route import Route
from coupler.coupling.sharing import Sharing
from coupler.coupling.statement import Results, statement
from coupler.coupling.timelines import open_timeline
from coupler.coupling.uniqueness import IdWatch
from coupler.coupling.wishes import NUMBERS as WISHES
from coupler.coupling.wishes import Wishes
from coupler.errors import CouplerError
from coupler.operator import Operator
from coupler.progress import Progress
from coupler.records import TAKEOVERS, Event, EventKind, count_restarts
from coupler.runfolder import RunFolder, claim
from coupler.summary import FINISHED, STOPPED, ModelSummary, Summary
from coupler.tape import TapeCall
from coupler.timeline import Timeline, write_trace
from coupler.tracking import Start, Teller, open_trackers

if TYPE_CHECKING:
    from coupler.coupling.following import Following
    from coupler.coupling.steering import Steering
    from coupler.learning.registry import ModelCard, Registry
    from coupler.serving.supervision import Supervision

_log = logging.getLogger("coupler.session")


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
        since = None if plan.resumption is None else memory_of(plan)
        self._step = 0 if since is None else since.moment.step
        self._kept = -1
        self._call = 0
        self._step_began = 0.0
        self._models: list[ModelSummary] = []
        self.events: list[Event] = []
        self._restarts = 0
        self._setting: tuple[StepSetting, ...] = ()
        self.routes = [self._route(operator) for operator in plan.operators.values()]
        families = Families(
            plan.controller.certificate,
            dict(zip(plan.operators, self.routes, strict=True)),
            outputs=plan.case.controller.certify_outputs,
        )
        self._account = Account(self.routes, plan.controller, families)
        with ExitStack() as started:
            self._nodes = Nodes.of(comm)
            self._ids = IdWatch(self._nodes.job, self._step)
            self.folder = self._claim()
            failed_lock = started.enter_context(ExitStack())
            failed_lock.callback(self.folder.release)
            failed = started.enter_context(ExitStack())
            if self._nodes.first and since is None:
                failed.callback(self.folder.abandon)
            self.wishes = Wishes(plan.checkpointed, first=self._nodes.first)
            self._sharing = Sharing(plan, self._nodes, self.routes)
            self._journal = Journal(
                self.folder, self._nodes, tuple(plan.operators), None if since is None else since.journal
            )
            started.callback(self._journal.close)
            telling = started.enter_context(ExitStack())
            self._journal.tellers = self._start_tellers(telling)
            if plan.case.output.ledger == "audits":
                self._journal.watch(self.routes)
            self._timeline: Timeline | None = None
            if plan.case.trace.on:
                self._timeline = open_timeline(self._nodes, self.folder, stopwatch, spans=plan.case.trace.spans)
                started.callback(self._timeline.close)
                self._journal.spans = self._timeline
            self._supervision: Supervision | None = None
            self._live: Steering | None = None  # as long as nobody else says what happens
            self._steering: Steering | Following | None = None
            if plan.learns:
                if since is not None:
                    on_first(self._nodes.job, lambda: forget_future(self.folder, plan.operators, since))
                self._steering = self._start_learning(started)
                if since is None:
                    self._note(self._steering.begin())
            if plan.hopeless:
                self._switch_all_off(tell=since is None)
            taped = plan.case.output.tape
            self._recorder = TapeRecorder(self.folder, self._nodes, plan.operators, plan.case) if taped else None
            self._step_began = time.perf_counter()
            self._books = Books(self._account, self._journal, self._sharing, self.routes, counted=plan.learns)
            length = sum(route.counts.shape.length for route in self.routes)
            self._reduction = StepReduction(self._nodes.job, length + WISHES)
            self._keeper = Keeper(plan, self._nodes, self.folder, self._account, self._reduction, self._live)
            if since is not None:
                self._setting, self.events = since.moment.setting, list(since.moment.events)
                self._restarts = count_restarts(self.events)
                self._models = [ModelSummary(**model) for model in since.moment.models]
                self._keeper.resume(since, self._supervision)
            failed.pop_all()
            failed_lock.pop_all()
            # Told of the end as well, when all else has been stopped.
            self._telling = telling.pop_all()
            self._started = started.pop_all()

    @property
    def progress(self) -> Progress:
        """Where the run is, as of the last reduction."""
        self._close_books()
        return self._account.moment(self._stopwatch.total, self._restarts).progress()

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
        self._ids.look(ids)
        route = self.routes[index]
        outputs = np.empty((len(inputs), len(route.operator.signature.outputs))) if out is None else out
        bench = self._sharing.bench(index)
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
        self._finish_step()
        if self._timeline is not None:
            began, self._step_began = self._step_began, time.perf_counter()
            self._timeline.end_step(self._step, began, self._step_began)

    def _finish_step(self) -> None:
        self._call = 0
        held = self._held()
        self._ids.end_step(self._step)
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
            self._close_books()
            if self._recorder is not None:
                self._recorder.save()
            models = tuple(model.model_dump() for model in self._models)
            moment = Standing(self._step, self._setting, tuple(self.events), models)
            self._keeper.write(moment, self._journal.save(), columns, loop)
        self.wishes.done(time.monotonic() - started)
        self._kept = self._step

    def finish(self, results: Results) -> Summary:
        """Write what is left, stop everything, write the summary. Collective: yes."""
        held = self._held()
        self._take_in(self._step)
        # Decisions made since the last end of a step count as well.
        self._start_reduction(held)
        self._take_in(self._step + 1)
        self._close_books()
        if self._steering is not None:
            results = replace(results, events=[*results.events, *self._last_events()])
        seconds = self._stopwatch.seconds
        results = replace(results, loop_seconds=self._stopwatch.total - seconds["setup"] - seconds["twin"])
        with self._stopwatch.timing("io"):
            self._journal.flush()
            if self._steering is not None:
                self._steering.finish()
                if results.status == FINISHED:  # what goes on has its samples in a checkpoint
                    self._steering.flush()
            if self._recorder is not None:
                self._recorder.finish()
        self._started.close()
        routes = dict(zip(self._plan.operators, self.routes, strict=True))
        summary = statement(self._plan, self._nodes.job, self._stopwatch, self._account, routes, results)
        if self._nodes.first:
            summary.write(self.folder.summary)
            for teller in self._journal.tellers:
                teller.end(summary)
            if self._timeline is not None:
                write_trace(self.folder.path)
            if results.status == FINISHED:
                shutil.rmtree(self.folder.checkpoints, ignore_errors=True)  # nobody goes on from here
            self.folder.release(finished=results.status == FINISHED)
        self._telling.close()
        self._nodes.close()
        return summary

    def _last_events(self) -> list[Event]:
        """Note what happened since the last step; it is said of the step that would have come next."""
        assert self._steering is not None
        events = self._steering.last_events(self._step)
        self._note(events)
        return events

    def results(self) -> Results:
        """Give what the session knows of itself for the summary; the loop adds what it knows."""
        return Results(
            steps=self._step,
            models=self._models,
            retrainings=0 if self._steering is None else self._steering.rounds,
            events=self.events,
            loop_seconds=0.0,
            lending_seconds=self._sharing.lending_seconds,
            status=STOPPED if self.wishes.stop and self._kept == self._step else FINISHED,
        )

    def release(self) -> None:
        """Stop everything that was started, without talking to other ranks. Collective: no."""
        self._started.close()
        self._telling.close()
        self.folder.release()

    def _route(self, operator: Operator) -> Route:
        case = self._plan.case
        deterministic = case.learning.mode == "deterministic"
        return Route(
            operator,
            self._plan.controller,
            seed=self._plan.coin_seed,
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

    def _start_tellers(self, telling: ExitStack) -> list[Teller]:
        """Begin to tell, on rank 0, whoever the case wants to be told; a failure is one on every rank."""
        plan, tellers = self._plan, list[Teller]()

        def begin() -> None:
            start = Start(self.folder.path, plan.name, plan.case, tuple(plan.operators))
            for tracker in open_trackers(plan.case):
                tellers.append(Teller(tracker, start))
                telling.callback(tellers[-1].close)

        on_first(self._nodes.job, begin)
        return tellers

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
        from coupler.coupling.upkeep import Upkeep
        from coupler.learning.registry import Registry

        plan = self._plan
        routes = dict(zip(plan.operators, self.routes, strict=True))
        for operator in plan.operators.values():
            rehearse(operator.signature)
        if (script := plan.script) is not None:
            on_first(self._nodes.job, lambda: script.copy_models(self.folder.models))
            return follow(script, routes, self.folder.models, started)
        registry = Registry(self.folder.models)
        inherited = self._inherit(registry)
        versions = {name: card.version for name, card in inherited.items()}
        services = NodeServices(plan.case, self._nodes, routes, plan.elements, self.folder.models, versions)
        started.callback(services.close)
        self._supervision = services.supervision
        learners = [
            Learner(LearnerPlan(index, name, plan.case, self.folder), route, self._nodes, services.supervision)
            for index, (name, route) in enumerate(routes.items())
        ]
        upkeep = Upkeep(self._nodes.job, self.routes, services.supervision)
        self._live = Steering(plan.case, self._nodes, self.routes, learners, registry, upkeep)
        self._live.inherit([inherited.get(name) for name in routes])
        return self._live

    def _inherit(self, registry: "Registry") -> "Mapping[str, ModelCard]":
        """Copy the models that the run begins with; give their cards by operator. Collective: yes."""
        inheritance = self._plan.inheritance
        return {} if inheritance is None else on_first(self._nodes.job, lambda: inheritance.copy_models(registry))

    @property
    def _eventful(self) -> bool:
        """Whether something hangs on the sums of every step; where no model can ever take over nothing does."""
        return bool(self._sharing.benches) or (self._steering is not None and self._steering.active)

    def _held(self) -> tuple[StepSetting, ...]:
        """Say what held in the step that ends; to be asked before the sums of the step before move it."""
        return tuple(route.setting for route in self.routes)

    def _start_reduction(self, held: tuple[StepSetting, ...]) -> None:
        self._sharing.count(self.routes)
        self._setting = held
        self._reduction.start(*[route.counts.numbers for route in self.routes], self.wishes.numbers())
        for route in self.routes:
            route.counts.clear()

    def _take_in(self, step: int) -> tuple[Counts, ...]:
        """Use the reduction of a step: controllers and journal; give the counts, none if there was no such step."""
        reduced = self._reduction.finish()
        self.wishes.agree(self._step, None if reduced is None else reduced[-WISHES:])
        if reduced is None:
            return ()
        reduced = reduced[:-WISHES]
        if step <= self._step:
            self._journal.step(step)
        self._books.enter(step, reduced, self._setting, self._stopwatch.total)
        return self._close_books() if self._eventful or self._books.due else ()

    def _close_books(self) -> tuple[Counts, ...]:
        """Do the books of the steps whose sums have come; give the counts of the last one. Collective: no."""
        return self._books.close(self._step, self._restarts)

    def _note(self, events: Sequence[Event]) -> None:
        """Write events down, and begin anew what hangs on the version that answers."""
        for event in events:
            self._journal.tell(event)
            self.events.append(event)
            self._restarts += count_restarts([event])
            if event.kind in TAKEOVERS:
                assert self._steering is not None
                self._sharing.renew(event.operator)
                card = self._steering.card(event)
                self._models.append(
                    ModelSummary(operator=card.operator, version=card.version, step=event.step, sha256=card.sha256)
                )
