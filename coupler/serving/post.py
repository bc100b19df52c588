"""A post: what one actor of the run does at a time. Whoever holds it may be lost; then another takes its place."""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from coupler.errors import CouplerError
from coupler.records import EventKind, Notice
from coupler.serving.actor import ActorReport
from coupler.serving.losses import Losses, RestartRule

_log = logging.getLogger("coupler")
# Threads of an actor that its supervisor deals with: one stays, one reports, one leaves.
CARE, CARE_THREADS = "care", 3
# Longest wait for an actor to start: a first import of torch from a cold network file system is slow [s].
START_SECONDS = 180.0
# How often an actor is asked how it is, as a share of the silence that is too long.
_ASKING_SHARE = 1 / 6


class PostKind(Enum):
    """What the holder of a post does: the kinds of event that its loss and its return are."""

    SERVER = (EventKind.SERVER_LOST, EventKind.SERVER_BACK)
    TRAINER = (EventKind.TRAINER_LOST, EventKind.TRAINER_BACK)


class _Standing(Enum):
    HELD, VACANT, STARTING, GIVEN_UP = range(4)


@dataclass(frozen=True)
class Care:
    """How posts are looked after.

    Parameters
    ----------
    rule : RestartRule
        How often the same post may be filled again.
    silence : float
        An actor that has not answered its supervisor, or has been at one piece of work, for so long is ended [s].
    """

    rule: RestartRule = field(default_factory=RestartRule)
    silence: float = 30.0


class Post:
    """One post, filled again when its holder is lost.

    Parameters
    ----------
    kind : PostKind
        What its holder does.
    name : str
        In words, such as "the server on host1".
    start : callable
        Starts an actor for it and gives the handle; None if that makes no sense yet. Raises CouplerError if there is
        no place for one.
    begin : callable
        Told of an actor that is there: lets it do its work.
    local : bool
        Whether actors for it are on this machine, where a stopped one can be killed without Ray's help.

    Attributes
    ----------
    actor : Ray actor handle or None
        The holder.
    """

    def __init__(
        self,
        kind: PostKind,
        name: str,
        start: Callable[[], Any],
        begin: Callable[[Any], None] = lambda actor: None,
        *,
        local: bool = True,
    ) -> None:
        self.name = name
        self.actor: Any = None
        self._kind, self._start, self._begin, self._local = kind, start, begin, local
        self._standing, self._losses = _Standing.VACANT, Losses()
        self._due = self._lost_at = self._asked_at = 0.0
        self._stay: Any = None
        self._asked: Any = None
        self._pid = 0

    @property
    def held(self) -> bool:
        """Whether somebody holds it, as far as is known."""
        return self._standing is _Standing.HELD

    @property
    def given_up(self) -> bool:
        """Whether it stays vacant."""
        return self._standing is _Standing.GIVEN_UP

    def fill(self) -> Any:
        """Start its first holder; give what tells that it is there. Raises CouplerError if it cannot be started."""
        self.actor = self._start()
        self._asked = _report(self.actor)
        return self._asked

    def open(self) -> None:
        """Let the first holder begin, which is there by now."""
        import ray

        self._take_on(ray.get(self._asked))

    def look(self, now: float, care: Care) -> list[Notice]:
        """See how the holder is, and do what is due.

        Parameters
        ----------
        now : float
            Of the monotonic clock [s].
        care : Care
            How posts are looked after.

        Returns
        -------
        list of Notice
            What has changed.
        """
        if self._standing is _Standing.HELD:
            return self._watch(now, care)
        if self._standing is _Standing.STARTING:
            return self._await_start(now, care)
        if self._standing is _Standing.VACANT and now >= self._due:
            return self._fill_again(now, care)
        return []

    def _watch(self, now: float, care: Care) -> list[Notice]:
        if _done(self._stay):
            return self._lose(now, care, "its process ended")
        if self._asked is None:
            if now - self._asked_at >= care.silence * _ASKING_SHARE:
                self._asked, self._asked_at = _report(self.actor), now
            return []
        if _done(self._asked):
            report, self._asked = _value(self._asked), None
            if report is not None and report.busy_seconds > care.silence:
                return self._end(now, care, f"it has been at one question for {report.busy_seconds:.0f} s")
        elif now - self._asked_at > care.silence:
            return self._end(now, care, f"it has not answered for {care.silence:g} s")
        return []

    def _await_start(self, now: float, care: Care) -> list[Notice]:
        if not _done(self._asked):
            if now - self._asked_at > START_SECONDS:
                return self._end(now, care, f"it did not start within {START_SECONDS:.0f} s")
            return []
        report = _value(self._asked)
        if report is None:
            return self._lose(now, care, "it ended while it started")
        self._take_on(report)
        return [Notice(self._kind.value[1], f"{self.name} is back, {now - self._lost_at:.1f} s after it was lost")]

    def _fill_again(self, now: float, care: Care) -> list[Notice]:
        try:
            self.actor = self._start()
        except CouplerError as error:
            return self._lose(now, care, str(error))
        if self.actor is not None:
            self._standing, self._asked, self._asked_at = _Standing.STARTING, _report(self.actor), now
        return []

    def _take_on(self, report: ActorReport) -> None:
        self._pid, self._standing = report.pid, _Standing.HELD
        self._stay, self._asked, self._asked_at = _care(self.actor, "stay"), None, time.monotonic()
        self._begin(self.actor)

    def _end(self, now: float, care: Care, why: str) -> list[Notice]:
        """End a holder that is of no use, for certain: it must not wake up one day beside the next one."""
        import ray

        if self._local and self._pid and self._standing is _Standing.HELD:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        ray.kill(self.actor)
        return self._lose(now, care, why)

    def _lose(self, now: float, care: Care, why: str) -> list[Notice]:
        if self._standing is _Standing.HELD:
            self._lost_at = now
        self.actor, self._losses = None, self._losses.after(now, care.rule)
        if self._losses.too_many(care.rule):
            self._standing = _Standing.GIVEN_UP
            said = f"{self.name} is given up: {why}, {_often(len(self._losses.times))} within {care.rule.window:g} s"
            return [Notice(EventKind.GIVEN_UP, said)]
        pause = self._losses.pause(care.rule)
        self._standing, self._due = _Standing.VACANT, now + pause
        soon = f"in {pause:g} s" if pause else "at once"
        return [Notice(self._kind.value[0], f"{self.name} is lost: {why}; it is started again {soon}")]


def _often(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def _care(actor: Any, method: str) -> Any:
    return getattr(actor, method).options(concurrency_group=CARE).remote()


def _report(actor: Any) -> Any:
    return _care(actor, "report")


def _done(reply: Any) -> bool:
    import ray

    return bool(ray.wait([reply], timeout=0)[0])


def _value(reply: Any) -> ActorReport | None:
    """Give what came back; None if nobody is there any more."""
    import ray

    try:
        return ray.get(reply)  # type: ignore[no-any-return]
    except ray.exceptions.RayError as error:
        _log.warning("an actor is lost: %s", str(error).strip().splitlines()[-1])
        return None
