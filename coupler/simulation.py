"""Simulations: the loop over a kernel, with its coupling, its output and its progress."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coupler.config import Case
from coupler.coupling import Coupling
from coupler.errors import ConfigError, PluginError
from coupler.field import State
from coupler.fieldsfile import FieldsFile, check_names
from coupler.grid import Grid
from coupler.kernel import Kernel, Passage, check_kernel, element_shape
from coupler.operator import Operator
from coupler.plugin import build, load
from coupler.progress import ProgressLines, event_line
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
    ) -> None:
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
        )

    def run(self) -> Summary:
        """Run all steps and write the run folder.

        Returns
        -------
        Summary
            The contents of ``summary.json``, on every rank.

        Collective: yes.
        """
        with self.coupling.preparing():
            state = self.grid.state(self.kernel.fields)
            self.kernel.start(state, self.grid)
            self._foresee(state)
        with self.coupling as coupling:
            start = self._sums(state)
            output = FieldsFile(coupling.folder.fields, self.grid, self.kernel.fields)
            self._write(output, state, 0)
            twins = TwinWindows(self.kernel, self.grid, self.case, coupling.stopwatch)
            self.grid.spans = coupling.stopwatch.spans
            self._loop(state, output, twins)
            coupling.stopwatch.seconds["halo"] = self.grid.exchange_seconds
            summary = coupling.finish(
                state_sha256=state_sha256(state, self.grid),
                mass={key: ConservedSum(start=start[key], end=end) for key, end in self._sums(state).items()},
                twins=twins.windows,
            )
        if self.grid.rank == 0:
            self._lines.update(coupling.progress)
        return summary

    def close(self) -> None:
        """Free the grid. Collective: yes."""
        self.grid.close()

    def _loop(self, state: State, output: FieldsFile, twins: TwinWindows) -> None:
        for step in range(1, self.case.run.steps + 1):
            self.kernel.step(state, self.grid, self.case.run.dt, self._evaluate)
            state.time = step * self.case.run.dt
            self.coupling.end_step()
            window = twins.follow(step, state)
            if window is not None and self.grid.rank == 0:
                self._lines.say(window_line(window))
            self._tell()
            if self.grid.rank == 0 and self._lines.due(step):
                self._lines.update(self.coupling.progress)
            every = self.case.run.output_every
            if step == self.case.run.steps or (every and step % every == 0):
                self._write(output, state, step)

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
        length = f"{case.run.steps} steps of {case.run.dt}"
        return "\n".join(
            [
                f"Simulation of {type(self.kernel).__name__}: {length}, mode {case.controller.mode}",
                f"├── {_indented(repr(self.grid))}",
                *(f"├── {name}: {operator!r}" for name, operator in self.kernel.operators.items()),
                f"└── surrogate {case.surrogate.name} on {case.surrogate.device}, learning {case.learning.mode}",
            ]
        )


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
