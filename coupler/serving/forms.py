"""Which form of a model is used: tried on rows like those it was trained on, compared with eager torch, and timed."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.field import Field
from coupler.learning.registry import ModelCard
from coupler.operator import Signature
from coupler.records import Rows
from coupler.serving.batches import copied
from coupler.serving.device import Answerer, Device
from coupler.serving.eager import CHUNK_ROWS, chunk_rows
from coupler.surrogate import Surrogate

# A form may differ from eager torch by this share of the tolerance, and of the score where that is above 1: whoever
# doubts so much is not believed anyway.
ALLOWED_DIFFERENCE = 0.02
# A form must be faster by more than what two timings of the same thing differ by.
_GAIN = 0.97
_SMALL_ROWS = 32
# So many states tell how a form does; fewer would leave too much to chance.
_ENOUGH_JUDGED = 100
# Samples have several time steps, each in a part of its own, as questions of several ranks have.
_PARTS = 4
_SEED = 20_000
_REPEATS, _REPEAT_SECONDS = 7, 0.05


@dataclass(frozen=True)
class FormTrial:
    """How one form did.

    Parameters
    ----------
    form : str
        Its name.
    mean_difference, score_difference : float
        Largest difference from eager torch: of an answer in units of the tolerance, of a score; both divided by the
        score where that is above 1. NaN if the form was not tried.
    chunk_seconds, small_seconds : float
        Fastest time for a chunk, and for 32 rows; NaN if nothing was timed.
    complaint : str
        Why it may not be used; empty if it may.
    rows : int
        Rows of a chunk.
    """

    form: str
    mean_difference: float = math.nan
    score_difference: float = math.nan
    chunk_seconds: float = math.nan
    small_seconds: float = math.nan
    complaint: str = ""
    rows: int = CHUNK_ROWS

    @property
    def sentence(self) -> str:
        """The trial in words."""
        if self.complaint:
            return f"{self.form}: {self.complaint}"
        said = f"{self.form}: {max(self.mean_difference, self.score_difference):.2g} tolerances from eager"
        if math.isnan(self.chunk_seconds):
            return said
        return (
            f"{said}, {1e6 * self.chunk_seconds / self.rows:.3f} µs per element in chunks, "
            f"{1e6 * self.small_seconds:.0f} µs for {min(_SMALL_ROWS, self.rows)}"
        )


@dataclass(frozen=True)
class FormChoice:
    """The form a version answers in, and why.

    Parameters
    ----------
    form : str
        Its name.
    reason : str
        Why this one, in words.
    trials : tuple of FormTrial
        All that were tried.
    """

    form: str
    reason: str
    trials: tuple[FormTrial, ...]

    @property
    def seconds_per_element(self) -> float:
        """What an answer takes in a large batch [s]; NaN if nothing was timed."""
        return next((one.chunk_seconds / one.rows for one in self.trials if one.form == self.form), math.nan)

    @property
    def sentence(self) -> str:
        """The choice in words, with the figures."""
        return f"form {self.form}, {self.reason} ({'; '.join(trial.sentence for trial in self.trials)})"


def sample_rows(signature: Signature, card: ModelCard | None, judged: NDArray[np.float64] | None = None) -> list[Rows]:
    """Give rows like those a model was trained on, always the same ones.

    Parameters
    ----------
    signature : Signature
        Columns of the operator.
    card : ModelCard or None
        Ranges of inputs and time steps; without one, numbers about 1 within the bounds.
    judged : ndarray (n, n_in), optional
        Inputs it was judged on, which are taken instead of drawn ones if there are enough, evenly among all: a state is
        more than a number from the range of every column, and where there is no such state forms may well differ.

    Returns
    -------
    list of Rows
        Parts with a time step each, together as many rows as the largest batch has; their mean and score are NaN.

    Collective: no.
    """
    random = np.random.default_rng(_SEED)
    usual = [_about_one(field) for field in signature.inputs]
    ends = np.array(usual).T if card is None else np.array([card.range_lower, card.range_upper])
    steps = (1.0, 1.0) if card is None or card.range_dt is None else card.range_dt
    count = chunk_rows(len(signature.inputs))
    if judged is not None and len(judged) >= _ENOUGH_JUDGED:
        inputs = judged[np.linspace(0, len(judged) - 1, count).astype(np.intp)]
    else:
        inputs = np.stack([_draw(random, low, high, count) for low, high in ends.T], axis=1)
    n_out = len(signature.outputs)
    return [
        Rows(part, float(dt), np.full((len(part), n_out), np.nan), np.full(len(part), np.nan))
        for part, dt in zip(np.array_split(inputs, _PARTS), _draw(random, *steps, _PARTS), strict=True)
    ]


def choose_form(
    device: Device, surrogate: Surrogate, samples: Sequence[Rows], *, form: str, timed: bool
) -> tuple[Answerer, FormChoice]:
    """Choose the form of a model: the fastest one that answers as eager torch does.

    Parameters
    ----------
    device : Device
        Where it runs.
    surrogate : Surrogate
        The model.
    samples : sequence of Rows
        From :func:`sample_rows`.
    form : str
        ``auto``, or the form to use whatever it is like.
    timed : bool
        Whether the clock may decide; otherwise the device's preference does, among the forms that answer alike.

    Returns
    -------
    Answerer, FormChoice
        The form that is used, ready, and what was found.

    Raises
    ------
    PluginError
        If a form was asked for by name and there is none.

    Collective: no.
    """
    if form not in ("auto", "eager"):
        return _pinned(device, surrogate, samples, form)
    eager = device.answerer(surrogate, "eager", samples)
    failure = _failure(eager, samples)
    if failure:
        return eager, FormChoice("eager", f"as the model does not answer: {failure}", ())
    if form == "eager":
        return eager, FormChoice("eager", "as the case asks", (_timed(FormTrial("eager", 0.0, 0.0), eager, samples),))
    reference = _answers(samples)
    ready, trials = {"eager": eager}, [FormTrial("eager", 0.0, 0.0)]
    for name in device.measured if timed else device.preference:
        if name != "eager":
            answerer, trial = _compared(device, surrogate, samples, name, reference)
            trials.append(trial)
            if answerer is not None:
                ready[name] = answerer
    if timed:
        trials = [_timed(trial, ready[trial.form], samples) if trial.form in ready else trial for trial in trials]
        best, reason = _fastest(trials), "the fastest here"
    else:
        best = next(name for name in device.preference if name in ready)
        reason = "by preference, as nothing may hang on a clock"
    return ready[best], FormChoice(best, reason, tuple(trials))


def _pinned(device: Device, surrogate: Surrogate, samples: Sequence[Rows], form: str) -> tuple[Answerer, FormChoice]:
    try:
        answerer = device.answerer(surrogate, form, samples)
    except PluginError as error:
        raise PluginError(f'surrogate.form = "{form}" cannot be had: {error} Use auto.') from error
    eager = device.answerer(surrogate, "eager", samples)
    if _failure(eager, samples) or _failure(answerer, copies := copied(samples)):
        return answerer, FormChoice(form, "as the case asks", (FormTrial(form, complaint="it could not be compared"),))
    trial = _difference(form, surrogate.signature, _answers(samples), _answers(copies))
    return answerer, FormChoice(form, "as the case asks", (_timed(trial, answerer, samples),))


def _compared(
    device: Device, surrogate: Surrogate, samples: Sequence[Rows], form: str, reference: "_Answers"
) -> tuple[Answerer | None, FormTrial]:
    """Make a form ready and compare it; there is none where it may not be used."""
    try:
        answerer = device.answerer(surrogate, form, samples)
    except Exception as error:  # noqa: BLE001, a user's model may raise anything
        return None, FormTrial(form, complaint=str(error))
    if failure := _failure(answerer, samples):
        return None, FormTrial(form, complaint=failure)
    trial = _difference(form, surrogate.signature, reference, _answers(samples))
    return None if trial.complaint else answerer, trial


def _fastest(trials: Sequence[FormTrial]) -> str:
    """Name the fastest form; another one than eager must be faster with many rows and not slower with few."""
    eager = trials[0]

    def cost(trial: FormTrial) -> float:
        if trial.complaint:
            return math.inf
        chunk, small = trial.chunk_seconds / eager.chunk_seconds, trial.small_seconds / eager.small_seconds
        return chunk * small if chunk < _GAIN and small < 1.0 else 1.0

    return min(trials, key=cost).form


class _Answers:
    """Copies of what was answered: mean (n, n_out), score (n,), and which rows are finite."""

    def __init__(self, mean: NDArray[np.float64], score: NDArray[np.float64]) -> None:
        self.mean, self.score = mean, score
        self.finite = np.isfinite(mean).all(axis=1) & np.isfinite(score)


def _answers(samples: Sequence[Rows]) -> _Answers:
    return _Answers(np.concatenate([part.mean for part in samples]), np.concatenate([part.score for part in samples]))


def _difference(form: str, signature: Signature, eager: _Answers, other: _Answers) -> FormTrial:
    if not np.array_equal(eager.finite, other.finite):
        return FormTrial(form, math.inf, math.inf, complaint="it is finite where eager is not, or the other way round")
    rows = eager.finite
    doubt = np.maximum(eager.score[rows], 1.0)
    mean = float(np.max(signature.error(other.mean[rows], eager.mean[rows]) / doubt, initial=0.0))
    score = float(np.max(np.abs(other.score[rows] - eager.score[rows]) / doubt, initial=0.0))
    complaint = ""
    if max(mean, score) > ALLOWED_DIFFERENCE:
        complaint = f"{mean:.2g} tolerances and {score:.2g} in score from eager, allowed are {ALLOWED_DIFFERENCE:g}"
    return FormTrial(form, mean, score, complaint=complaint)


def _failure(answerer: Answerer, samples: Sequence[Rows]) -> str:
    """Let a form answer the samples; say why if it cannot."""
    try:
        answerer(samples)
    except Exception as error:  # noqa: BLE001, a user's model may raise anything
        return f"{type(error).__name__}: {error}"
    return ""


def _timed(trial: FormTrial, answerer: Answerer, samples: Sequence[Rows]) -> FormTrial:
    count, n_out = sum(len(part.inputs) for part in samples), samples[0].mean.shape[1]
    inputs = np.concatenate([part.inputs for part in samples])
    chunk = Rows(inputs, samples[0].dt, np.empty((count, n_out)), np.empty(count))
    few = Rows(inputs[:_SMALL_ROWS], chunk.dt, chunk.mean[:_SMALL_ROWS], chunk.score[:_SMALL_ROWS])
    return replace(
        trial, chunk_seconds=_fastest_time(answerer, chunk), small_seconds=_fastest_time(answerer, few), rows=count
    )


def _about_one(field: Field) -> tuple[float, float]:
    """Give a range about 1 within the bounds; beside the nearest of them where they leave that out."""
    low, high = (0.1, 10.0) if field.lower >= 0 else (-1.0, 1.0)
    if field.lower >= high:
        return field.lower, min(10.0 * field.lower, field.upper)
    if field.upper <= low:
        return max(field.lower, min(0.1 * field.upper, 10.0 * field.upper)), field.upper
    return max(field.lower, low), min(field.upper, high)


def _draw(random: np.random.Generator, lower: float, upper: float, count: int) -> NDArray[np.float64]:
    """Draw from a range, evenly in decades where it is positive."""
    if lower > 0:
        return np.exp(random.uniform(math.log(lower), math.log(upper), count))
    return random.uniform(lower, upper, count)


def _fastest_time(answerer: Answerer, rows: Rows) -> float:
    fastest, start = math.inf, time.perf_counter()
    for _ in range(_REPEATS):
        before = time.perf_counter()
        answerer([rows])
        now = time.perf_counter()
        fastest = min(fastest, now - before)
        if now - start > _REPEAT_SECONDS:
            break
    return fastest
