"""Progress: where a run is, as one record per step; a line for people, a line of JSON for programs."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from coupler.records import Event

# A line this often at most [s]; mpirun passes lines on, it does not pass on a cursor that moves.
_LINE_SECONDS = 2.0
_BAR_CELLS = 20


@dataclass(frozen=True)
class Progress:
    """Where the run is.

    Parameters
    ----------
    step : int
        Steps whose decisions are counted here.
    elements : int
        Decisions in the last of these steps, over all ranks.
    decisions : dict of str to int
        What became of them, keyed as in ``summary.json``.
    loss_bound, loss_estimate, exceedance_bound : float
        The certificate of the whole run so far, per decision.
    threshold : float
        Threshold on the score.
    version : int
        The model that answers, 0 if none does.
    seconds : float
        Since the run's set-up began.
    server_restarts : int
        How often a server, a relay, or Ray with all of them was started again so far.
    """

    step: int
    elements: int
    decisions: dict[str, int]
    loss_bound: float
    loss_estimate: float
    exceedance_bound: float
    threshold: float
    version: int
    seconds: float
    server_restarts: int = 0

    def share(self, decision: str) -> float:
        """Share of the step's decisions in a category."""
        return self.decisions[decision] / self.elements if self.elements else 0.0


class MetricsFile:
    """``metrics.jsonl``: one line per step, readable while the run goes on.

    Parameters
    ----------
    path : Path
        The file; must not exist.
    length : int, optional
        Go on with the file that is there, after so many bytes; what follows them is cut off.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        self._file = path.open("xb" if length is None else "r+b", buffering=0)
        if length is not None:
            self._file.truncate(length)
            self._file.seek(length)

    @property
    def length(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def append(self, progress: Progress) -> None:
        """Write one line."""
        self.extend([progress])

    def extend(self, steps: Iterable[Progress]) -> None:
        """Write one line each, at once: who reads meanwhile never sees a part of a line."""
        self._file.write("".join([json.dumps(vars(progress)) + "\n" for progress in steps]).encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[Progress]:
    """Read ``metrics.jsonl`` during the run or after it: all lines that are there in full.

    Raises
    ------
    OSError, ValueError, TypeError
        If there is no such file, or a line of it is no progress of a run.

    Collective: no.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    return [progress_of(line) for line in lines if line.endswith(b"\n")]


def progress_of(line: bytes | str) -> Progress:
    """Read one line of the metrics."""
    return Progress(**json.loads(line))


class ProgressLines:
    """Prints a line every few seconds: bar, rate, shares, certified bound, model version.

    Parameters
    ----------
    steps : int
        Steps of the whole run.
    stream : text stream
        Where to print.
    """

    def __init__(self, steps: int, stream: TextIO = sys.stdout) -> None:
        self._steps, self._stream = steps, stream
        self._printed_at = self._started = time.perf_counter()
        self._printed_step = 0

    def due(self, step: int) -> bool:
        """Whether a line is to be printed at this step."""
        return step >= self._steps or time.perf_counter() - self._printed_at >= _LINE_SECONDS

    def update(self, progress: Progress) -> None:
        """Print a line if the last one is old enough or this is the end."""
        now = time.perf_counter()
        if not self.due(progress.step):
            return
        rate = (progress.step - self._printed_step) / max(now - self._printed_at, 1e-9)
        self._printed_at, self._printed_step = now, progress.step
        self.say(progress_line(progress, self._steps, rate))

    def say(self, line: str) -> None:
        """Print a line of somebody else's between the others, at once."""
        encoding = self._stream.encoding or "utf-8"  # a terminal that has no blocks must not end a run
        self._stream.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
        self._stream.flush()


def event_line(event: Event) -> str:
    """Say in one line what happened to a model or a switch."""
    return f"step {event.step:>5}  {event.kind.value}: {event.sentence}"


def progress_line(progress: Progress, steps: int, rate: float) -> str:
    """Say in one line where the run is."""
    filled = _BAR_CELLS * progress.step // max(steps, 1)
    bar = "█" * filled + "░" * (_BAR_CELLS - filled)
    model = f"model v{progress.version}" if progress.version else "no model yet"
    truth = 1.0 - progress.share("accepted")
    return (
        f"step {progress.step:>5}/{steps} {bar} {rate:6.1f} steps/s  accepted {progress.share('accepted'):5.1%}  "
        f"truth {truth:5.1%}  loss ≤ {progress.loss_bound:.4f}  {model}"
    )
