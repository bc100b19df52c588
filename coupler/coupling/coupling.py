"""The coupling: the door for people who keep their own loop, mesh and MPI calls."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from mpi4py import MPI
from numpy.typing import ArrayLike, NDArray

from coupler.atomic import storage_failure
from coupler.case import Case
from coupler.checkpoint import Column, Plain
from coupler.clock import Stopwatch
from coupler.config import read_case
from coupler.controller.boxes import check_boxes
from coupler.coupling.arguments import check_out, checked_ids, checked_inputs
from coupler.coupling.effective import controller_of, with_audit_rate, with_tolerances
from coupler.coupling.foresight import Foresight
from coupler.coupling.inheritance import Inheritance
from coupler.coupling.nodes import abort, guard_job, on_first
from coupler.coupling.plan import SessionPlan
from coupler.coupling.resumed import Resumed, Rows
from coupler.coupling.resumption import Resumption
from coupler.coupling.script import Script
from coupler.coupling.session import Session
from coupler.errors import FAILED, USER_MISTAKE, ConfigError, CouplerError, FieldMismatch, LifecycleError, did_you_mean
from coupler.operator import Operator
from coupler.plugin import build, load
from coupler.progress import Progress
from coupler.records import Event
from coupler.runfolder import RunFolder
from coupler.summary import STOPPED, ConservedSum, Summary, TwinWindow

# Room for so many elements where nobody says how many there will be.
_FIRST_ELEMENTS = 4096


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
    elements : int or mapping of operator name to int, optional
        Most elements this rank asks about at once, where it knows. The place for them grows with what is asked,
        up to ``exchange.slot_elements``.
    replay : Path, optional
        The folder of a finished run that this one does again, without training and without anything that hangs on a
        clock; the case is that run's. :func:`coupler.replay.compare` says whether it came out bitwise the same.

    resume : Path, optional
        The folder of an unfinished run to go on with, on any number of ranks; ``case``, if given, may differ from that
        run's in what is not computed with. :attr:`resumed` has what the loop needs.

    Raises
    ------
    ConfigError, PluginError
        If the case does not fit the operators or the surrogate cannot be built, or the run cannot go on. Nothing has
        been started then.

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
        elements: int | Mapping[str, int] | None = None,
        replay: Path | str | None = None,
        resume: Path | str | None = None,
    ) -> None:
        self._comm = comm or MPI.COMM_WORLD
        guard_job(self._comm)
        script = None if replay is None else on_first(self._comm, lambda: Script.read(replay))
        resumption = None if resume is None else self._open(resume, case, out=out, script=script)
        if resumption is not None:
            self.case = resumption.case
        else:
            self.case = script.case if script is not None else case if isinstance(case, Case) else read_case(case)
        self.stopwatch = Stopwatch()
        named = {"operator": operators} if isinstance(operators, Operator) else dict(operators)
        expected = elements if isinstance(elements, Mapping) else dict.fromkeys(named, elements)
        self.case = with_audit_rate(self.case, self._comm.allreduce(sum(count or 0 for count in expected.values())))
        check_boxes([shown.signature for shown in named.values()], self.case.controller.box)
        most = self.case.exchange.slot_elements
        self._plan = SessionPlan(
            case=self.case,
            operators=with_tolerances(named, self.case),
            controller=controller_of(self.case),
            out=None if out is None else Path(out),
            name=name,
            elements={name: min(_FIRST_ELEMENTS if count is None else count, most) for name, count in expected.items()},
            script=script,
            resumption=resumption,
        )
        self.resumed = None if resumption is None else Resumed(resumption.checkpoint)
        self._stop_asked = False
        if resumption is not None:
            resumption.check_operators(self._plan.operators)
        if script is not None:
            script.check_operators(tuple(named))
        if self._plan.controller.asks:
            with self.stopwatch.timing("setup"):
                on_first(self._comm, self._check_surrogate)
                self._plan = replace(self._plan, inheritance=self._inherit())
        self._session: Session | None = None
        self._summary: Summary | None = None
        self._indices = {name: index for index, name in enumerate(named)}
        self._foresight = Foresight(self.case, self._plan.operators)

    def __enter__(self) -> Self:
        if self._session is not None:
            raise LifecycleError("A coupling is one run and was started before: make another for another run.")
        with self.stopwatch.timing("setup"):
            plan = replace(self._plan, hopeless=self._hopeless())
            self._session = Session(plan, self._comm, self.stopwatch)
        if self._stop_asked:
            self.ask_to_stop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
            return
        try:
            self.finish()
        except BaseException as late:
            self._fail(late)
            raise

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Do what comes before the run: if it fails on one rank all ranks end, as inside of the coupling's context.

        Collective: no, but what fails ends all.
        """
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise

    def foresee(self, inputs: ArrayLike, dt: float, *, operator: str | None = None) -> None:
        """Show elements like those to come, before the context is entered.

        If their truth costs less than asking, on every rank and for every operator, nothing is started for a model
        that could save nothing; where ranks and server share the cores, asking includes the model's own work.
        ``controller.economics = "off"`` starts it all the same.

        Parameters
        ----------
        inputs : array_like (n, n_in)
            Operator inputs; n may be 0.
        dt : float
            Time step.
        operator : str, optional
            Which one, where there are several.

        Raises
        ------
        FieldMismatch
            If the inputs do not fit the operator.

        Collective: no.
        """
        name = list(self._plan.operators)[self._index(operator)]
        shown = self._plan.operators[name]
        x = checked_inputs(inputs, shown.signature)
        if self._economical:
            with self.stopwatch.timing("setup"):
                self._foresight.show(name, x, float(dt))

    @property
    def folder(self) -> RunFolder:
        """The run folder, from the moment the context is entered."""
        return self._started.folder

    @property
    def progress(self) -> Progress:
        """Where the run is, as of the last reduction."""
        return self._started.progress

    @property
    def events(self) -> Sequence[Event]:
        """What has happened to models and switches so far, the same on every rank."""
        return self._started.events

    def inputs(self, count: int, *, operator: str | None = None) -> NDArray[np.float64]:
        """Give an array (count, n_in) to gather the next call's inputs into without a further copy.

        It is where the model reads them, if there is one; the same memory is given again for the next call.

        Parameters
        ----------
        count : int
            Elements of the next call; any number.
        operator : str, optional
            Which one, where there are several.

        Raises
        ------
        FieldMismatch
            If there is no such operator.
        LifecycleError
            Outside of the context.

        Collective: no.
        """
        return self._running.routes[self._index(operator)].inputs(count)

    def evaluate(
        self,
        inputs: ArrayLike,
        ids: ArrayLike,
        dt: float,
        *,
        operator: str | None = None,
        out: NDArray[np.float64] | None = None,
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
        out : ndarray (n, n_out), optional
            Where the result goes; must not overlap the inputs. A new array if left out; with one of your own, and
            inputs in :meth:`inputs`, a call allocates nothing.

        Returns
        -------
        ndarray (n, n_out)
            ``out``, if given.

        Raises
        ------
        FieldMismatch
            If the arrays do not fit the operator.
        LifecycleError
            Outside of the context.

        Collective: no. Ranks may call it at different times and on different routes.
        """
        session, index = self._running, self._index(operator)
        signature = session.routes[index].operator.signature
        x = checked_inputs(inputs, signature)
        numbers = checked_ids(ids, len(x))
        if out is not None:
            check_out(out, x, signature)
        return session.evaluate(index, x, numbers, float(dt), out)

    def truth(self, inputs: ArrayLike, dt: float, *, operator: str | None = None) -> NDArray[np.float64]:
        """Compute the truth of some elements beside the run, as for a twin of its state that goes by physics alone.

        Nothing of it is counted: no decision, no coin, no sample, no record, and the seconds go to ``twin``. What
        :meth:`inputs` gave is left alone.

        Parameters
        ----------
        inputs : array_like (n, n_in)
            Operator inputs, any number of elements.
        dt : float
            Time step.
        operator : str, optional
            Which one, where there are several.

        Returns
        -------
        ndarray (n, n_out)
            A new array, bitwise what :meth:`evaluate` gives where it computes the truth.

        Raises
        ------
        FieldMismatch
            If the inputs do not fit the operator.
        LifecycleError
            Outside of the context.

        Collective: no.
        """
        asked = self._running.routes[self._index(operator)].operator
        x = checked_inputs(inputs, asked.signature)
        with self.stopwatch.timing("twin"):
            return np.array(asked.evaluate_truth(x, float(dt)))

    def end_step(self) -> None:
        """End a time step: take in the reduction of the step before, start this step's.

        At the first, second, fourth, eighth step and so on the ids of all ranks are compared as well.

        Raises
        ------
        FieldMismatch
            If elements of several ranks share an id, on every rank.
        LifecycleError
            Outside of the context.

        Collective: yes; every rank once per step.
        """
        self._running.end_step()

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether this run writes checkpoints."""
        return self._plan.checkpointed.checkpoints > 0

    @property
    def checkpoint_due(self) -> bool:
        """Whether a checkpoint is to be written now, after an ``end_step``; the same on every rank."""
        return self._running.wishes.checkpoint

    @property
    def stopping(self) -> bool:
        """Whether the run is to end now, after an ``end_step`` and the checkpoint; the same on every rank."""
        return self._running.wishes.stop

    @property
    def stopped(self) -> bool:
        """Whether the run has ended early, as asked, with a checkpoint: it can be resumed."""
        return self._summary is not None and self._summary.status == STOPPED

    def ask_to_stop(self) -> None:
        """Ask all ranks to end the run after a step or two, with a checkpoint.

        One rank is enough; may be called at any time, from a signal handler too.

        Collective: no.
        """
        self._stop_asked = True
        if self._session is not None:
            self._session.wishes.ask_to_stop()

    def checkpoint(
        self,
        arrays: Mapping[str, NDArray[Any]],
        ids: NDArray[np.int64],
        *,
        numbers: Mapping[str, float | int | str] | None = None,
    ) -> None:
        """Write a checkpoint of the loop and of everything the coupling knows, at the end of a step.

        Parameters
        ----------
        arrays : mapping of str to ndarray (n, ...)
            What this rank's elements are to be found with again; the same names on every rank.
        ids : ndarray (n,) of int64
            Global ids of the rows, unique over all ranks, as for :meth:`evaluate`.
        numbers : mapping, optional
            What is the same on every rank, such as the time.

        Raises
        ------
        LifecycleError
            Outside of the context.

        Collective: yes.
        """
        rows = Rows(self._comm, ids)
        columns = [Column("rows/ids", rows.ids)]
        columns += [Column(f"rows/{name}", partial(rows.gather, array)) for name, array in arrays.items()]
        self.save(columns, lambda: {"numbers": dict(numbers or {})})

    def save(self, columns: Sequence[Column], loop: Callable[[], Mapping[str, Plain]]) -> None:
        """Write a checkpoint with arrays of any shape, for loops that bring their own gathering.

        Parameters
        ----------
        columns : sequence of Column
            The same on every rank, in the same order.
        loop : callable
            Gives what else there is to keep, as plain data; called on rank 0.

        Raises
        ------
        LifecycleError
            Outside of the context.

        Collective: yes.
        """
        self._running.checkpoint(columns, loop)

    def finish(
        self,
        *,
        state_sha256: str | None = None,
        mass: Mapping[str, ConservedSum] | None = None,
        twins: Sequence[TwinWindow] = (),
    ) -> Summary:
        """End the run: write what is left, stop what was started, write ``summary.json``.

        Parameters
        ----------
        state_sha256 : str, optional
            Hash of the final fields, if somebody has it.
        mass : mapping, optional
            Conserved sums.
        twins : sequence of TwinWindow
            What was run twice, if somebody did.

        Returns
        -------
        Summary
            The same on every rank; again the same if called again.

        Collective: yes.
        """
        if self._summary is None:
            session = self._running
            results = replace(session.results(), state_sha256=state_sha256, mass=dict(mass or {}), twins=twins)
            self._summary = session.finish(results)
        return self._summary

    def _open(
        self, resume: Path | str, case: Case | Path | str | None, *, out: object, script: Script | None
    ) -> Resumption:
        if out is not None or script is not None:
            raise ConfigError("A run is resumed in its own folder: leave out= and replay= out beside resume=.")
        wanted = case if case is None or isinstance(case, Case) else read_case(case)
        return on_first(self._comm, lambda: Resumption.open(resume, wanted))

    def _check_surrogate(self) -> None:
        from coupler.surrogate import Surrogate

        section = self.case.surrogate
        plugin = load(section.name, Surrogate)
        for operator in self._plan.operators.values():
            build(plugin, section.params, operator.signature, key="surrogate.params")

    def _inherit(self) -> Inheritance | None:
        """Find what the run begins with; one that goes on, or does another again, has its models. Collective: yes."""
        start = self.case.learning.start
        if start is None or self._plan.script is not None or self._plan.resumption is not None:
            return None
        signatures = {name: operator.signature for name, operator in self._plan.operators.items()}
        return on_first(self._comm, lambda: Inheritance.read(Path(start), signatures))

    @property
    def _economical(self) -> bool:
        if self._plan.script is not None or self._plan.resumption is not None:  # they say what was found then
            return False
        return self.case.economical

    def _hopeless(self) -> str:
        """Say why no model could save time, on all ranks alike; nothing if one could, or nobody knows."""
        if self._plan.script is not None:
            return self._plan.script.hopeless
        if self._plan.resumption is not None:
            return str(self._plan.resumption.checkpoint.facts["hopeless"])
        return self._foresight.hopeless(self._comm) if self._economical else ""

    @property
    def _started(self) -> Session:
        if self._session is None:
            raise LifecycleError("The coupling has not been started: use it inside `with coupling:`.")
        return self._session

    @property
    def _running(self) -> Session:
        if self._summary is not None:
            raise LifecycleError("The coupling's run has ended: evaluate and end_step belong inside `with coupling:`.")
        return self._started

    def _fail(self, error: BaseException) -> None:
        """Stop what was started; with several ranks, end all: for all this one knows it fails alone.

        They end at once: a rank that stopped the server first would have the others name that as the reason. What is
        left the reaper removes, as after a kill.
        """
        if self._comm.size > 1:
            abort(_last_words(error), _exit_code(error))
        if self._session is not None:
            self._session.release()

    def _index(self, operator: str | None) -> int:
        indices = self._indices
        if operator is None and len(indices) > 1:
            raise FieldMismatch(
                f'This coupling has several operators: say which, for example operator="{next(iter(indices))}".'
            )
        if operator is not None and operator not in indices:
            raise FieldMismatch(f'This coupling has no operator "{operator}".{did_you_mean(operator, indices)}')
        return 0 if operator is None else indices[operator]


def _last_words(error: BaseException) -> str:
    """Say why a rank ends: a sentence for a user's mistake, where it happened for ours."""
    if isinstance(error, CouplerError):
        return f"coupler: {error}"
    if said := storage_failure(error):
        return f"coupler: {said}"
    if isinstance(error, SystemExit):
        return _word_of_exit(error)
    return "".join(traceback.format_exception(error))


def _word_of_exit(error: SystemExit) -> str:
    """Say that a rank has left the run as if it were over; whoever leaves with a code has said why."""
    if isinstance(error.code, str):
        return error.code
    if error.code:
        return ""
    return (
        "coupler: sys.exit was called on one rank while the run was going on, so it ends on all of them, unfinished: "
        "let kernels raise an exception, and loops finish their steps."
    )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, CouplerError) or storage_failure(error):
        return USER_MISTAKE
    # Nothing and 0 would say that the run has come to its end.
    return (error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else FAILED) or FAILED
