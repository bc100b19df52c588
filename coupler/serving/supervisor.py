"""The supervisor: the process that holds the run's line to Ray, starts the services, and starts them again.

It is a process of its own, started by rank 0: whatever becomes of Ray, at worst this process is lost with it, and a
rank is never in its midst. It ends when rank 0 says so or is gone; the reaper of its folder sees to what is left, and
if that is gone as well, the supervisor itself.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from coupler.errors import CouplerError
from coupler.serving.cluster import Cluster
from coupler.serving.messages import (
    Alive,
    Broken,
    Connected,
    End,
    Refused,
    Serve,
    Serving,
    Train,
    TrainingFailed,
    Want,
)
from coupler.serving.reaper import reap
from coupler.serving.service import Service

_log = logging.getLogger("coupler")
# How often it looks after everything, and how often it says that it does [s].
_LOOK_SECONDS, ALIVE_SECONDS = 0.25, 2.0


class Supervisor:
    """The supervisor's work, from its start to its end.

    Parameters
    ----------
    line : Connection
        To rank 0.
    """

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._saying, self._settled, self._ending = threading.Lock(), threading.Event(), threading.Event()
        self._said_at = 0.0

    def run(self, address: str | None, spans: int, folder: Path) -> None:
        """Connect, start what rank 0 asks for, and look after it until the end.

        Parameters
        ----------
        address, spans, folder
            As for :class:`Cluster`.
        """
        threading.Thread(target=self._beat, args=(folder,), daemon=True).start()
        try:
            cluster = Cluster(address, spans, folder)
        except CouplerError as error:
            self._say(Refused.because_of(error))
            return
        orphaned = False
        try:
            self._say(Connected(cluster.head))
            self._serve(cluster)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            _log.warning("rank 0 is gone")
            orphaned = True
        finally:
            self._settled.set()
            self._ending.set()
            cluster.close()
        if orphaned:
            reap(folder, os.getpid())  # the reaper is sooner, if it is there

    def _serve(self, cluster: Cluster) -> None:
        message = self._line.recv()
        if not isinstance(message, Serve):
            return
        watching = threading.Thread(target=self._watch, args=(cluster, message.plan.care.silence), daemon=True)
        watching.start()
        try:
            service = Service(cluster, message.plan)
        except CouplerError as error:
            self._say(Refused.because_of(error))
            return
        self._settled.set()
        self._say(Serving())
        try:
            self._look_after(service)
        finally:
            self._ending.set()
            service.close()

    def _beat(self, folder: Path) -> None:
        """Say that this process is alive while it starts everything, and end all of it where nobody hears that."""
        try:
            while not self._settled.is_set():
                self._say(Alive())
                self._settled.wait(ALIVE_SECONDS)
        except OSError:  # rank 0 is gone, and whoever starts a server may wait for it for minutes
            _log.warning("rank 0 is gone")
            reap(folder, os.getpid())
            os._exit(1)

    def _watch(self, cluster: Cluster, silence: float) -> None:
        """End this process when Ray as a whole is of no use any more: whoever waits for it would wait for long."""
        while not (why := cluster.broken(silence)):
            if self._ending.wait(_LOOK_SECONDS):
                return
        self._say(Broken(why))
        os._exit(1)

    def _look_after(self, service: Service) -> None:
        while True:
            if self._line.poll(_LOOK_SECONDS) and not self._obey(self._line.recv(), service):
                return
            notices = service.look()
            failures = [TrainingFailed(operator, why) for operator, why in service.rounds.failures().items()]
            self._tell([*notices, *failures])

    def _obey(self, message: object, service: Service) -> bool:
        """Do what rank 0 says, and say whether to go on."""
        if isinstance(message, Train):
            service.rounds.train(message.operator, message.number, message.task)
        elif isinstance(message, Want):
            service.want(message.wanted)
        return not isinstance(message, End)

    def _tell(self, messages: Sequence[object]) -> None:
        if not messages and time.monotonic() - self._said_at > ALIVE_SECONDS:
            messages = [Alive()]
        for message in messages:
            self._say(message)
            self._said_at = time.monotonic()

    def _say(self, message: object) -> None:
        with self._saying:
            self._line.send(message)


def main() -> None:
    """Supervise; on the command line are the folder, the line's descriptor, how many nodes, and the Ray address."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted at a terminal is rank 0, which ends us
    logging.basicConfig(level=logging.WARNING)
    folder, descriptor, spans, *address = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    Supervisor(Connection(int(descriptor))).run(address[0] if address else None, int(spans), Path(folder))


if __name__ == "__main__":
    main()
