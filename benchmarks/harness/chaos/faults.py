"""Faults: which process, which signal, when, in which run. The same seed draws the same list."""

import random
import signal as signals
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

# What a stopped process does later: it goes on after so many seconds, from and to [s].
_STANDSTILL = (0.5, 8.0)
RANKS = (2, 3, 4)


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


# What no run outlives: without all its ranks there is none.
FATAL = (Victim.RANK, Victim.MPIRUN)


@dataclass(frozen=True)
class Fault:
    """One fault.

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
    victim : Victim
        Whose process.
    signal : str
        ``KILL``, ``TERM`` or ``STOP``.
    lasts : float
        How long what is stopped stands still [s]; infinite for what never goes on.
    moment : float
        When, as a share of the time an undisturbed run takes.
    """

    number: int
    case: str
    deterministic: bool
    ranks: int
    victim: Victim
    signal: str
    lasts: float
    moment: float

    @property
    def fatal(self) -> bool:
        """Whether a run may end by it, to be resumed."""
        return self.victim in FATAL

    @property
    def sent(self) -> signals.Signals:
        """The signal."""
        return signals.Signals[f"SIG{self.signal}"]

    def __str__(self) -> str:
        lasts = "" if self.signal != "STOP" else " for good" if self.lasts == float("inf") else f" {self.lasts:.1f} s"
        mode = "deterministic" if self.deterministic else "asynchronous"
        what = f"{self.signal}{lasts} {self.victim.name.lower()}"
        return f"{self.case} {mode} on {self.ranks}: {what} at {self.moment:.2f}"


def draw(seed: int, count: int, cases: tuple[str, ...]) -> Iterator[Fault]:
    """Draw so many faults; the first ones are the same however many are drawn."""
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        victim = chance.choice(list(Victim))
        sent = chance.choice(["KILL", "KILL", "STOP", "TERM"])
        for_good = victim not in FATAL and chance.random() < 0.5
        yield Fault(
            number=number,
            case=cases[number % len(cases)],
            deterministic=chance.random() < 0.5,
            ranks=chance.choice(RANKS),
            victim=victim,
            signal=sent,
            lasts=float("inf") if for_good else chance.uniform(*_STANDSTILL),
            moment=chance.random(),
        )
