"""The streams of decisions that gates and certificates are tried on; tests and benchmarks use the same.

A **scenario** makes the elements of a step: how doubtful and how wrong the answers are, as a function of how much of
the run has passed. An **adversary** has several faces and chooses by what it has seen of the coins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.redraw import Elements, ErrorStream, View, stream_from_arrays

Scenario = Callable[[float, np.random.Generator, int], Elements]
"""``scenario(share, rng, decisions)`` gives the elements of a step when that share of the run, 0 to 1, has passed."""

# In tolerances: beyond any cap in use.
_WRONG = 5.0


def scores(rng: np.random.Generator, decisions: int) -> NDArray[np.float64]:
    """Draw scores as an ensemble has them: most are small, a few are large."""
    return rng.lognormal(-1.0, 1.0, decisions)


def stationary(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """An honest surrogate in a steady run: errors of about 0.4 of the score."""
    score = scores(rng, decisions)
    return Elements(score, score * np.abs(rng.normal(0, 0.4, decisions)))


def slow_drift(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """Errors grow to seven times what they were, and the score does not notice."""
    score, error = stationary(share, rng, decisions)
    return Elements(score, error * (1 + 6 * share))


def regime_change(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """Errors are thirty times as large from the middle of the run on."""
    score, error = stationary(share, rng, decisions)
    return Elements(score, error * (30 if share >= 0.5 else 1))


def overconfident(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """More and more elements are far from the training data, wrong, and score better than the others."""
    score, error = stationary(share, rng, decisions)
    far = rng.random(decisions) < 0.5 * share
    return Elements(np.where(far, 0.3 * score, score), np.where(far, _WRONG, error))


def corrupted(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """Weights are corrupted in mid-run: from then on always wrong and always sure."""
    if share < 0.5:
        return stationary(share, rng, decisions)
    return always_wrong(share, rng, decisions)


def always_wrong(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """Always wrong and always sure."""
    return Elements(1e-3 * rng.random(decisions), np.full(decisions, _WRONG))


def exact_until_trusted(share: float, rng: np.random.Generator, decisions: int) -> Elements:
    """Exact for half the run, so that any threshold opens wide, then always wrong."""
    return Elements(rng.random(decisions), np.full(decisions, 0.0 if share < 0.5 else _WRONG))


SCENARIOS: tuple[Scenario, ...] = (
    stationary,
    slow_drift,
    regime_change,
    overconfident,
    corrupted,
    exact_until_trusted,
)
"""The streams of the design that no coin changes."""


def record(scenario: Scenario, *, steps: int, decisions: int, seed: int) -> ErrorStream:
    """Make all steps of a scenario, as a recorded truth would have them.

    Parameters
    ----------
    scenario : callable
        Which.
    steps, decisions : int
        Steps, and elements in each.
    seed : int
        Of what it draws.
    """
    rng = np.random.default_rng(seed)
    made = [scenario(step / steps, rng, decisions) for step in range(steps)]
    return stream_from_arrays(
        scenario.__name__.replace("_", "-"), [each.score for each in made], [each.error for each in made]
    )


def recorded(stream: ErrorStream) -> Callable[[int], Sequence[Elements]]:
    """Offer a recorded stream to :func:`coupler.redraw.follow`, which has one face then."""
    return lambda step: [Elements(*stream.elements(step))]


@dataclass(frozen=True)
class Adversary:
    """A surrogate that knows of all audits, and shows one face or the other.

    Parameters
    ----------
    name : str
        What it does.
    offer : callable (share, rng, decisions)
        Its faces in a step.
    choose : callable
        Which each redraw meets, from what is known before the step.
    """

    name: str
    faces: Callable[[float, np.random.Generator, int], Sequence[Elements]]
    choose: Callable[[View], NDArray[np.intp]]

    def offer(self, steps: int, decisions: int, seed: int) -> Callable[[int], Sequence[Elements]]:
        """Give what :func:`coupler.redraw.follow` asks for; a step's faces are the same whenever they are asked for."""
        return lambda step: self.faces(step / steps, np.random.default_rng((seed, step)), decisions)


def _meek_and_bold(share: float, rng: np.random.Generator, decisions: int) -> Sequence[Elements]:
    score, draw = scores(rng, decisions), rng.random(decisions)
    return [Elements(score, np.where(draw < lossy, _WRONG, 0.0)) for lossy in (0.004, 0.03)]


def _exact_and_wrong(share: float, rng: np.random.Generator, decisions: int) -> Sequence[Elements]:
    score = scores(rng, decisions)
    return [Elements(score, np.full(decisions, error)) for error in (0.0, _WRONG)]


def _bold_while_few_were_caught(view: View) -> NDArray[np.intp]:
    return (view.lost >= view.found).astype(np.intp)


def _wrong_where_used(view: View) -> NDArray[np.intp]:
    return (~view.stopped).astype(np.intp)


LUCKY = Adversary("adaptive", _meek_and_bold, _bold_while_few_were_caught)
"""Lossy while fewer losses were caught than there were, nearly exact after bad luck: it presses where it can."""

WRONG_WHEN_USED = Adversary("wrong-when-used", _exact_and_wrong, _wrong_where_used)
"""Exact whenever the hard stop holds, wrong whenever an answer would be used."""
