"""Steering: all that is decided about models between two steps, on every rank alike.

Alarms are noticed, candidates tried, promoted and taken back, training rounds started and ended, and surrogates that do
not pay switched off. What comes of it are events; what they change holds from the next step on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coupler.case import Case
from coupler.checkpoint import Column
from coupler.controller.economics import Economics
from coupler.coupling.alarmwatch import AlarmWatch
from coupler.coupling.call import StepSetting
from coupler.coupling.counts import Counts
from coupler.coupling.economy import Economy
from coupler.coupling.learner import Learner, LearnerMemory
from coupler.coupling.nodes import Nodes, crowded
from coupler.coupling.route import Route
from coupler.coupling.succession import Succession, SuccessionMemory
from coupler.coupling.upkeep import Upkeep
from coupler.learning.registry import ModelCard, Registry
from coupler.learning.samples import SampleBatch
from coupler.records import TAKEOVERS, Event


@dataclass(frozen=True)
class SteeringMemory:
    """What steering needs to go on, per operator.

    Parameters
    ----------
    learners : tuple of LearnerMemory
        Samples and training.
    successions : tuple of SuccessionMemory
        Versions and trials.
    alarms : tuple of tuple of int
        What is known of alarms.
    switches : tuple of Economics
        None where costs are not judged.
    """

    learners: tuple[LearnerMemory, ...]
    successions: tuple[SuccessionMemory, ...]
    alarms: tuple[tuple[int, int], ...]
    switches: tuple[Economics, ...]


class Steering:
    """Decides about the models of a run.

    Parameters
    ----------
    case : Case
        The effective case.
    nodes : Nodes
        The ranks.
    routes : sequence of Route
        Whose models.
    learners : sequence of Learner
        One per route.
    registry : Registry
        The models of the run.
    upkeep : Upkeep
        Of the services.
    """

    def __init__(
        self,
        case: Case,
        nodes: Nodes,
        routes: Sequence[Route],
        learners: Sequence[Learner],
        registry: Registry,
        upkeep: Upkeep,
    ) -> None:
        self._learners, self._routes, self._upkeep = learners, routes, upkeep
        self._inherited: Sequence[ModelCard | None] = ()
        self._alarms = [AlarmWatch(index, route) for index, route in enumerate(routes)]
        self._successions = [
            Succession(index, route, case.learning.trial, registry.introduction) for index, route in enumerate(routes)
        ]
        # The trainer is on the node of rank 0, and takes nothing from anybody where there are cores for it.
        full = nodes.job.bcast(crowded(nodes.node) if nodes.first else None)
        training = case.learning.budget if full else 0.0
        self._economy = Economy(nodes.job, routes, training) if case.economical else None

    @property
    def rounds(self) -> int:
        """Training rounds that have started."""
        return sum(learner.rounds for learner in self._learners)

    @property
    def active(self) -> bool:
        """Whether a model answers or may still be trained; where none ever does, nobody looks at a step's sums."""
        return any(learner.learns for learner in self._learners) or any(route.state.version for route in self._routes)

    def card(self, event: Event) -> ModelCard:
        """Give the card of the version an event is about."""
        return self._successions[event.operator].card(event.version)

    def count_outcomes(self) -> None:
        """Add to this rank's counts what it sees of the training rounds under way. Collective: no."""
        for learner in self._learners:
            learner.count_outcome()
        if self.active:
            self._upkeep.count()

    def inherit(self, cards: Sequence[ModelCard | None]) -> None:
        """Have versions answer from the first step on, per operator; every server has them. Collective: no."""
        self._inherited = cards
        for learner, card in zip(self._learners, cards, strict=True):
            if card is not None:
                learner.inherit(card)

    def begin(self) -> list[Event]:
        """Decide what the first step is made with. Collective: yes where a model answers, otherwise no."""
        successions = zip(self._successions, self._inherited, strict=False)
        events = [succession.introduce(card, 0) for succession, card in successions if card is not None]
        events += self._judge_anew(events, 0)
        if events:
            self._upkeep.want()
        return events

    def end_step(self, step: int, counts: Sequence[Counts], settings: Sequence[StepSetting]) -> list[Event]:
        """Decide what the next step is made with.

        Parameters
        ----------
        step : int
            The step that ends now.
        counts : sequence of Counts
            Sums over the ranks of the step before, per operator; none after the first step.
        settings : sequence of StepSetting
            What held in that step.

        Returns
        -------
        list of Event
            What changed.

        Collective: yes at steps where a training round or a judgement of costs begins, otherwise no.
        """
        events = self._upkeep.end_step(step, counts)
        for index, (totals, setting) in enumerate(zip(counts, settings, strict=False)):
            events += self._alarms[index].end_step(step)
            events += self._successions[index].end_step(step, totals, setting)
            events += self._learn(index, step, totals)
        events += self._judge_anew(events, step)
        if self._economy is not None:
            events += self._economy.end_step(step)
        if events:
            self._upkeep.want()
        return events

    def last_events(self, step: int) -> list[Event]:
        """Give what has happened to the services and was not said yet. Collective: yes."""
        return self._upkeep.tell(step)

    @property
    def memory(self) -> SteeringMemory:
        """What is needed to go on."""
        return SteeringMemory(
            learners=tuple(learner.memory for learner in self._learners),
            successions=tuple(succession.memory for succession in self._successions),
            alarms=tuple(watch.known for watch in self._alarms),
            switches=() if self._economy is None else tuple(self._economy.switches),
        )

    def columns(self) -> list[Column]:
        """Give what a checkpoint keeps of the samples. Collective: no."""
        return [column for learner in self._learners for column in learner.columns()]

    def expect_resumption(self, step: int) -> None:
        """Take care that the run can go on from the end of this step. Collective: no."""
        for learner in self._learners:
            learner.expect_resumption(step)

    def resume(self, memory: SteeringMemory, pending: Sequence[SampleBatch | None]) -> None:
        """Go on from what was known, with routes whose states are those of then.

        Parameters
        ----------
        memory : SteeringMemory
            What was known.
        pending : sequence of SampleBatch or None
            Per operator, the samples not on disk; on rank 0.

        Collective: no.
        """
        for index, (succession, known) in enumerate(zip(self._successions, memory.successions, strict=True)):
            succession.resume(known, self._learners[index].card)
        for learner, learned, samples in zip(self._learners, memory.learners, pending, strict=True):
            learner.resume(learned, samples)
        for watch, alarms in zip(self._alarms, memory.alarms, strict=True):
            watch.known = alarms
        if self._economy is not None and memory.switches:
            self._economy.resume(memory.switches)

    def finish(self) -> None:
        """Leave nothing under way. Collective: yes."""
        if self._economy is not None:
            self._economy.finish()

    def flush(self) -> None:
        """Write the samples not yet on disk. Collective: yes."""
        for learner in self._learners:
            learner.flush()

    def _judge_anew(self, events: Sequence[Event], step: int) -> list[Event]:
        """Begin anew what is known of the costs of versions that have just taken over."""
        economy = self._economy
        if economy is None:
            return []
        return [told for one in events if one.kind in TAKEOVERS for told in economy.renew(one.operator, step)]

    def _learn(self, index: int, step: int, totals: Counts) -> list[Event]:
        learner, succession, economy = self._learners[index], self._successions[index], self._economy
        learner.worthwhile = economy is None or economy.worthwhile(index)
        learner.waits = economy is not None and not economy.worth_training(index)
        before = learner.rounds
        card = learner.end_step(step, totals, may_start=not (learner.waits or succession.trying))
        if economy is not None and learner.rounds > before:
            economy.trained(index)
        return [] if card is None else [succession.introduce(card, step)]
