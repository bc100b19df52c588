"""TensorBoard: scalars over the steps and events as text, below the run folder. The only file that imports it."""

from collections.abc import Sequence
from typing import Any

from coupler.errors import ConfigError
from coupler.progress import Progress
from coupler.records import Event
from coupler.summary import Summary
from coupler.tracking.scalars import scalars
from coupler.tracking.tracker import Start, Tracker


class TensorBoardTracker(Tracker):
    """Writes event files into ``tensorboard/`` of the run folder; look with ``tensorboard --logdir DIR``.

    Parameters
    ----------
    folder : str, optional
        Another place for them.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._writer: Any = None

    def begin(self, start: Start) -> None:
        """Open the files.

        Raises
        ------
        ConfigError
            If the package is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                'output.tracker = "tensorboard" needs a package that is not installed: pip install '
                "'coupler[tensorboard]'."
            ) from error
        self._operators = start.operators
        self._writer = SummaryWriter(self._folder or str(start.folder / "tensorboard"))
        self._writer.add_text("case", "\n".join(f"    {name} = {value}" for name, value in start.flat_case().items()))

    def steps(self, steps: Sequence[Progress]) -> None:
        """Write the last of these steps."""
        for name, value in scalars(steps[-1]).items():
            self._writer.add_scalar(name, value, steps[-1].step)

    def event(self, event: Event) -> None:
        """Write what happened, as text."""
        self._writer.add_text(f"{self._operators[event.operator]}/{event.kind.value}", event.sentence, event.step)

    def end(self, summary: Summary) -> None:
        """Write the certificate's sentence."""
        self._writer.add_text("certificate", summary.certificate.sentence, summary.steps)

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
