"""Watching a run from its folder, through the file system alone: from this machine or any that sees the folder.

Nothing is asked of the run and nothing is locked. Files are opened anew at every look, because a network file system
shows what another machine wrote only to whoever opens a file after that.
"""

import os
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coupler.case import Case
from coupler.config import case_from
from coupler.errors import CouplerError
from coupler.ledger import Ledger
from coupler.progress import Progress, progress_line, progress_of
from coupler.runfolder import RunFolder
from coupler.summary import Summary, read_summary

# How often the folder is looked at, and the ledger, which is written more rarely [s].
LOOK_SECONDS, _EVENTS_SECONDS = 1.0, 3.0
# Without a new step for so long, the watch says so [s].
STILL_SECONDS = 60.0
# Steps per second are those of the last so many seconds of the run.
_RATE_SECONDS = 30.0
_SHOWN_EVENTS = 6
_BAR_WIDTH = 40


@dataclass(frozen=True)
class Sight:
    """What can be seen of a run at one moment.

    Parameters
    ----------
    case : Case
        What it was asked to do.
    recent : tuple of Progress
        Its last steps, at least those of the last half minute; none before the first.
    events : tuple of str
        What happened to models and switches, in words, the last few.
    summary : Summary or None
        Once it has ended.
    still : float
        Seconds since something new was seen.
    """

    case: Case
    recent: tuple[Progress, ...] = ()
    events: tuple[str, ...] = ()
    summary: Summary | None = None
    still: float = 0.0

    @property
    def step(self) -> int:
        """The last step that was written down."""
        return self.recent[-1].step if self.recent else 0

    @property
    def rate(self) -> float:
        """Steps per second lately, by the run's own clock; 0 where nobody knows."""
        if len(self.recent) < 2:
            return 0.0
        first, last = self.recent[0], self.recent[-1]
        seconds = last.seconds - first.seconds
        return (last.step - first.step) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """What the remaining steps will take at this rate; None where nobody knows."""
        left = self.case.run.steps - self.step
        return left / self.rate if self.rate > 0 and left >= 0 else None


class Watch:
    """Follows the folder of a run.

    Parameters
    ----------
    folder : Path
        The run folder.
    clock : callable
        Gives seconds; tests move it.

    Raises
    ------
    CouplerError
        If the folder holds no run.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = RunFolder(folder), clock
        self._read_until = 0
        self._changed = self._clock()
        self._events_read = float("-inf")
        self._sight = Sight(_case_of(self._folder))

    def look(self) -> Sight:
        """Look at the folder again.

        Returns
        -------
        Sight
            What is seen now, together with what was before.

        Collective: no.
        """
        steps = self._new_steps()
        summary = _summary_of(self._folder)
        if steps or (summary is not None and self._sight.summary is None):
            self._changed = self._clock()
        self._sight = replace(
            self._sight,
            recent=_latest((*self._sight.recent, *steps)),
            events=self._events(ended=summary is not None),
            summary=summary,
            still=self._clock() - self._changed,
        )
        return self._sight

    def _new_steps(self) -> list[Progress]:
        """Read the lines that have come since the last look; half a line is left for the next."""
        try:
            with self._folder.metrics.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_until:  # a run that goes on from before has cut it
                    self._read_until = 0
                    self._sight = replace(self._sight, recent=())
                file.seek(self._read_until)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read_until += len(whole)
        try:
            return [progress_of(line) for line in whole.splitlines()]
        except (TypeError, ValueError) as error:
            raise CouplerError(
                f"{self._folder.metrics} holds a line that is no step of a run ({error}): it was written by something "
                "else, or by another version of coupler."
            ) from error

    def _events(self, *, ended: bool) -> tuple[str, ...]:
        """Read the events; a ledger that is just being written shows the same as before."""
        now = self._clock()
        if not ended and now - self._events_read < _EVENTS_SECONDS:
            return self._sight.events
        self._events_read = now
        try:
            rows = Ledger(self._folder.ledger).events[-_SHOWN_EVENTS:]
        except CouplerError:
            return self._sight.events
        return tuple(f"step {row['step']}  {row['kind'].decode()}: {row['sentence'].decode()}" for row in rows)


def watch(folder: Path, console: Console, *, once: bool = False, still: float = STILL_SECONDS) -> None:
    """Show a run until it ends: a picture that changes in a terminal, lines where the output is something else.

    Parameters
    ----------
    folder : Path
        The run folder.
    console : rich.console.Console
        Where to show it.
    once : bool
        Whether to look only once.
    still : float
        After so long without a new step, say so and go on [s].

    Raises
    ------
    CouplerError
        If the folder holds no run.

    Collective: no; it takes no part in the run.
    """
    seen = Watch(folder)
    if once or not console.is_terminal:
        _say(seen, console, once=once, still=still)
        return
    sight = seen.look()
    with Live(panel(sight, still), console=console, refresh_per_second=4, vertical_overflow="visible") as live:
        while sight.summary is None:
            time.sleep(LOOK_SECONDS)
            sight = seen.look()
            live.update(panel(sight, still))


def _say(seen: Watch, console: Console, *, once: bool, still: float) -> None:
    """Print a line whenever there is a new step, the end, and silence once."""
    said, warned, events = -1, False, 0
    while True:
        sight = seen.look()
        if sight.recent and sight.step > said:
            said, warned = sight.step, False
            console.print(escape(progress_line(sight.recent[-1], sight.case.run.steps, sight.rate)))
        for event in sight.events if sight.events and events != hash(sight.events) else ():
            console.print(escape(event))
        events = hash(sight.events)
        if sight.still > still and not warned:
            warned = True
            console.print(escape(stillness(sight)))
        if sight.summary is not None:
            console.print(escape(ending(sight.summary)))
        if once or sight.summary is not None:
            return
        time.sleep(LOOK_SECONDS)


def panel(sight: Sight, still: float = STILL_SECONDS) -> Group:
    """Show what is seen as a bar, a table of figures and the last events."""
    steps = sight.case.run.steps
    head = Text(f"{_kernel(sight.case)}, {sight.case.controller.mode}   step {sight.step} of {steps}", style="bold")
    bar = ProgressBar(total=max(steps, 1), completed=sight.step, width=_BAR_WIDTH)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for name, value in figures(sight):
        table.add_row(Text(name, style="dim"), Text(value))
    above = Table.grid()
    for line in (head, bar):
        above.add_row(line)
    parts: list[Table | Text] = [above, table, *(Text(event, style="cyan") for event in sight.events)]
    if sight.summary is not None:
        parts.append(Text(ending(sight.summary)))
    elif sight.still > still:
        parts.append(Text(stillness(sight), style="yellow"))
    return Group(*parts)


def figures(sight: Sight) -> Sequence[tuple[str, str]]:
    """Give what is known of a run, name by name, in words."""
    if not sight.recent:
        return [("state", "no step has been made yet")]
    last, target = sight.recent[-1], sight.case.controller.target
    left = sight.seconds_left
    shown = [
        ("steps per second", f"{sight.rate:.3g}" if sight.rate else "–"),
        ("left", "–" if left is None else str(timedelta(seconds=round(left)))),
    ]
    if sight.case.controller.mode != "physics":
        shown += [
            ("accepted", f"{last.share('accepted'):.1%}"),
            ("audited", f"{last.share('audited'):.1%}"),
            ("certified loss", f"{last.loss_bound:.3g} per decision, target {target:g}"),
            ("threshold", f"{last.threshold:.3g}" if last.version else "–"),
            ("model", f"v{last.version}" if last.version else "none yet"),
        ]
    if last.server_restarts:
        shown.append(("servers started again", str(last.server_restarts)))
    return shown


def stillness(sight: Sight) -> str:
    """Say that nothing has happened for a while."""
    return (
        f"Nothing new for {sight.still:.0f} s, the last step is {sight.step}: the run is slow, was stopped or killed, "
        "or its file system is late. Watching on; Ctrl-C ends the watch, not the run."
    )


def ending(summary: Summary) -> str:
    """Say how a run ended."""
    return f"The run has ended: {summary.status}, {summary.steps} steps. {summary.certificate.sentence}"


def _latest(steps: tuple[Progress, ...]) -> tuple[Progress, ...]:
    """Keep the steps that the rate is taken from."""
    if not steps:
        return ()
    since = steps[-1].seconds - _RATE_SECONDS
    # With one older step, two that are far apart still have a rate.
    first = next(place for place, step in enumerate(steps) if step.seconds >= since)
    return steps[max(first - 1, 0) :]


def _case_of(folder: RunFolder) -> Case:
    if not folder.case.is_file():
        raise CouplerError(
            f"{folder.path} is not the folder of a run, as it has no case.toml, so there is nothing to watch: give the "
            "folder that --out named, or the one that the run printed."
        )
    try:
        return case_from(tomllib.loads(folder.case.read_text(encoding="utf-8")), folder=folder.path)
    except ValueError as error:
        raise CouplerError(f"{folder.case} cannot be read ({error}): it was cut short or changed.") from error


def _summary_of(folder: RunFolder) -> Summary | None:
    try:
        return read_summary(folder.summary)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CouplerError(f"{folder.summary} cannot be read ({error}): it was changed after the run.") from error


def _kernel(case: Case) -> str:
    return (case.kernel.name or "a loop of its own").rpartition(":")[2]
