"""Supervision: what rank 0 has of the services. Nothing of it waits for Ray once the run is going.

A thread listens to the supervisor, asleep unless there is something to hear. If the supervisor or its Ray is lost, the
thread ends what is left of them and starts both again, with pauses that grow, and gives up if that happens too often.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from coupler.errors import ConfigError, CouplerError
from coupler.learning.rounds import RoundFolder
from coupler.learning.trainer import TrainingTask
from coupler.records import EventKind, Notice
from coupler.serving.household import Household, HouseholdLost
from coupler.serving.losses import Losses, LostAtStartError, RestartRule
from coupler.serving.messages import Alive, Connected, Refused, Serve, Serving, Train, TrainingFailed, Want
from coupler.serving.modelplan import Wanted
from coupler.serving.post import START_SECONDS
from coupler.serving.serviceplan import ServicePlan

T = TypeVar("T")
_log = logging.getLogger("coupler")
# Longest wait for Ray to be there [s]; for a word of the supervisor meanwhile; and for everything to end.
_CONNECT_SECONDS, _QUIET_SECONDS, _END_SECONDS = 120.0, 45.0, 20.0


@dataclass(frozen=True)
class _Round:
    """A training round that was asked for."""

    message: Train
    models: str
    operator: str

    @property
    def open(self) -> bool:
        return not RoundFolder(self.models, self.operator).published(self.message.number)


def _nothing() -> None:
    pass


class Supervision:
    """The services of the run, as rank 0 has them.

    Parameters
    ----------
    address : str or None
        Of a running Ray cluster; None takes ``RAY_ADDRESS``, and without that one is started on loopback.
    spans : int
        Nodes that must be in it.
    rule : RestartRule
        How often the supervisor and its Ray are started again.
    meanwhile : callable
        Called now and then as long as the start takes, by the thread that waits for it.

    Raises
    ------
    ConfigError
        If the given cluster does not answer, or none is given and one node is not enough.
    CouplerError
        If Ray does not start.

    Attributes
    ----------
    head : str
        ``address:port`` of the cluster's control service.
    """

    def __init__(self, address: str | None, spans: int, rule: RestartRule, meanwhile: Callable[[], object]) -> None:
        self._address, self._spans, self._rule, self._meanwhile = address, spans, rule, meanwhile
        self._closing, self._lock = threading.Event(), threading.Lock()
        self._plan: ServicePlan | None = None
        self._thread: threading.Thread | None = None
        self._notices: list[Notice] = []
        self._rounds: dict[int, _Round] = {}
        self._failures: dict[int, str] = {}
        self._given_up = ""
        self._losses = Losses()
        self._dismiss: Callable[[], None] = _nothing
        self._household = Household(address, spans)
        try:
            self.head = self._persistently(self._connected, self._anew)
        except BaseException:
            self._household.abandon()
            raise

    def serve(self, plan: ServicePlan, dismiss: Callable[[], None] = _nothing) -> None:
        """Start the services, and look after them from now on.

        Parameters
        ----------
        plan : ServicePlan
            What to start.
        dismiss : callable
            Called if all is given up, from another thread: those who wait for a server need not any longer.

        Raises
        ------
        ConfigError, CouplerError
            As :class:`~coupler.serving.service.Service`.
        """
        self._plan, self._dismiss = plan, dismiss
        self._persistently(self._serving, self._move_on)
        self._meanwhile = _nothing  # from here on another thread waits, which must not do the rank's work
        self._thread = threading.Thread(target=self._listen, name="supervision", daemon=True)
        self._thread.start()

    def train(self, operator: int, number: int, task: TrainingTask) -> None:
        """Have a training round begun; its outcome appears in the models' folder."""
        message = Train(operator, number, task.model_dump_json())
        with self._lock:
            self._rounds[operator] = _Round(message, task.models, task.operator)
            self._failures.pop(operator, None)
        self._household.send(message)

    def training_failure(self, operator: int) -> str | None:
        """Say why the operator's round under way will never have an outcome, if that is so."""
        with self._lock:
            return self._given_up or self._failures.get(operator)

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Be told which versions are asked from now on: servers that are started again must have them."""
        with self._lock:
            assert self._plan is not None
            if tuple(wanted) == self._plan.wanted:
                return
            self._plan = replace(self._plan, wanted=tuple(wanted))
        self._household.send(Want(tuple(wanted)))

    def notices(self) -> list[Notice]:
        """Give what has happened since this was last asked."""
        if not self._notices:
            return []
        with self._lock:
            notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        """End everything that was started."""
        self._closing.set()
        with self._lock:
            household = self._household
        if self._thread is not None:
            household.ask_to_end()
            self._thread.join(_END_SECONDS)
        household.abandon()
        if self._thread is not None:
            self._thread.join()

    def _persistently(self, start: Callable[[], T], again: Callable[[], T]) -> T:
        """Start something. What is lost meanwhile is started again; what is refused for a reason, only once."""
        refusals, losses = 0, Losses()
        while True:
            try:
                return start()
            except ConfigError:
                raise
            except CouplerError as error:
                # All of them count, however far apart: somebody waits for the run to begin.
                losses = Losses((*losses.times, time.monotonic()))
                refusals += not isinstance(error, LostAtStartError)
                if refusals > 1 or losses.too_many(self._rule):
                    raise
                _log.warning("%s It is tried again.", error)
            self._household.abandon()
            time.sleep(losses.pause(self._rule))
            start = again

    def _anew(self) -> str:
        self._household = Household(self._address, self._spans)
        return self._connected()

    def _connected(self) -> str:
        message = self._said(_CONNECT_SECONDS)
        assert isinstance(message, Connected), message
        return message.head

    def _serving(self) -> None:
        with self._lock:
            assert self._plan is not None
            self._household.send(Serve(self._plan))
        message = self._said(2 * START_SECONDS)
        assert isinstance(message, Serving), message

    def _said(self, within: float) -> object:
        """Give what the supervisor says to what it was asked for; a refusal is raised."""
        ends = time.monotonic() + within
        try:
            while isinstance(message := self._next_word(within), Alive):
                if time.monotonic() > ends:
                    raise CouplerError(f"Ray and its servers did not start within {within:g} s. Try `coupler doctor`.")
        except HouseholdLost as lost:
            raise LostAtStartError(f"Ray and its servers did not start: {lost}. Try `coupler doctor`.") from lost
        if isinstance(message, Refused):
            raise message.error()
        return message

    def _next_word(self, within: float) -> object:
        """Give what the supervisor says next; before its first word it may be silent for as long as all may take."""
        within = min(_QUIET_SECONDS, within) if self._household.spoken else within
        return self._household.receive(within, self._meanwhile)

    def _listen(self) -> None:
        assert self._plan is not None
        while not self._closing.is_set():
            try:
                self._take(self._household.receive(self._plan.care.silence))
                self._household.mend()
            except HouseholdLost as lost:
                if self._closing.is_set() or not self._start_again(str(lost)):
                    return

    def _take(self, message: object) -> None:
        with self._lock:
            if isinstance(message, Notice):
                self._notices.append(message)
                if message.kind is EventKind.GIVEN_UP:
                    self._warn(message.sentence)
            elif isinstance(message, TrainingFailed):
                self._failures[message.operator] = message.why

    def _start_again(self, why: str) -> bool:
        """Start supervisor and Ray again until they are there; say whether they are."""
        lost_at, rule = time.monotonic(), self._rule
        while True:
            self._household.abandon()
            self._losses = self._losses.after(time.monotonic(), rule)
            if self._losses.too_many(rule):
                self._give_up(why)
                return False
            pause = self._losses.pause(rule)
            soon = f"in {pause:g} s" if pause else "at once"
            self._tell(EventKind.RAY_LOST, f"Ray is lost: {why}; it is started again {soon}")
            if self._closing.wait(pause):
                return False
            try:
                self._move_on()
                self._tell(EventKind.RAY_BACK, f"Ray is back, {time.monotonic() - lost_at:.1f} s after it was lost")
                return True
            except CouplerError as error:
                why = str(error)
            if self._closing.is_set():
                return False

    def _move_on(self) -> None:
        """Start another household, with all that the one before had to do."""
        with self._lock:
            if self._closing.is_set():
                raise CouplerError("the run ends")
            self._household = Household(self._address, self._spans)
        self._connected()
        self._serving()
        with self._lock:
            messages = [one.message for one in self._rounds.values() if one.open]
        for message in messages:
            self._household.send(message)

    def _give_up(self, why: str) -> None:
        said = f"Ray is given up, after {len(self._losses.times)} losses: {why}"
        with self._lock:
            self._given_up = said
            self._notices.append(Notice(EventKind.GIVEN_UP, said))
            self._warn(said)
        self._dismiss()

    def _tell(self, kind: EventKind, sentence: str) -> None:
        with self._lock:
            self._notices.append(Notice(kind, sentence))

    def _warn(self, sentence: str) -> None:
        _log.warning("%s. The run goes on without what it did, to its end.", sentence)
