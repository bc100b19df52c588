"""One training round as a pure function: samples and incumbent in, a registered candidate or a reason out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from coupler import plugin
from coupler.controller.policies import HeldOut
from coupler.learning.answers import answers
from coupler.learning.calibration import risk_controlled_threshold
from coupler.learning.clusters import find_regions
from coupler.learning.introduction import ModelIntroduction
from coupler.learning.registry import ModelCard, Registry
from coupler.learning.reservoir import Reservoir, Selection
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.operator import Signature
from coupler.surrogate import Samples, Surrogate

# Fewer say little of the next thousand decisions; the outcome says how many there were.
_FEW_JUDGED = 50
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
        Most samples to learn from.
    anchors, recent : float
        Shares of them, see :class:`~coupler.learning.reservoir.Reservoir`.
    regions : int
        Most regions to divide the inputs into for the controller; 0 for none.
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
    resumable : tuple of int
        Steps from which the run may be resumed: what trainings after them will use stays on disk, too.
    needed : tuple of int
        Versions that must stay loaded where the candidate is: the one that answers, and one it may be taken back for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operator: str
    surrogate: str
    params: dict[str, Any]
    signature: dict[str, Any]
    samples: str
    models: str
    capacity: int
    anchors: float = 0.1
    recent: float = 0.5
    regions: int = 8
    seed: int
    seconds: float | None
    cap: float
    target: float
    step: int
    incumbent: int | None
    needed: tuple[int, ...] = ()
    resumable: tuple[int, ...] = ()


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


class Fit(Protocol):
    """A way to have a surrogate fitted."""

    def __call__(self, candidate: Surrogate, samples: Samples, *, seed: int, seconds: float | None) -> None:
        """Fit it, like :meth:`Surrogate.fit`. Collective: if others help, with those who do."""


def fit_alone(candidate: Surrogate, samples: Samples, *, seed: int, seconds: float | None) -> None:
    """Fit a surrogate in this process. Collective: no."""
    candidate.fit(samples, seed=seed, seconds=seconds)


@dataclass(frozen=True)
class _Judgement:
    """A version's answers to held-out elements, and their mean capped error."""

    held_out: HeldOut
    loss: float


@dataclass(frozen=True)
class _Trained:
    """What a candidate was trained and judged on, how it did, and how long its fit took [s]."""

    chosen: Selection
    judged: _Judgement
    seconds: float


def train(task: TrainingTask, fit: Fit = fit_alone) -> TrainingOutcome:
    """Train a candidate from the incumbent and register it if it is better.

    Parameters
    ----------
    task : TrainingTask
        What to train on and from; with ``seconds=None`` the outcome's weights depend on nothing else, but for how many
        processes fit it.
    fit : callable
        Fits the candidate; others may help.

    Returns
    -------
    TrainingOutcome

    Raises
    ------
    CouplerError
        If samples or incumbent cannot be read, or the surrogate cannot be built.

    Collective: no, but for ``fit``. Runs in a process that sets torch's threads.
    """
    start = time.perf_counter()
    signature = Signature.from_json(task.signature)
    chosen = _choose(task, signature)
    training, judging = _samples(chosen.training), _samples(chosen.judging)
    if not len(training) or not len(judging):
        return _outcome(start, f"{len(training)} samples to train on and {len(judging)} to judge on are too few")
    registry = Registry(Path(task.models))
    incumbent = None if task.incumbent is None else registry.load(registry.card(task.operator, task.incumbent))
    before = None if incumbent is None else _judge(incumbent, judging, task.cap)
    candidate = _starting_point(task, registry, signature)
    fit_start = time.perf_counter()
    fit(candidate, training, seed=task.seed, seconds=task.seconds)
    fit_seconds = time.perf_counter() - fit_start
    after = _judge(candidate, judging, task.cap)
    few = f"; only {len(judging)} held-out elements could tell" if len(judging) < _FEW_JUDGED else ""
    if before is not None and after.loss >= before.loss:
        said = f"the candidate's loss {after.loss:.3g} is not below the incumbent's {before.loss:.3g}{few}"
        return _outcome(start, said, candidate_loss=after.loss, incumbent_loss=before.loss)
    card = _register(task, registry, candidate, _Trained(chosen, after, fit_seconds))
    said = f"version {card.version} has a loss of {after.loss:.3g}" + (f", before {before.loss:.3g}" if before else "")
    return _outcome(
        start,
        said + few,
        candidate=card,
        candidate_loss=after.loss,
        incumbent_loss=None if before is None else before.loss,
    )


def trained_range(signature: Signature, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range of the inputs with a small margin, in which the model may answer.

    The margin is a share of the span, of the span in decades where the quantity cannot be negative and was not zero:
    an absolute margin would reach from a small positive quantity to zero, where nothing was learned. All cells of a
    tile have the range of their field: a network that goes over the tile learns of one place from all others, and of
    thousands of ranges of their own one would be left by almost every tile.

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
    fields = signature.input_fields
    width = len(signature.inputs) // len(fields)
    cells = inputs.reshape(len(inputs), len(fields), width)
    ends = np.stack([cells.min(axis=(0, 2)), cells.max(axis=(0, 2))])
    for column, field in enumerate(fields):
        lower, upper = ends[:, column]
        if field.lower >= 0 and lower > 0:
            factor = max((upper / lower) ** _MARGIN, 1 + 1e-9)
            lower, upper = lower / factor, upper * factor
        else:
            margin = max(_MARGIN * (upper - lower), 1e-9 * max(abs(lower), abs(upper)))
            lower, upper = lower - margin, upper + margin
        ends[:, column] = max(lower, field.lower), min(upper, field.upper)
    return ends.repeat(width, axis=1)


def _choose(task: TrainingTask, signature: Signature) -> Selection:
    """Choose the samples of this round, and let go of those that no round will use any more."""
    store = SampleStore(Path(task.samples), task.operator, signature)
    history, reservoir = store.read(), Reservoir(task.capacity, task.anchors, task.recent)
    ready_for = (task.step, *task.resumable)
    needed = reservoir.needed(history.samples, began_until=history.began_until, until=ready_for)
    if needed.any():
        store.compact(history, history.samples.take(needed))
    return reservoir.select(history.samples, began_until=history.began_until, until=task.step)


def _starting_point(task: TrainingTask, registry: Registry, signature: Signature) -> Surrogate:
    """Copy the incumbent; start afresh if there is none or the case asks for another kind now."""
    if task.incumbent is not None:
        card = registry.card(task.operator, task.incumbent)
        if (card.surrogate, card.params, card.signature) == (task.surrogate, task.params, signature.to_json()):
            return registry.load(card)
    found = plugin.load(task.surrogate, Surrogate)
    return plugin.build(found, task.params, signature, key="surrogate.params")


def _judge(surrogate: Surrogate, samples: Samples, cap: float) -> _Judgement:
    mean, score = answers(surrogate, samples.inputs, samples.dt)
    error = surrogate.signature.error(mean, samples.truth)
    return _Judgement(HeldOut(samples.inputs, score, error), float(np.minimum(error / cap, 1.0).mean()))


def _register(task: TrainingTask, registry: Registry, candidate: Surrogate, trained: _Trained) -> ModelCard:
    anchors = trained.chosen.anchors
    facts = _facts(task, trained.chosen, trained.judged) | {
        "anchor_loss": _judge(candidate, _samples(anchors), task.cap).loss if len(anchors) else None,
        "seconds": trained.seconds,
    }
    regions = find_regions(trained.chosen.training.inputs, most=task.regions, seed=task.seed)
    return registry.register(candidate, facts, ModelIntroduction(trained.judged.held_out, regions))


def _facts(task: TrainingTask, chosen: Selection, judged: _Judgement) -> dict[str, Any]:
    score, error = judged.held_out.score, judged.held_out.error
    threshold = risk_controlled_threshold(score, error, cap=task.cap, target=task.target)
    seen = SampleBatch.join([chosen.training, chosen.judging])
    lower, upper = trained_range(Signature.from_json(task.signature), seen.inputs)
    return {
        "operator": task.operator,
        "surrogate": task.surrogate,
        "params": task.params,
        "step": task.step,
        "samples": len(chosen.training),
        "range_lower": tuple(lower.tolist()),
        "range_upper": tuple(upper.tolist()),
        "range_dt": (float(seen.dt.min()), float(seen.dt.max())),
        "threshold": threshold,
        "holdout_loss": judged.loss,
        "holdout_accepted": float(np.mean(score < threshold)),
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
