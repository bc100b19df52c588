"""A household: a supervisor, its folder and its reaper, from rank 0's side. It ends as a whole, and leaves nothing."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from coupler.serving.environment import surroundings
from coupler.serving.messages import Broken, End
from coupler.serving.placement import all_cores
from coupler.serving.reaper import Reaper

# Of what it said when it ended without having been told to, this much is passed on [bytes].
_LAST_WORDS = 2000
# How often who waits for a word does something else, too [s].
_LOOK_SECONDS = 0.5


class HouseholdLost(Exception):
    """The supervisor or its Ray is gone; in words, why."""


class Household:
    """One life of the supervisor.

    Parameters
    ----------
    address : str or None
        Of a running Ray cluster; None for one of its own.
    spans : int
        Nodes that must be in it.

    Attributes
    ----------
    spoken : bool
        Whether the supervisor has said anything yet: it has imported what it needs, which takes minutes where thousands
        of processes load the same files.
    """

    def __init__(self, address: str | None, spans: int) -> None:
        self.spoken = False
        self._folder = Path(tempfile.mkdtemp(prefix="coupler-ray-", dir="/tmp"))  # short, for the sockets in it
        self._line, theirs = Pipe()
        descriptor = theirs.fileno()
        given = [str(self._folder), str(descriptor), str(spans), *([address] if address else [])]
        with all_cores(), _undisturbed(), self._log.open("wb") as log:
            self._reaper = Reaper(self._folder)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "coupler.serving.supervisor", *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
                env=surroundings(),
                start_new_session=True,
            )
        theirs.close()

    def send(self, message: object) -> None:
        """Tell the supervisor something; if it is gone that is found out when it is listened to."""
        with suppress(OSError):
            self._line.send(message)

    def receive(self, within: float, meanwhile: Callable[[], object] = lambda: None) -> Any:
        """Give what the supervisor says next.

        Parameters
        ----------
        within : float
            It says something at least this often [s].
        meanwhile : callable, optional
            Called now and then as long as it says nothing.

        Raises
        ------
        HouseholdLost
            If it does not, or it is gone, or its Ray is.
        """
        try:
            ends = time.monotonic() + within
            while not self._line.poll(max(min(_LOOK_SECONDS, ends - time.monotonic()), 0.0)):
                if time.monotonic() > ends:
                    raise HouseholdLost(f"the supervisor has said nothing for {within:g} s")
                meanwhile()
            message = self._line.recv()
            self.spoken = True
        except (EOFError, OSError) as error:
            raise HouseholdLost(f"the supervisor has ended{self._last_words()}") from error
        if isinstance(message, Broken):
            raise HouseholdLost(message.why)
        return message

    def mend(self) -> None:
        """Start another reaper, if the one that there was is gone or stands still."""
        if not self._reaper.alive:
            before, self._reaper = self._reaper, Reaper(self._folder)
            before.abandon()

    def ask_to_end(self) -> None:
        """Have the supervisor end everything politely; it closes its end of the line when it is done."""
        self.send(End())

    def abandon(self) -> None:
        """End whatever is left, at once; nothing is when this returns."""
        self._process.kill()
        self._reaper.close()
        self._process.wait()
        self._line.close()

    @property
    def _log(self) -> Path:
        return self._folder / "supervisor.log"

    def _last_words(self) -> str:
        try:
            words = self._log.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f": {words[-1]}" if words else ""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let what is started not have SIGUSR1 delivered.

    A batch system signals every process of a job, and the servers must live until the checkpoint is written.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
