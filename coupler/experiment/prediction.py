"""What a run would have taken, foretold from a tape: counted decisions, and costs measured where the tape was made."""

from dataclasses import dataclass
from pathlib import Path

from coupler.errors import ConfigError
from coupler.summary import Summary, read_summary


@dataclass(frozen=True)
class PhysicsCost:
    """What the run that made a tape took.

    Parameters
    ----------
    loop : float
        Its steps without set-up and recording, on the slowest rank [s].
    truth : float
        Thereof the truth of all elements [s].
    elements : int
        Decisions of all ranks.
    ranks : int
        How many.
    steps : int
        Of the run.
    """

    loop: float
    truth: float
    elements: int
    ranks: int
    steps: int


def physics_cost(folder: Path) -> PhysicsCost:
    """Read what the run that made a tape took from its ``summary.json``.

    Raises
    ------
    ConfigError
        If the run has not finished, or its truth was not measured.

    Collective: no.
    """
    path = folder / "summary.json"
    try:
        summary = read_summary(path)
    except (OSError, ValueError):
        raise ConfigError(
            f"{path} is not there or is no summary: what the truth costs is read from it. Let the run that records the "
            "tape finish."
        ) from None
    seconds, truth = summary.seconds, summary.truth_seconds_per_element * summary.elements / summary.ranks
    if truth <= 0:
        raise ConfigError(f"By {path} the truth took no time, so nothing can be foretold from this tape.")
    loop = max(seconds.total - seconds.setup - seconds.io, truth)
    return PhysicsCost(loop, truth, summary.elements, summary.ranks, summary.steps)


@dataclass(frozen=True)
class TrainingCost:
    """What the trainings of a run take.

    Parameters
    ----------
    rounds : tuple of float
        Seconds of each, from its begin to the version that can be asked, on a core of its own [s].
    lag : int
        Steps after which a version takes over; ranks wait for one that is late.
    """

    rounds: tuple[float, ...]
    lag: int

    def delay(self, step: float, ranks: int, cores: int) -> float:
        """Say how much longer the steps take for them [s].

        A trainer beside as many ranks as there are cores takes its share of them while it trains, until the ranks have
        come to the step at which its version takes over; then they wait, and it has a core to itself.

        Parameters
        ----------
        step : float
            What a step takes without trainings [s].
        ranks, cores : int
            Of the run.
        """
        share = min(1.0, cores / (ranks + 1))
        together = self.lag * step
        return sum(min(each, together) * (1.0 / share - 1.0) + max(each - together, 0.0) for each in self.rounds)


def predicted_speedup(physics: PhysicsCost, taped: Summary, training: TrainingCost, cores: int) -> float:
    """Foretell how many times faster than physics alone a run would be, set-up left out.

    Truth and answers are what was counted on the tape, at the cost measured per element; all else of a step stays.

    Parameters
    ----------
    physics : PhysicsCost
        Of the run that made the tape.
    taped : Summary
        Of the configuration on the tape.
    training : TrainingCost
        What its trainings took there.
    cores : int
        That ranks, server and trainer share.

    Collective: no.
    """
    decisions = taped.decisions
    elements = max(taped.elements, 1)
    truth = physics.truth * (1.0 - decisions.accepted / elements)
    asked = physics.elements / physics.ranks * (1.0 - decisions.disabled / elements)
    coupled = physics.loop - physics.truth + truth + asked * taped.surrogate_seconds_per_element
    return physics.loop / (coupled + training.delay(coupled / max(physics.steps, 1), physics.ranks, cores))
