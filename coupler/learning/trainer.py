"""One training round as a pure function: samples and incumbent in, a registered candidate or a reason out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from coupler import plugin
from coupler.learning.calibration import risk_controlled_threshold
from coupler.learning.draws import element_draws
from coupler.learning.registry import ModelCard, Registry
from coupler.learning.samples import SampleBatch, SampleStore
from coupler.operator import Signature
from coupler.surrogate import Samples, Surrogate

# An element is on the same side in every round, so that no incumbent is judged on what it has learned.
_HELD_OUT_SHARE = 0.1
_HELD_OUT = 0x401D
_CHUNK_ROWS = 1024
# The trained range is a little wider than what was seen, or the next step would leave it at once.
_MARGIN = 0.02


class TrainingTask(BaseModel):
    """All that one training round depends on; travels as JSON.

    Parameters
    ----------
    operator : str
        Operator name.
    surrogate, params : str, mapping
        Plug-in name of the surrogate's class and its keyword arguments.
    signature : mapping
        :meth:`Signature.to_json` of the operator.
    samples, models : str
        The run's folders of samples and models.
    capacity : int
        Samples to use, the newest ones.
    seed : int
        Seed of everything random.
    seconds : float or None
        Budget of the fit in processor time [s]; None trains for a fixed number of epochs, as deterministic runs need.
    cap, target : float
        Error that counts as a full loss, and wanted mean loss per decision: for the first threshold.
    step : int
        Time step at which the training begins; samples of later steps are not used.
    incumbent : int or None
        Version that answers now: where the training starts from, and what the candidate must beat.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operator: str
    surrogate: str
    params: dict[str, Any]
    signature: dict[str, Any]
    samples: str
    models: str
    capacity: int
    seed: int
    seconds: float | None
    cap: float
    target: float
    step: int
    incumbent: int | None


class TrainingOutcome(BaseModel):
    """How a training round ended.

    Parameters
    ----------
    candidate : ModelCard or None
        The version that was registered; None if the candidate was not good enough.
    candidate_loss, incumbent_loss : float or None
        Mean capped error of both on the same held-out elements; None where there was no model or nothing to judge on.
    seconds : float
        The whole round [s].
    sentence : str
        What happened and why, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: ModelCard | None
    candidate_loss: float | None
    incumbent_loss: float | None
    seconds: float
    sentence: str


@dataclass(frozen=True)
class _Judgement:
    """Scores, errors in units of tolerance, and mean capped error on the held-out elements."""

    score: NDArray[np.float64]
    error: NDArray[np.float64]
    loss: float


def train(task: TrainingTask) -> TrainingOutcome:
    """Train a candidate from the incumbent and register it if it is better.

    Parameters
    ----------
    task : TrainingTask
        What to train on and from; with ``seconds=None`` the outcome's weights depend on nothing else.

    Returns
    -------
    TrainingOutcome

    Raises
    ------
    CouplerError
        If samples or incumbent cannot be read, or the surrogate cannot be built.

    Collective: no. Runs in a process of its own, which sets torch's threads.
    """
    start = time.perf_counter()
    signature = Signature.from_json(task.signature)
    batch = SampleStore(Path(task.samples), task.operator, signature).read(newest=task.capacity, until=task.step)
    batch = batch.take(np.isfinite(np.concatenate([batch.inputs, batch.truth], axis=1)).all(axis=1))
    judged = held_out(batch)
    training, judging = _samples(batch.take(~judged)), _samples(batch.take(judged))
    if not len(training) or not len(judging):
        return _outcome(start, f"{len(batch)} samples are too few to train on some and judge on others")
    registry = Registry(Path(task.models))
    incumbent = None if task.incumbent is None else registry.load(registry.card(task.operator, task.incumbent))
    before = None if incumbent is None else _judge(incumbent, judging, task.cap)
    candidate = _starting_point(task, registry, signature)
    fit_start = time.perf_counter()
    candidate.fit(training, seed=task.seed, seconds=task.seconds)
    fit_seconds = time.perf_counter() - fit_start
    after = _judge(candidate, judging, task.cap)
    if before is not None and after.loss >= before.loss:
        said = f"the candidate's loss {after.loss:.3g} is not below the incumbent's {before.loss:.3g}"
        return _outcome(start, said, candidate_loss=after.loss, incumbent_loss=before.loss)
    card = registry.register(candidate, _facts(task, batch, len(training), after, fit_seconds))
    said = f"version {card.version} has a loss of {after.loss:.3g}" + (f", before {before.loss:.3g}" if before else "")
    return _outcome(
        start, said, candidate=card, candidate_loss=after.loss, incumbent_loss=None if before is None else before.loss
    )


def held_out(batch: SampleBatch) -> NDArray[np.bool_]:
    """Say which samples no candidate is trained on: a tenth, the same elements in every round.

    Parameters
    ----------
    batch : SampleBatch
        Of n samples.

    Returns
    -------
    ndarray (n,) of bool

    Collective: no.
    """
    return element_draws(batch.step, batch.call, batch.ids, purpose=_HELD_OUT) < _HELD_OUT_SHARE


def trained_range(signature: Signature, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range of the inputs with a small margin, in which the model may answer.

    The margin is a share of the span, of the span in decades where the quantity cannot be negative and was not zero:
    an absolute margin would reach from a small positive quantity to zero, where nothing was learned.

    Parameters
    ----------
    signature : Signature
        The operator; its bounds limit the range.
    inputs : ndarray (n, n_in)
        What was trained on.

    Returns
    -------
    ndarray (2, n_in)
        Lower and upper end.

    Collective: no.
    """
    ends = np.stack([inputs.min(axis=0), inputs.max(axis=0)])
    for column, field in enumerate(signature.inputs):
        lower, upper = ends[:, column]
        if field.lower >= 0 and lower > 0:
            factor = max((upper / lower) ** _MARGIN, 1 + 1e-9)
            lower, upper = lower / factor, upper * factor
        else:
            margin = max(_MARGIN * (upper - lower), 1e-9 * max(abs(lower), abs(upper)))
            lower, upper = lower - margin, upper + margin
        ends[:, column] = max(lower, field.lower), min(upper, field.upper)
    return ends


def _starting_point(task: TrainingTask, registry: Registry, signature: Signature) -> Surrogate:
    """Copy the incumbent; start afresh if there is none or the case asks for another kind now."""
    if task.incumbent is not None:
        card = registry.card(task.operator, task.incumbent)
        if (card.surrogate, card.params, card.signature) == (task.surrogate, task.params, signature.to_json()):
            return registry.load(card)
    found = plugin.load(task.surrogate, Surrogate)
    return plugin.build(found, task.params, signature, key="surrogate.params")


def _judge(surrogate: Surrogate, samples: Samples, cap: float) -> _Judgement:
    mean, score = np.empty_like(samples.truth), np.empty(len(samples))
    with torch.inference_mode():
        for start in range(0, len(samples), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            prediction = surrogate.predict(torch.from_numpy(samples.inputs[rows]), torch.from_numpy(samples.dt[rows]))
            mean[rows], score[rows] = prediction.mean.numpy(), prediction.score.numpy()
    error = surrogate.signature.error(mean, samples.truth)
    return _Judgement(score, error, float(np.minimum(error / cap, 1.0).mean()))


def _facts(task: TrainingTask, batch: SampleBatch, samples: int, judged: _Judgement, seconds: float) -> dict[str, Any]:
    threshold = risk_controlled_threshold(judged.score, judged.error, cap=task.cap, target=task.target)
    lower, upper = trained_range(Signature.from_json(task.signature), batch.inputs)
    return {
        "operator": task.operator,
        "surrogate": task.surrogate,
        "params": task.params,
        "step": task.step,
        "samples": samples,
        "range_lower": tuple(lower.tolist()),
        "range_upper": tuple(upper.tolist()),
        "range_dt": (float(batch.dt.min()), float(batch.dt.max())),
        "threshold": threshold,
        "holdout_loss": judged.loss,
        "holdout_accepted": float(np.mean(judged.score < threshold)),
        "seconds": seconds,
    }


def _samples(batch: SampleBatch) -> Samples:
    return Samples(batch.inputs, batch.dt, batch.truth)


def _outcome(
    start: float,
    sentence: str,
    *,
    candidate: ModelCard | None = None,
    candidate_loss: float | None = None,
    incumbent_loss: float | None = None,
) -> TrainingOutcome:
    return TrainingOutcome(
        candidate=candidate,
        candidate_loss=candidate_loss,
        incumbent_loss=incumbent_loss,
        seconds=time.perf_counter() - start,
        sentence=sentence,
    )
