"""From a tape to a stream: a model is trained on the first steps of a recorded run and asked about all of them."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coupler.controller import HeldOut
from coupler.errors import CouplerError
from coupler.learning.answers import answers
from coupler.learning.registry import ModelCard, Registry
from coupler.learning.store import SampleStore
from coupler.learning.trainer import TrainingTask, train
from coupler.redraw import ErrorStream, stream_from_arrays
from coupler.surrogate import Surrogate
from coupler.tape import Tape, TapeCall


@dataclass(frozen=True, eq=False)
class Taught:
    """What a model makes of a tape; its parts are what :func:`coupler.playback.play` takes.

    Parameters
    ----------
    stream : ErrorStream
        Its errors and scores on all steps of the tape, those it was trained on included; with inputs.
    shadow : int
        Recorded steps that it was trained on: the shadow phase.
    held_out : HeldOut
        Elements of the shadow phase that it was judged on, and not trained on.
    card : ModelCard
        Of the model: its threshold, the range it was trained in.
    """

    stream: ErrorStream
    shadow: int
    held_out: HeldOut
    card: ModelCard


def teach(
    tape: Tape,
    surrogate: str,
    *,
    until: int,
    params: Mapping[str, Any] | None = None,
    most: int = 60_000,
    seed: int = 0,
    cap: float = 2.0,
    target: float = 0.02,
) -> Taught:
    """Train a surrogate on the first steps of a tape, by the trainer of a run, and measure it on all of them.

    Parameters
    ----------
    tape : Tape
        Recorded truth of an operator.
    surrogate, params : str, mapping
        Plug-in name of the surrogate, and its keyword arguments.
    until : int
        Last time step whose truth it learns from.
    most : int
        Most samples to learn from and to be judged on.
    seed : int
        Of the training; epochs are fixed, so the same seed gives the same weights.
    cap, target : float
        As the controller has them: the model's first threshold follows from them.

    Returns
    -------
    Taught

    Raises
    ------
    CouplerError
        If the tape has no call up to ``until``, or too few samples to train and to judge a model.

    Collective: no. Sets torch's threads, as a trainer does.
    """
    samples = tape.samples(until=until, most=most)
    if not len(samples):
        raise CouplerError(
            f'The tape of "{tape.operator}" in {tape.folder} has no sample up to step {until}, so there is nothing to '
            f"train on: its first call is of step {tape.steps[0] if len(tape) else 'none at all'}. Set until later."
        )
    with tempfile.TemporaryDirectory(prefix="coupler-taught-") as folder:
        SampleStore(Path(folder) / "samples", tape.operator, tape.signature).append(samples)
        outcome = train(
            TrainingTask(
                operator=tape.operator, surrogate=surrogate, params=dict(params or {}),
                signature=tape.signature.to_json(), samples=f"{folder}/samples", models=f"{folder}/models",
                capacity=most, seed=seed, seconds=None, cap=cap, target=target, step=until, incumbent=None,
            )
        )  # fmt: skip
        if outcome.candidate is None:
            raise CouplerError(f'The tape of "{tape.operator}" up to step {until} gives no model: {outcome.sentence}.')
        registry = Registry(Path(folder) / "models")
        model, known = registry.load(outcome.candidate), registry.introduction(outcome.candidate)
    shadow = int((tape.steps <= until).sum())
    return Taught(_stream(tape, model), shadow, known.held_out, outcome.candidate)


def _stream(tape: Tape, model: Surrogate) -> ErrorStream:
    steps: dict[int, list[TapeCall]] = {}
    for call in tape:
        steps.setdefault(call.step, []).append(call)
    inputs = [np.concatenate([call.inputs for call in calls]) for calls in steps.values()]
    truth = [np.concatenate([call.truth for call in calls]) for calls in steps.values()]
    dt = [np.concatenate([np.full(len(call), call.dt) for call in calls]) for calls in steps.values()]
    found = [_measured(model, *parts) for parts in zip(inputs, dt, truth, strict=True)]
    return stream_from_arrays(tape.operator, [each[0] for each in found], [each[1] for each in found], inputs)


def _measured(
    model: Surrogate, inputs: NDArray[np.float64], dt: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give score and error of some elements."""
    mean, score = answers(model, inputs, dt)
    return score, model.signature.error(mean, truth)
