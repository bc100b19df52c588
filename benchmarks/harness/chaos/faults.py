"""Faults: which process, which signal, when, and several of them to a run. The same seed draws the same list."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import count, pairwise
from signal import Signals

# What a stopped process does later: it goes on after so many seconds, from and to [s].
_STANDSTILL = (0.5, 8.0)
RANKS = (2, 3, 4)
MOST_FAULTS = 4


class Victim(StrEnum):
    """Whose process; the words are those its command line or its title is known by."""

    RANK = "rank"
    SERVER = "ray::Server"
    TRAINER = "ray::TrainingActor"
    RAYLET = "raylet"
    GCS = "gcs_server"
    SUPERVISOR = "coupler.serving.supervisor"
    REAPER = "coupler.serving.reaper"
    MPIRUN = "mpirun"


# Who cannot stand still for good in a run that ends.
NEEDED = (Victim.RANK, Victim.MPIRUN)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Parameters
    ----------
    victim : Victim
        Whose process.
    rank : int
        Which rank's, where it is a rank's.
    signal : str
        ``KILL``, ``TERM`` or ``STOP``.
    lasts : float
        How long what is stopped stands still [s]; infinite for what never goes on.
    after : float
        When: so long after the fault before it, or after the start of the run that it hits, as a share of the time an
        undisturbed run takes.
    """

    victim: Victim
    rank: int
    signal: str
    lasts: float
    after: float

    @property
    def fatal(self) -> bool:
        """Whether a run may end by it, to be resumed: without all its ranks there is none."""
        return self.victim in (Victim.RANK, Victim.MPIRUN) and self.signal != "STOP"

    @property
    def sent(self) -> Signals:
        """The signal."""
        return Signals[f"SIG{self.signal}"]

    def __str__(self) -> str:
        lasts = "" if self.signal != "STOP" else " for good" if self.lasts == float("inf") else f" {self.lasts:.1f} s"
        whose = f"rank {self.rank}" if self.victim is Victim.RANK else self.victim.name.lower()
        return f"{self.signal}{lasts} {whose} after {self.after:.2f}"


@dataclass(frozen=True)
class Trial:
    """One run and what is done to it.

    Parameters
    ----------
    number : int
        Its place in the list.
    case : str
        Which case runs.
    deterministic : bool
        Whether its bits are promised.
    ranks : int
        On how many ranks.
    faults : tuple of Fault
        One after the other; those that follow the end of a run hit the one that goes on with it.
    """

    number: int
    case: str
    deterministic: bool
    ranks: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        mode = "deterministic" if self.deterministic else "asynchronous"
        return f"{self.case} {mode} on {self.ranks}"


def draw(seed: int, cases: tuple[str, ...], first: int = 0) -> Iterator[Trial]:
    """Draw trials without end, beginning at one of them; each is the same whichever are drawn."""
    for number in count(first):
        chance = random.Random(f"{seed}/{number}")
        deterministic, ranks = chance.random() < 0.5, chance.choice(RANKS)
        moments = sorted(chance.random() for _ in range(chance.randint(1, MOST_FAULTS)))
        faults = [_fault(chance, ranks, end - start) for start, end in pairwise([0.0, *moments])]
        yield Trial(number, cases[number % len(cases)], deterministic, ranks, tuple(faults))


def _fault(chance: random.Random, ranks: int, after: float) -> Fault:
    victim = chance.choice(list(Victim))
    for_good = victim not in NEEDED and chance.random() < 0.5
    lasts = float("inf") if for_good else chance.uniform(*_STANDSTILL)
    return Fault(victim, chance.randrange(ranks), chance.choice(["KILL", "KILL", "STOP", "TERM"]), lasts, after)
