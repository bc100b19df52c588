"""The checkpoints of a run: the newest few stay, and the newest one that is whole is where a run goes on."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from coupler.checkpoint.file import Checkpoint, Column, write_checkpoint
from coupler.checkpoint.plain import Plain
from coupler.errors import CouplerError

_log = logging.getLogger("coupler.checkpoint")
_NAME = re.compile(r"step-(\d{9,})\.h5")


class Shelf:
    """The folder of a run's checkpoints, ``step-000000120.h5`` and so on.

    Parameters
    ----------
    folder : Path
        The folder; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Give the steps of the checkpoints that are there, ascending. Collective: no."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match.group(1)) for match in matches if match)

    def path(self, step: int) -> Path:
        """Give the path of the checkpoint of a step."""
        return self.folder / f"step-{step:09d}.h5"

    def put(self, step: int, columns: Iterable[Column], facts: Callable[[], Mapping[str, Plain]], keep: int) -> None:
        """Write the checkpoint of a step, then delete the oldest beyond the number to keep.

        Raises
        ------
        OSError
            If it cannot be written; those before are left as they are.

        Collective: rank 0 does this; the others only gather, with :func:`write_checkpoint`.
        """
        self.folder.mkdir(exist_ok=True)
        write_checkpoint(self.path(step), columns, facts)
        for old in self.steps()[:-keep]:
            self.path(old).unlink(missing_ok=True)

    def newest(self) -> Checkpoint:
        """Open the newest checkpoint that is whole, and say which ones were not.

        Raises
        ------
        CouplerError
            If there is none.

        Collective: no; one rank does it for all.
        """
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            try:
                found = Checkpoint.read(self.path(step))
            except CouplerError as error:
                damaged.append(str(error))
                continue
            for said in damaged:
                _log.warning("%s; the run goes on from the checkpoint before it, of step %d.", said, step)
            return found
        if damaged:
            raise CouplerError(
                f"No checkpoint of {self.folder.parent} can be used: {'; '.join(damaged)}. Restore one from a copy, "
                "or run the case again in another folder."
            )
        raise CouplerError(
            f"{self.folder.parent} has no checkpoint to go on from: the run ended before its first one, or with "
            "run.checkpoints = 0. Run the case again in another folder."
        )

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints after a step, and what a killed writer left. Collective: no."""
        for later in (one for one in self.steps() if one > step):
            self.path(later).unlink(missing_ok=True)
        for part in self.folder.glob(".*.part"):
            part.unlink(missing_ok=True)
