"""Succession: which version of a model answers for an operator, who is on trial against it, and who came before.

A candidate is asked, beside the version that answers, about the elements that are audited anyway. It takes over when
the audits show that it errs less, and then the version before it is asked on: if it turns out that that one erred less
after all, it comes back. All of it follows from reduced counts and the step, so all ranks do it at the same boundary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coupler.controller import Limits
from coupler.controller.trial import Trial, Verdict
from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.route import Route
from coupler.learning.introduction import ModelIntroduction
from coupler.learning.registry import ModelCard
from coupler.records import Event, EventKind


@dataclass(frozen=True)
class SuccessionMemory:
    """What a succession needs to go on.

    Parameters
    ----------
    trial : Trial or None
        The evidence of the trial under way.
    mirror : bool
        Whether it looks back at the version before.
    versions : tuple of int
        Versions that are spoken of: the one that answers, and those on trial.
    """

    trial: Trial | None
    mirror: bool
    versions: tuple[int, ...]


class Succession:
    """Decides who answers a route.

    Parameters
    ----------
    index : int
        Number of the operator.
    route : Route
        Whose questions are answered.
    most : int
        Audits after which a trial ends in a draw: the version that answers stays.
    introduction : callable
        Gives what is known of a version before it answers, by its card.
    """

    def __init__(
        self, index: int, route: Route, most: int, introduction: Callable[[ModelCard], ModelIntroduction]
    ) -> None:
        self._index, self._route, self._most, self._introduction = index, route, most, introduction
        self._cards: dict[int, ModelCard] = {}
        self._trial: Trial | None = None
        self._mirror = False

    @property
    def trying(self) -> bool:
        """Whether a candidate is on trial; a look back at the version before does not count.

        Nor does a trial that rests, as the surrogate is switched off: the next candidate ends it.
        """
        return self._trial is not None and not self._mirror and not self._route.off

    def card(self, version: int) -> ModelCard:
        """Give the card of a version that answers, is on trial, or did so lately."""
        return self._cards[version]

    @property
    def memory(self) -> SuccessionMemory:
        """What is needed to go on."""
        spoken = {self._route.state.version, self._route.challenger} - {0}
        if self._trial is not None:
            spoken |= {self._trial.challenger, self._trial.defender}
        return SuccessionMemory(self._trial, self._mirror, tuple(sorted(spoken)))

    def resume(self, memory: SuccessionMemory, card: Callable[[int], ModelCard]) -> None:
        """Go on from what was known, on a route whose state and challenger are those of then.

        Parameters
        ----------
        memory : SuccessionMemory
            What was known.
        card : callable
            Gives the card of a version.
        """
        self._trial, self._mirror = memory.trial, memory.mirror
        self._cards = {version: card(version) for version in memory.versions}
        for version in self._route.needed_versions:
            assert self._route.line.transport is not None
            self._route.line.transport.prepare(version)
        if self._route.state.version:
            answering = self._cards[self._route.state.version]
            keep_to(self._route, answering, self._introduction(answering))

    def introduce(self, card: ModelCard, step: int) -> Event:
        """Take in a candidate: the first version answers at once, others are tried against the one that does.

        While the surrogate is switched off there is nothing to try it on, and nothing that could go wrong.

        Parameters
        ----------
        card : ModelCard
            Of the candidate; every server has loaded it.
        step : int
            The step that ends now.
        """
        self._cards[card.version] = card
        assert self._route.line.transport is not None
        self._route.line.transport.prepare(card.version)
        if self._route.state.version == 0:
            self._take_over(card)
            said = f"version {card.version} is the first; {_held_out(card)}"
            return self._event(step, EventKind.PROMOTED, card.version, said)
        if self._route.off:
            self._end()
            self._take_over(card)
            said = f"version {card.version} takes over while the surrogate is switched off; {_held_out(card)}"
            return self._event(step, EventKind.PROMOTED, card.version, said)
        self._begin(card.version, mirror=False)
        said = f"version {card.version} is tried against version {self._route.state.version}; {_held_out(card)}"
        return self._event(step, EventKind.TRIAL, card.version, said)

    def end_step(self, step: int, totals: Counts, setting: StepSetting) -> list[Event]:
        """Take in the audits of a step that both versions answered, and act on what they show.

        Parameters
        ----------
        step : int
            The step that ends now.
        totals : Counts
            Sums over all ranks, of the step before.
        setting : StepSetting
            What held in that step.
        """
        trial = self._trial
        if trial is None or (setting.challenger, setting.version) != (trial.challenger, trial.defender):
            return []
        self._trial = trial = trial.after(totals.trial)
        verdict = trial.verdict(self._most)
        if verdict is Verdict.OPEN:
            return []
        mirror = self._mirror
        self._end()
        if verdict is Verdict.CHALLENGER:
            return [self._succeed(step, trial, mirror=mirror)]
        if mirror:
            return []
        return [self._event(step, EventKind.REJECTED, trial.challenger, f"{trial.sentence}: {verdict.value}")]

    def _succeed(self, step: int, trial: Trial, *, mirror: bool) -> Event:
        """Let the challenger answer; one that was just promoted is watched against the version before it."""
        self._take_over(self._cards[trial.challenger])
        if mirror:
            said = f"version {trial.defender} is taken back: {trial.sentence}"
            return self._event(step, EventKind.ROLLED_BACK, trial.challenger, said)
        self._begin(trial.defender, mirror=True)
        return self._event(step, EventKind.PROMOTED, trial.challenger, trial.sentence)

    def _take_over(self, card: ModelCard) -> None:
        take_over(self._route, card, self._introduction(card))

    def _begin(self, challenger: int, *, mirror: bool) -> None:
        self._trial, self._mirror = Trial(challenger, self._route.state.version), mirror
        self._route.challenger = challenger

    def _end(self) -> None:
        self._trial, self._mirror, self._route.challenger = None, False, 0

    def _event(self, step: int, kind: EventKind, version: int, sentence: str) -> Event:
        return Event(step + 1, self._index, kind, version, sentence)


def take_over(route: Route, card: ModelCard, known: ModelIntroduction) -> None:
    """Let a version answer a route from the next step on; its transport must have it.

    Parameters
    ----------
    route : Route
        Whose questions it answers.
    card : ModelCard
        Of the version.
    known : ModelIntroduction
        What is known of it before it answers.

    Collective: no.
    """
    keep_to(route, card, known)
    route.state = route.controller.promoted(
        route.state, card.version, card.threshold, held_out=known.held_out, regions=len(known.regions.centres)
    )


def keep_to(route: Route, card: ModelCard, known: ModelIntroduction) -> None:
    """Judge a version by the range it was trained on, and watch it in its regions. Collective: no."""
    route.limits = Limits.of(route.operator.signature, np.array(card.range_lower), np.array(card.range_upper))
    route.observer.regions = known.regions


def _held_out(card: ModelCard) -> str:
    return f"its loss on held-out samples is {card.holdout_loss:.3g}"
