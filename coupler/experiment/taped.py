"""A run on a tape: the whole coupling, with recorded truth in the place of the solver."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupler.case import Case
from coupler.coupling import Coupling
from coupler.errors import ConfigError, CouplerError
from coupler.operator import Operator
from coupler.summary import Summary
from coupler.tape import Tape, TapeCall

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TapedRun:
    """What a case made of a tape.

    Parameters
    ----------
    summary : Summary
        Of the run; its seconds are not those of a solver.
    true_loss : float
        Mean capped error per decision, of all that was accepted: the tape knows it.
    """

    summary: Summary
    true_loss: float


class RecordedTruth:
    """The truth of one recorded call at a time, found by the inputs, bit for bit.

    Parameters
    ----------
    shape : tuple of int
        Of one element's outputs.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._rows: dict[bytes, int] = {}
        self._truth: Floats = np.empty((0, 0))

    def hold(self, call: TapeCall) -> None:
        """Answer for the elements of this call from now on."""
        self._rows = {row.tobytes(): place for place, row in enumerate(np.ascontiguousarray(call.inputs))}
        self._truth = call.truth

    def __call__(self, inputs: Floats, dt: float) -> Floats:
        """Give the truth of some of the call's elements (n, ...)."""
        flat = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
        places = [self._rows[row.tobytes()] for row in flat]
        return self._truth[places].reshape(len(inputs), *self._shape)


def run_on_tape(tape: Tape, case: Case, out: Path) -> TapedRun:
    """Run a case on recorded truth: gate, coins, certificate, learning and trials as in a run, nothing solved.

    The stream does not notice what is accepted (open loop): its elements are those of a run by physics.

    Parameters
    ----------
    tape : Tape
        What is played; every recorded step of it.
    case : Case
        With ``learning.mode`` deterministic: a tape goes by much faster than a run, and a version that takes over by
        the clock would come too late.
    out : Path
        The run folder.

    Returns
    -------
    TapedRun

    Raises
    ------
    ConfigError
        If the case learns by the clock, or names an operator that the tape is not of.

    Collective: no; this process is the only rank.
    """
    if case.learning.mode == "asynchronous":
        raise ConfigError(
            "A tape goes by faster than a run, so what hangs on a clock comes out otherwise than in a run: set "
            '"learning.mode" = "deterministic" and "learning.lag" to the steps that a training may take.'
        )
    if unknown := set(case.operator) - {tape.operator}:
        raise ConfigError(f'The case has [operator.{min(unknown)}], and the tape is of "{tape.operator}".')
    signature, tile = tape.signature, tape.signature.tiled
    truth = RecordedTruth((len(signature.outputs),) if tile is None else tile.output_shape)
    operator = Operator(
        truth,
        inputs=signature.input_fields,
        outputs=signature.output_fields,
        atol=signature.field_atol,
        rtol=signature.field_rtol,
        conserved=signature.conserved,
        tile=None if tile is None else tile.tile,
    )
    lost = 0.0
    with Coupling({tape.operator: operator}, case=case, out=out) as coupling:
        for calls in _steps(tape):
            for call in calls:
                truth.hold(call)
                given = coupling.evaluate(call.inputs, call.ids, call.dt)
                error = signature.error(given, call.truth) / case.controller.cap
                lost += float(np.minimum(error, 1.0).sum())
            coupling.end_step()
        summary = coupling.finish()
    if not summary.elements:
        raise CouplerError(f"The tape in {tape.folder} has no element, so there is nothing to learn from it.")
    return TapedRun(summary, lost / summary.elements)


def _steps(tape: Tape) -> Iterator[Iterator[TapeCall]]:
    for _, calls in groupby(tape, key=lambda call: call.step):
        yield calls
