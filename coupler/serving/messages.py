"""What rank 0 and its supervisor tell each other, over a pipe between the two."""

from dataclasses import dataclass

from coupler.errors import ConfigError, CouplerError
from coupler.serving.losses import LostAtStartError
from coupler.serving.modelplan import Wanted
from coupler.serving.serviceplan import ServicePlan


@dataclass(frozen=True)
class Serve:
    """Start these services."""

    plan: ServicePlan


@dataclass(frozen=True)
class Train:
    """Have a round trained; the task is a :class:`~coupler.learning.trainer.TrainingTask` as JSON."""

    operator: int
    number: int
    task: str


@dataclass(frozen=True)
class Want:
    """Servers that are started from now on must load these versions before they are asked."""

    wanted: tuple[Wanted, ...]


@dataclass(frozen=True)
class End:
    """End everything, and yourself."""


@dataclass(frozen=True)
class Connected:
    """There is a cluster; this is where its control service listens."""

    head: str


@dataclass(frozen=True)
class Serving:
    """All services are there."""


@dataclass(frozen=True)
class Refused:
    """What was asked for cannot be had; the sentence says why."""

    sentence: str
    mistake: bool
    lost: bool

    @classmethod
    def because_of(cls, error: CouplerError) -> "Refused":
        """Put an error into a message."""
        return cls(str(error), isinstance(error, ConfigError), isinstance(error, LostAtStartError))

    def error(self) -> CouplerError:
        """Give the error again."""
        kind = ConfigError if self.mistake else LostAtStartError if self.lost else CouplerError
        return kind(self.sentence)


@dataclass(frozen=True)
class TrainingFailed:
    """A round will never have an outcome."""

    operator: int
    why: str


@dataclass(frozen=True)
class Alive:
    """Nothing new."""


@dataclass(frozen=True)
class Broken:
    """Ray as a whole is of no use any more."""

    why: str
