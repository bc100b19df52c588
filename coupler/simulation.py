"""Simulations: the loop over a kernel, with its coupling, its output and its progress."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coupler.case import Case
from coupler.checkpoint import Column, Plain
from coupler.coupling import Coupling, Resumed, guard_job
from coupler.errors import ConfigError, CouplerError, PluginError
from coupler.field import LocalField, State
from coupler.fieldsfile import FieldsFile, check_names
from coupler.grid import Grid
from coupler.kernel import Kernel, Passage, check_kernel, element_shape
from coupler.operator import Operator
from coupler.plugin import build, load
from coupler.progress import ProgressLines, event_line
from coupler.stopping import StopSignals
from coupler.summary import ConservedSum, Summary
from coupler.twin import TwinWindows, window_line

if TYPE_CHECKING:
    from mpi4py import MPI


class Simulation:
    """A case's kernel on its grid, ready to run: what a user can have got wrong is found before anything starts.

    Parameters
    ----------
    case : Case
        What to do.
    comm : MPI.Intracomm, optional
        All ranks; the world if left out.
    kernel : Kernel, optional
        The kernel as an object; the case's ``kernel.name`` if left out.
    out : Path, optional
        The run folder; the first free ``runs/KERNEL-NNN`` if left out.
    replay : Path, optional
        The folder of a finished run that this one does again, as for :class:`Coupling`.
    resume : Path, optional
        The folder of an unfinished run that this one goes on with, as for :class:`Coupling`.

    Raises
    ------
    ConfigError, PluginError
        If kernel, grid, operators or surrogate cannot be what the case asks for.

    Collective: yes.
    """

    def __init__(
        self,
        case: Case,
        *,
        comm: "MPI.Intracomm | None" = None,
        kernel: Kernel | None = None,
        out: Path | None = None,
        replay: Path | None = None,
        resume: Path | None = None,
    ) -> None:
        guard_job(comm)  # first of all: whoever is killed while a kernel is compiled leaves nothing either
        self.case = case
        self.kernel = kernel or _build_kernel(case)
        check_kernel(self.kernel)
        check_names(self.kernel.fields)
        self.grid = _build_grid(case, self.kernel, comm)
        self._lines = ProgressLines(case.run.steps)
        self._names = {id(operator): name for name, operator in self.kernel.operators.items()}
        self._ids = {
            name: self.grid.number(element_shape(operator, self.grid.ndim))
            for name, operator in self.kernel.operators.items()
        }
        self._told = 0
        self._blown_up: set[str] = set()
        self._passages: dict[str, Passage] = {}
        self._outputs: dict[str, NDArray[np.float64]] = {}
        self.coupling = Coupling(
            {name: operator.bound_to(self.kernel.fields) for name, operator in self.kernel.operators.items()},
            case=case,
            comm=comm,
            out=out,
            name=type(self.kernel).__name__.lower(),
            elements={name: len(ids) for name, ids in self._ids.items()},
            replay=replay,
            resume=resume,
        )

    def run(self) -> Summary:
        """Run all steps and write the run folder; asked to stop by SIGTERM or SIGUSR1, end early with a checkpoint.

        Returns
        -------
        Summary
            The contents of ``summary.json``, on every rank; ``status`` says whether it was the end.

        Collective: yes.
        """
        if not self.coupling.keeps_checkpoints:
            return self._run()
        with StopSignals(self.coupling.ask_to_stop):
            return self._run()

    def close(self) -> None:
        """Free the grid. Collective: yes."""
        self.grid.close()

    def _run(self) -> Summary:
        resumed = self.coupling.resumed
        with self.coupling.preparing():
            state = self.grid.state(self.kernel.fields)
            self.kernel.start(state, self.grid)
            if resumed is None:
                self._foresee(state)
            else:
                restore(state, self.grid, resumed)
        with self.coupling as coupling:
            start = self._sums(state) if resumed is None else dict(resumed.loop["mass"])
            pictures = None if resumed is None else int(resumed.loop["pictures"])
            output = FieldsFile(coupling.folder.fields, self.grid, self.kernel.fields, pictures=pictures)
            twins = TwinWindows(self.kernel, self.grid, self.case, coupling.stopwatch)
            self.grid.spans = coupling.stopwatch.spans
            saved = _Saved(state, output, twins, start)
            if resumed is None:
                self._write(output, state, 0)
                if coupling.keeps_checkpoints:
                    self._checkpoint(saved)
            else:
                self._resume(twins, resumed)
            self._loop(saved, 0 if resumed is None else resumed.step)
            coupling.stopwatch.seconds["halo"] = self.grid.exchange_seconds
            summary = coupling.finish(
                state_sha256=state_sha256(state, self.grid),
                mass={key: ConservedSum(start=start[key], end=end) for key, end in self._sums(state).items()},
                twins=twins.windows,
            )
        if self.grid.rank == 0:
            self._lines.update(coupling.progress)
        return summary

    def _loop(self, saved: "_Saved", made: int) -> None:
        """Make the steps after those that were made, until the last one or somebody asks to stop."""
        state = saved.state
        for step in range(made + 1, self.case.run.steps + 1):
            self.kernel.step(state, self.grid, self.case.run.dt, self._evaluate)
            state.time = step * self.case.run.dt
            self.coupling.end_step()
            window = saved.twins.follow(step, state)
            if window is not None and self.grid.rank == 0:
                self._lines.say(window_line(window))
            self._tell()
            if self.grid.rank == 0 and self._lines.due(step):
                self._lines.update(self.coupling.progress)
            every, last = self.case.run.output_every, step == self.case.run.steps
            if last or (every and step % every == 0):
                self._write(saved.output, state, step)
            if self.coupling.checkpoint_due and not last:
                self._checkpoint(saved)
            if self.coupling.stopping and not last:
                return

    def _checkpoint(self, saved: "_Saved") -> None:
        """Write a checkpoint of fields, twin and everything else; rank 0 holds one field at a time."""
        columns = [_column(f"fields/{name}", self.grid, local) for name, local in saved.state.items()]
        twin = saved.twins.fields
        columns += [] if twin is None else [_column(f"twin/{name}", self.grid, local) for name, local in twin.items()]
        self.coupling.save(columns, saved.facts)

    def _resume(self, twins: TwinWindows, resumed: Resumed) -> None:
        """Go on with the twin, and with what was said."""
        self._told = len(self.coupling.events)
        twin = twins.resume(resumed.loop["twins"])
        if twin is not None:
            restore(twin, self.grid, resumed, group="twin")
        if self.grid.rank == 0:
            self._lines.say(f"step {resumed.step:>5}  resumed in {self.coupling.folder.path}")

    def _tell(self) -> None:
        """Say what has happened to models and switches since the last step."""
        events = self.coupling.events
        if self.grid.rank == 0:
            for event in events[self._told :]:
                self._lines.say(event_line(event))
        self._told = len(events)

    def _evaluate(self, operator: Operator, state: State, dt: float) -> None:
        if id(operator) not in self._names:
            raise PluginError(
                f"{type(self.kernel).__name__}.step evaluates an operator that is none of the kernel's attributes "
                f"({', '.join(self._names.values())}), so it has no model and no certificate: make it an attribute in "
                "__init__, and pass that one."
            )
        name, stopwatch = self._names[id(operator)], self.coupling.stopwatch
        ids = self._ids[name]
        with stopwatch.timing("gather"):
            passage = self._passage(name, operator, state)
            inputs = passage.gather(self.coupling.inputs(ids.size, operator=name))
        outputs = self.coupling.evaluate(inputs, ids, dt, operator=name, out=self._outputs[name])
        with stopwatch.timing("scatter"):
            passage.scatter(outputs)

    def _foresee(self, state: State) -> None:
        """Show the coupling the elements of the start, for it to see whether a model could save anything."""
        for operator in self.kernel.operators.values():
            name = self._names[id(operator)]
            self.coupling.foresee(self._passage(name, operator, state).gather(), self.case.run.dt, operator=name)

    def _passage(self, name: str, operator: Operator, state: State) -> Passage:
        """Give the way between fields and rows, and see to it that there are rows for the outputs."""
        passage = self._passages.get(name)
        if passage is None or passage.state is not state:
            passage = self._passages[name] = Passage(operator, state)
            self._outputs[name] = np.empty((len(self._ids[name]), len(operator.signature.outputs)))
        return passage

    def _write(self, output: FieldsFile, state: State, step: int) -> None:
        with self.coupling.stopwatch.timing("io"):
            output.write(state, step, step * self.case.run.dt)
            self._look_for_blow_up(state, step)

    def _look_for_blow_up(self, state: State, step: int) -> None:
        """Say, once of every field, that it is not finite any more: what is computed from there on means nothing."""
        broken = [np.count_nonzero(~np.isfinite(local.interior)) for _, local in state.items()]
        everyones = self.grid.comm.allreduce(np.array(broken))
        for (name, _), count in zip(state.items(), everyones.tolist(), strict=True):
            if count and name not in self._blown_up:
                self._blown_up.add(name)
                if self.grid.rank == 0:
                    cells = f"{count:,} of {math.prod(self.grid.shape):,} cells"
                    self._lines.say(
                        f"step {step:>5}  not finite: {name} in {cells}, and what follows from it means nothing. "
                        f"Look at the fields before; a run.dt below {self.case.run.dt:g} may do."
                    )

    def _sums(self, state: State) -> dict[str, float]:
        """Every conserved sum over the whole domain, added up in global order so that ranks do not matter."""
        sums = {}
        for name, operator in self.kernel.operators.items():
            for key, weights in operator.signature.conserved.items():
                total = 0.0
                for column, weight in weights.items():
                    whole = self.grid.gather(state[column].interior)
                    total += 0.0 if whole is None else weight * float(whole.sum())
                label = key if len(self.kernel.operators) == 1 else f"{name}.{key}"
                sums[label] = self.grid.comm.bcast(total)
        return sums

    def __repr__(self) -> str:
        case = self.case
        length, surrogate = f"{case.run.steps} steps of {case.run.dt}", "no surrogate is asked"
        if case.controller.mode != "physics":
            surrogate = f"surrogate {case.surrogate.name} on {case.surrogate.device}, learning {case.learning.mode}"
        return "\n".join(
            [
                f"Simulation of {type(self.kernel).__name__}: {length}, mode {case.controller.mode}",
                f"├── {_indented(repr(self.grid))}",
                *(f"├── {name}: {operator!r}" for name, operator in self.kernel.operators.items()),
                f"└── {surrogate}",
            ]
        )


@dataclass(frozen=True, eq=False)
class _Saved:
    """What a checkpoint keeps of a simulation."""

    state: State
    output: FieldsFile
    twins: TwinWindows
    mass: dict[str, float]

    def facts(self) -> dict[str, Plain]:
        return {
            "time": self.state.time,
            "mass": self.mass,
            "pictures": self.output.pictures,
            "twins": self.twins.memory,
        }


def _column(name: str, grid: Grid, local: LocalField) -> Column:
    return Column(name, lambda: grid.gather(local.interior))


def restore(state: State, grid: Grid, resumed: Resumed, *, group: str = "fields") -> None:
    """Fill a state with the fields of a checkpoint, and its halos from the neighbours.

    Every rank reads its own block. A kernel has no state but its fields, so nothing else is needed.

    Parameters
    ----------
    state : State
        Is filled; its time as well.
    grid : Grid
        Where; the ranks may be others than those that wrote the checkpoint.
    resumed : Resumed
        The checkpoint.
    group : str
        Which fields of it.

    Raises
    ------
    CouplerError
        If the checkpoint has other fields, or fields of another grid.

    Collective: yes.
    """
    block = tuple(slice(first, last) for first, last in zip(grid.start, grid.stop, strict=True))
    for name, local in state.items():
        found = resumed.array(f"{group}/{name}", block)
        if found.shape != local.interior.shape:
            raise CouplerError(
                f'The field "{name}" of the checkpoint is not of a grid of {grid.shape} cells: the case or the kernel '
                "has changed since. Go on with those of then."
            )
        local.interior[...] = found
    state.time = float(resumed.loop["time"])
    if grid.halo:
        grid.exchange(state)


def _indented(text: str) -> str:
    return text.replace("\n", "\n│ ")


def state_sha256(state: State, grid: Grid) -> str:
    """Hash the fields in global order, one after the other as declared: the same on any number of ranks.

    The hash is SHA-256 over the bytes of every field's global array, float64, little endian, C order.

    Collective: yes.
    """
    digest = hashlib.sha256()
    for local in state.values():
        whole = grid.gather(local.interior)
        if whole is not None:
            digest.update(np.ascontiguousarray(whole, dtype="<f8").tobytes())
    return str(grid.comm.bcast(digest.hexdigest()))


def _build_kernel(case: Case) -> Kernel:
    if case.kernel.name is None:
        raise ConfigError(
            'The case names no kernel: set kernel.name, for example kernel.name = "coupler.kernels.bz:BZ".'
        )
    return build(load(case.kernel.name, Kernel), case.kernel.params, key="kernel.params")


def _build_grid(case: Case, kernel: Kernel, comm: "MPI.Intracomm | None") -> Grid:
    section, name = case.grid, type(kernel).__name__
    if section.shape is None:
        raise ConfigError("The case has no grid: set grid.shape, for example grid.shape = [64, 64].")
    if len(section.shape) not in kernel.dimensions:
        known = " or ".join(str(number) for number in kernel.dimensions)
        raise ConfigError(f"grid.shape = {section.shape} has {len(section.shape)} dimensions; {name} works in {known}.")
    periodic = section.periodic if isinstance(section.periodic, bool) else tuple(section.periodic)
    return Grid(
        tuple(section.shape),
        length=None if section.length is None else tuple(section.length),
        periodic=periodic,
        halo=kernel.halo,
        grain=kernel.grain(len(section.shape)),
        comm=comm,
    )
