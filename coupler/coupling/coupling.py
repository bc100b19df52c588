"""The coupling: the door for people who keep their own loop, mesh and MPI calls."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from mpi4py import MPI
from numpy.typing import ArrayLike, NDArray

from coupler.clock import Stopwatch
from coupler.config import Case, read_case
from coupler.controller import Controller, Limits
from coupler.coupling.account import Account, StepTotals
from coupler.coupling.counts import Counts
from coupler.coupling.journal import Journal
from coupler.coupling.nodes import Nodes, abort, on_first
from coupler.coupling.reduction import StepReduction
from coupler.coupling.route import Route
from coupler.coupling.statement import Results, statement
from coupler.errors import ConfigError, FieldMismatch, LifecycleError, PluginError, did_you_mean
from coupler.operator import Operator, Signature
from coupler.plugin import build, load
from coupler.progress import Progress
from coupler.runfolder import RunFolder, claim
from coupler.summary import ConservedSum, ModelSummary, Summary

if TYPE_CHECKING:
    from coupler.coupling.learner import Learner
    from coupler.coupling.services import NodeServices
    from coupler.learning.registry import ModelCard


class Coupling:
    """Evaluates expensive operators for this rank: by a surrogate where that is certified, by the truth elsewhere.

    Use it as a context::

        with Coupling(operator, case="case.toml", comm=comm) as coupling:
            for step in range(steps):
                y = coupling.evaluate(x, ids, dt)   # x (n, n_in), ids (n,) global, y (n, n_out)
                coupling.end_step()                 # the only collective: one non-blocking reduction

    Parameters
    ----------
    operators : Operator or mapping of name to Operator
        What is evaluated; a single one is called ``operator`` in case and files.
    case : Case, path or None
        The case; None takes every default.
    comm : MPI.Intracomm, optional
        The ranks of the run; the world if left out.
    out : Path, optional
        The run folder; the first free ``runs/NAME-NNN`` if left out.
    name : str
        What the default run folder is named after.
    elements : int, optional
        Most elements this rank asks about at once, where it knows; ``exchange.slot_elements`` if left out.

    Raises
    ------
    ConfigError, PluginError
        If the case does not fit the operators or the surrogate cannot be built. Nothing has been started then.

    Collective: yes; so are entering and leaving the context.
    """

    def __init__(
        self,
        operators: Operator | Mapping[str, Operator],
        *,
        case: Case | Path | str | None = None,
        comm: MPI.Intracomm | None = None,
        out: Path | str | None = None,
        name: str = "coupling",
        elements: int | None = None,
    ) -> None:
        self.case = case if isinstance(case, Case) else read_case(case)
        self.stopwatch = Stopwatch()
        self._comm = comm or MPI.COMM_WORLD
        self._out, self._name = None if out is None else Path(out), name
        named = {"operator": operators} if isinstance(operators, Operator) else dict(operators)
        self._operators = _with_tolerances(named, self.case)
        self._elements = min(elements or self.case.exchange.slot_elements, self.case.exchange.slot_elements)
        self._controller = _controller(self.case)
        if self._controller.asks:
            on_first(self._comm, self._check_surrogate)
        self._folder: RunFolder | None = None
        self._open = False

    def __enter__(self) -> Self:
        with self.stopwatch.timing("setup"):
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()
            return
        self._release()
        if self._comm.size > 1:
            # This rank fails alone for all it knows; the others would wait for it for ever.
            code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
            abort("".join(traceback.format_exception(error)), code)

    @property
    def folder(self) -> RunFolder:
        """The run folder, from the moment the context is entered.

        Raises
        ------
        LifecycleError
            Before that.
        """
        if self._folder is None:
            raise LifecycleError("The run folder exists only once the coupling runs: use it inside `with coupling:`.")
        return self._folder

    @property
    def progress(self) -> Progress:
        """Where the run is, as of the last reduction."""
        self._check_open()
        return self._account.progress(self.stopwatch.total)

    def inputs(self, count: int, *, operator: str | None = None) -> NDArray[np.float64]:
        """Give an array (count, n_in) to gather the next call's inputs into without a further copy.

        Collective: no.
        """
        return self._route(operator).inputs(count)

    def evaluate(
        self, inputs: ArrayLike, ids: ArrayLike, dt: float, *, operator: str | None = None
    ) -> NDArray[np.float64]:
        """Evaluate an operator on this rank's elements.

        Parameters
        ----------
        inputs : array_like (n, n_in)
            Operator inputs; n may be 0 and may differ between calls and ranks.
        ids : array_like (n,) of int
            Global ids, unique over all ranks; the audit coins hang on them.
        dt : float
            Time step.
        operator : str, optional
            Which one, where there are several.

        Returns
        -------
        ndarray (n, n_out)

        Raises
        ------
        FieldMismatch
            If the arrays do not fit the operator.
        LifecycleError
            Outside of the context.

        Collective: no. Ranks may call it at different times and on different routes.
        """
        route = self._route(operator)
        x, numbers = _checked(inputs, ids, route.operator.signature)
        y = np.empty((len(x), len(route.operator.signature.outputs)))
        record = route.evaluate(x, y, numbers, float(dt), self._step + 1, self._call)
        self._journal.record(self._routes.index(route), record)
        self._call += 1
        return y

    def end_step(self) -> None:
        """End a time step: take in the reduction of the step before, start this step's.

        Raises
        ------
        LifecycleError
            Outside of the context.

        Collective: yes; every rank once per step.
        """
        self._check_open()
        self._step += 1
        with self.stopwatch.timing("sync"):
            self._learn(self._take_in(self._step - 1))
            for learner in self._learners:
                learner.count_outcome()
            self._rates = tuple(route.audit_rate for route in self._routes)
            self._reduction.start(np.concatenate([route.take_counts().pack() for route in self._routes]))
        self._call = 0

    def finish(self, *, state_sha256: str | None = None, mass: Mapping[str, ConservedSum] | None = None) -> Summary:
        """End the run: write what is left, stop what was started, write ``summary.json``.

        Parameters
        ----------
        state_sha256 : str, optional
            Hash of the final fields, if somebody has it.
        mass : mapping, optional
            Conserved sums.

        Returns
        -------
        Summary
            The same on every rank; again the same if called again.

        Collective: yes.
        """
        if not self._open:
            return self._summary
        self._take_in(self._step)
        with self.stopwatch.timing("io"):
            self._journal.flush()
            for learner in self._learners:
                learner.flush()
        self._release()
        results = Results(
            steps=self._step,
            models=self._models,
            retrainings=sum(learner.rounds for learner in self._learners),
            state_sha256=state_sha256,
            mass=dict(mass or {}),
        )
        self._summary = statement(self.case, self._nodes.job, self.stopwatch, self._account, self._routes, results)
        if self._nodes.first:
            self._summary.write(self.folder.summary)
        self._nodes.close()
        return self._summary

    def _start(self) -> None:
        self._nodes = Nodes.of(self._comm)
        folder = on_first(self._nodes.job, lambda: claim(self._out, self._name, self.case))
        self._folder = folder
        self._routes = [
            Route(
                operator,
                self._controller,
                seed=self.case.run.seed,
                deadline=self.case.exchange.deadline,
                stopwatch=self.stopwatch,
            )
            for operator in self._operators.values()
        ]
        names = tuple(self._operators)
        self._services: NodeServices | None = None
        self._learners: list[Learner] = []
        if self._controller.asks:
            self._start_services(names)
        self._account = Account(self._routes, self._controller)
        self._journal = Journal(folder, self._nodes, names)
        self._reduction = StepReduction(self._nodes.job, Counts.LENGTH * len(names))
        self._models: list[ModelSummary] = []
        self._step = self._call = 0
        self._open = True

    def _start_services(self, names: tuple[str, ...]) -> None:
        # Imported here: a run of physics alone needs neither torch nor Ray.
        from coupler.coupling.learner import Learner, LearnerPlan
        from coupler.coupling.services import NodeServices

        routes = dict(zip(names, self._routes, strict=True))
        services = NodeServices(self.case, self._nodes, routes, self._elements, self.folder.models)
        self._services = services
        self._learners = [
            Learner(LearnerPlan(index, name, self.case, self.folder), route, self._nodes, services.service)
            for index, (name, route) in enumerate(routes.items())
        ]

    def _take_in(self, step: int) -> tuple[Counts, ...]:
        """Use the reduction of a step: controllers and journal; give the counts, none if there was no such step."""
        reduced = self._reduction.finish()
        if reduced is None:
            return ()
        counts = tuple(Counts.unpack(part) for part in np.split(reduced, len(self._routes)))
        self._account.add(StepTotals(step, counts, self._rates))
        self._journal.step(step, self.progress)
        return counts

    def _learn(self, counts: tuple[Counts, ...]) -> None:
        """Start or finish training rounds; what takes over does so from the next step on, on every rank."""
        for learner, totals in zip(self._learners, counts, strict=False):
            card = learner.end_step(self._step, totals)
            if card is not None:
                self._promote(learner.index, card)

    def _promote(self, index: int, card: "ModelCard") -> None:
        """Let a version answer from the next step on."""
        route = self._routes[index]
        assert self._services is not None
        self._services.promote(index, card)
        route.limits = Limits.of(route.operator.signature, np.array(card.range_lower), np.array(card.range_upper))
        route.state = route.controller.promoted(route.state, card.version, card.threshold)
        self._models.append(
            ModelSummary(operator=card.operator, version=card.version, step=self._step + 1, sha256=card.sha256)
        )

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._journal.close()
            if self._services is not None:
                self._services.close()

    def _check_surrogate(self) -> None:
        from coupler.surrogate import Surrogate

        section = self.case.surrogate
        plugin = load(section.name, Surrogate)
        for operator in self._operators.values():
            build(plugin, section.params, operator.signature, key="surrogate.params")

    def _route(self, operator: str | None) -> Route:
        self._check_open()
        names = list(self._operators)
        if operator is None and len(names) > 1:
            raise FieldMismatch(f"This coupling has several operators: say which, operator=\"{names[0]}\" for example.")
        if operator is not None and operator not in names:
            raise FieldMismatch(f'This coupling has no operator "{operator}".{did_you_mean(operator, names)}')
        return self._routes[0 if operator is None else names.index(operator)]

    def _check_open(self) -> None:
        if not self._open:
            raise LifecycleError("The coupling is not running: use it inside `with coupling:`.")


def _with_tolerances(operators: Mapping[str, Operator], case: Case) -> dict[str, Operator]:
    """Apply the case's [operator.NAME] sections."""
    if not operators:
        raise PluginError("A coupling needs at least one operator.")
    for name in case.operator:
        if name not in operators:
            raise ConfigError(f'[operator.{name}]: there is no operator "{name}".{did_you_mean(name, operators)}')
    return {
        name: operator.with_tolerance(atol=case.operator[name].atol, rtol=case.operator[name].rtol)
        if name in case.operator
        else operator
        for name, operator in operators.items()
    }


def _controller(case: Case) -> Controller:
    section = case.controller
    return Controller(
        mode=section.mode,
        target=section.target,
        delta=section.delta,
        cap=section.cap,
        audit_rate=section.audit_rate,
        threshold=section.threshold,
    )


def _checked(inputs: ArrayLike, ids: ArrayLike, signature: Signature) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x = np.ascontiguousarray(inputs, dtype=np.float64)
    numbers = np.ascontiguousarray(ids)
    if x.ndim != 2 or x.shape[1] != len(signature.inputs):
        raise FieldMismatch(
            f"The inputs have shape {x.shape}; the operator takes (n, {len(signature.inputs)}): "
            f"{', '.join(signature.input_names)}."
        )
    if numbers.shape != (len(x),) or not np.issubdtype(numbers.dtype, np.integer):
        raise FieldMismatch(
            f"The ids have shape {numbers.shape} and type {numbers.dtype}; there must be one whole number per element, "
            f"({len(x)},), unique over all ranks."
        )
    return x, numbers.astype(np.int64, copy=False)
