"""The outcome of one configuration: what it came to, in a file of its own that is there once it is whole."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from coupler.atomic import replacing
from coupler.errors import CouplerError


class Outcome(BaseModel):
    """What a configuration came to.

    ``true_loss`` is the mean capped error per decision, which a tape knows; of a whole run it is estimated from the
    audits. ``kept`` says whether the certified loss was at most the target at the end, ``field_difference`` how far the
    fields were from the reference run's (worst field, root mean square over its range), where there is one.
    ``seconds`` is what the configuration itself took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    settings: dict[str, Any]
    status: Literal["finished", "failed"]
    sentence: str = ""
    speedup: float = 0.0
    true_loss: float = 0.0
    loss_bound: float = 0.0
    target: float = 0.0
    kept: bool = False
    accepted_share: float = 0.0
    audited_share: float = 0.0
    truth_share: float = 1.0
    models: int = 0
    retrainings: int = 0
    training_seconds: float = 0.0
    surrogate_seconds_per_element: float = 0.0
    field_difference: float | None = None
    seed: int = 0
    case_sha256: str = ""
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_outcome(path: Path) -> Outcome | None:
    """Read an outcome; None where there is none yet.

    Raises
    ------
    CouplerError
        If the file is there and is no outcome.

    Collective: no.
    """
    try:
        return Outcome.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise CouplerError(
            f"{path} is no outcome of a configuration: {first}. Remove it, and it is done again."
        ) from None
