"""Training rounds: each has a number and one published outcome, a small file that every rank can see."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from coupler.atomic import creating
from coupler.errors import CouplerError

TRAINING_LOCK = ".training"
"""The file in the models' folder whose lock a trainer holds while it trains."""


class RoundOutcome(BaseModel):
    """How a training round ended.

    Parameters
    ----------
    candidate : int or None
        Version to promote; None if the round brought none.
    sentence : str
        What happened, in words.
    failed : bool
        Whether the trainer itself is lost: no further round will come.
    began, ended : float or None
        When the round ran, by ``time.perf_counter`` of the trainer's machine, for the run's timeline [s]; None where
        nobody knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: int | None
    sentence: str
    failed: bool = False
    began: float | None = None
    ended: float | None = None


def published_seconds(folder: Path) -> tuple[float, ...]:
    """Give what every training round of a run took, of all operators, where it is known [s].

    Parameters
    ----------
    folder : Path
        The models' folder.

    Collective: no.
    """
    found = (
        RoundOutcome.model_validate_json(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*-round-*.json"))
    )
    return tuple(one.ended - one.began for one in found if one.began is not None and one.ended is not None)


class RoundFolder:
    """The outcomes of one operator's rounds, ``NAME-round-0001.json`` beside its models.

    Parameters
    ----------
    folder : Path or str
        The models' folder.
    operator : str
        Operator name.
    """

    def __init__(self, folder: Path | str, operator: str) -> None:
        self._folder, self._operator = Path(folder), operator

    def publish(self, number: int, outcome: RoundOutcome) -> None:
        """Write an outcome: it is not there, or it is whole, and the first one written stays.

        Rank 0 gives up a trainer that was only slow, and then both have something to say; all ranks must read the same.
        """
        path = self._path(number)
        with creating(path) as temporary:
            temporary.write_text(outcome.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def published(self, number: int) -> bool:
        """Whether the round has ended; cheap enough to ask every step."""
        return self._path(number).exists()

    def read(self, number: int) -> RoundOutcome:
        """Read the outcome of a round that has ended.

        Raises
        ------
        CouplerError
            If the file is missing or not an outcome.
        """
        try:
            return RoundOutcome.model_validate_json(self._path(number).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CouplerError(
                f"The outcome of training round {number} cannot be read from {self._path(number)}: {error}"
            ) from error

    def forget_from(self, number: int) -> None:
        """Delete the outcomes of a round and of all after it: they will be trained again. Collective: no."""
        pattern = re.compile(rf"{re.escape(self._operator)}-round-(\d{{4,}})\.json")
        for path in list(self._folder.iterdir()):
            match = pattern.fullmatch(path.name)
            if match and int(match.group(1)) >= number:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._operator}-round-{number:04d}.json"
