"""Run folders as a run leaves them, written without running anything."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.field import Field
from coupler.fieldsfile import FieldsFile
from coupler.grid import Grid
from coupler.ledger import RECORD, LedgerFile
from coupler.progress import MetricsFile, Progress
from coupler.records import Decision, Reason
from coupler.summary import CertificateSummary, Decisions, ModelSummary, Seconds, Summary

FIELDS = (Field("v", unit="K"), Field("u"))
STEPS, DT = 8, 0.25
ELEMENTS = 100  # of each of two ranks in every step
FILES = ("summary.json", "fields.h5", "ledger.h5", "metrics.jsonl")

Fill = Callable[[str, float, Sequence[NDArray[np.float64]]], NDArray[np.float64]]


def spiral(name: str, time: float, places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Arms that turn; in one dimension a travelling wave. Both fields go from -1 to 1, all but exactly."""
    along = [place - 0.5 for place in places]
    angle = np.arctan2(along[-1], along[-2]) if len(along) > 1 else 6.0 * along[0]
    return np.sin(angle + 9.0 * np.sqrt(sum(place**2 for place in along)) - 6.0 * time + (name == "v"))


def off_by(distance: float) -> Fill:
    def fill(name: str, time: float, places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return spiral(name, time, places) + (distance * time if name == "u" else 0.0)

    return fill


def write_run(
    folder: Path,
    *,
    mode: str = "certified",
    fill: Fill = spiral,
    shape: tuple[int, ...] = (12, 16),
    length: tuple[float, ...] | None = None,
    fields: tuple[Field, ...] = FIELDS,
    steps: int = STEPS,
    every: int = 2,
    dt: float = DT,
    seconds: Seconds = Seconds(total=30.0, setup=10.0),  # noqa: B008 it is frozen
) -> Path:
    """Write a run folder as a run does: a model answers from the third step on and takes half of the elements."""
    folder.mkdir(parents=True)
    with Grid(shape, length=length, halo=1, comm=MPI.COMM_SELF) as grid:
        state = grid.state(fields)
        places = np.meshgrid(*(grid.centres(axis) for axis in range(grid.ndim)), indexing="ij")
        file = FieldsFile(folder / "fields.h5", grid, fields)
        for step in range(0, steps + 1, every):
            for field in fields:
                state[field.name].interior[...] = fill(field.name, step * dt, places)
            file.write(state, step, step * dt)
    asks = mode != "physics"
    _write_decisions(folder, steps, asks)
    _summary(mode, steps, seconds, asks).write(folder / "summary.json")
    return folder


def _write_decisions(folder: Path, steps: int, asks: bool) -> None:
    ledger, metrics = LedgerFile(folder / "ledger.h5", ["reaction"]), MetricsFile(folder / "metrics.jsonl")
    for step in range(1, steps + 1):
        ledger.append(np.concatenate([_record(step, rank, asks) for rank in range(2)]))
        answered = asks and step > 2
        decisions = {decision.name.lower(): 0 for decision in Decision}
        decisions |= {"accepted": 100, "fallback": 60, "vetoed": 30, "audited": 10} if answered else {"disabled": 200}
        metrics.append(
            Progress(
                step=step,
                elements=2 * ELEMENTS,
                decisions=decisions,
                loss_bound=0.1 / step if answered else math.inf,
                loss_estimate=0.01 if answered else 0.0,
                exceedance_bound=0.1,
                threshold=0.5 if answered else 0.0,
                version=int(answered),
                seconds=float(step),
            )
        )
    metrics.close()


def _record(step: int, rank: int, asks: bool) -> NDArray[np.void]:
    row = np.zeros(1, RECORD)
    row["step"], row["rank"] = step, rank
    if asks and step > 2:
        row["reasons"][0, [Reason.ACCEPTED, Reason.SCORE, Reason.NOT_FINITE, Reason.AUDIT]] = 50, 30, 15, 5
    else:
        row["reasons"][0, Reason.NO_MODEL if asks else Reason.PHYSICS] = ELEMENTS
    return row


def _summary(mode: str, steps: int, seconds: Seconds, asks: bool) -> Summary:
    elements, answered = 2 * ELEMENTS * steps, 2 * ELEMENTS * (steps - 2) if asks else 0
    return Summary(
        status="finished",
        steps=steps,
        ranks=2,
        seed=0,
        coin_seed=0,
        mode=mode,
        elements=elements,
        decisions=Decisions(
            accepted=answered // 2,
            fallback=answered * 3 // 10,
            vetoed=answered * 3 // 20,
            audited=answered // 20,
            disabled=elements - answered,
        ),
        certificate=CertificateSummary(
            delta=0.05,
            cap=2.0,
            target=0.02,
            loss_bound_per_decision=0.0125,
            loss_estimate_per_decision=0.01,
            exceedance_bound=0.1,
            audits=answered // 20,
            loss_bound_per_accepted=0.02,
            exceedance_estimate=0.05,
            sentence="At most 0.0125 per decision.",
        ),
        seconds=seconds,
        truth_seconds_per_element=1e-5,
        surrogate_seconds_per_element=1e-6,
        speedup_estimate=2.0,
        models=[ModelSummary(operator="reaction", version=1, step=3, sha256="0" * 64)] if asks else [],
    )
