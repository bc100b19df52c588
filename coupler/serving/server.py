"""The server: the actor that owns a device and answers every rank of its node through the arena."""

import logging
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from coupler.exchange import Arena, ArenaAddress, Slot
from coupler.exchange.doorbell import ring, wait_for_change
from coupler.exchange.guard import Guard
from coupler.learning.registry import Registry
from coupler.serving.predictor import Predictor, choose_device

_log = logging.getLogger("coupler")
# How long an idle server sleeps before it looks again whether it should stop [s].
_IDLE_SECONDS = 0.2


@dataclass(frozen=True)
class ServerReport:
    """What a server says of itself once it listens."""

    pid: int
    device: str
    threads: int


class Server:
    """Answers questions in the arena until asked to stop; a Ray actor with one thread for that and one for loading.

    Parameters
    ----------
    address : ArenaAddress
        The node's arena.
    operators : tuple of str
        Operator names, indexed as the slots index them.
    models : str
        Folder of the registry the versions are loaded from.
    device : str
        ``auto``, ``cpu`` or ``cuda:N``.
    threads : int
        Chunks computed at the same time.
    cores : tuple of int
        Where to run.
    """

    def __init__(
        self,
        address: ArenaAddress,
        operators: tuple[str, ...],
        models: str,
        device: str,
        threads: int,
        cores: tuple[int, ...],
    ) -> None:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(1)  # chunks are dealt out to threads instead
        self._threads = threads
        self._arena = Arena.attach(address)
        self._registry = Registry(Path(models))
        self._operators = operators
        self._device = choose_device(device)
        columns = {slot.operator: (slot.n_in, slot.n_out) for slot in address.layout.slots}
        self._guards = [Guard() for _ in operators]
        self._predictors = [Predictor(*columns[index], self._device, threads) for index in range(len(operators))]
        _log.addHandler(logging.FileHandler(Path(models).parent / "server.log", delay=True))
        self._arena.server_pid[0] = os.getpid()

    def report(self) -> ServerReport:
        """Say where it runs; the call returns once the actor exists."""
        return ServerReport(os.getpid(), str(self._device), self._threads)

    def load(self, operator: int, version: int) -> None:
        """Load a version from the registry; ranks may ask for it once this has returned."""
        surrogate = self._registry.load(self._registry.card(self._operators[operator], version))
        self._predictors[operator].load(version, surrogate)

    def serve(self) -> None:
        """Answer whoever is ready, one forward per operator and version, until the arena says stop.

        If that ever fails the process ends with it: the ranks watch the process, and go on without it at once.
        """
        try:
            while not self._arena.stop[0]:
                self._serve_once()
        except Exception:  # noqa: BLE001, the edge of the process
            _log.exception("the server ends")
            os._exit(1)

    def _serve_once(self) -> None:
        bell = int(self._arena.bell[0])
        ready = [slot for slot in self._arena.slots if slot.pending]
        if ready:
            self._answer(ready)
        else:
            wait_for_change(self._arena.bell, bell, _IDLE_SECONDS)

    def _answer(self, ready: list[Slot]) -> None:
        groups: dict[tuple[int, int], list[_Question]] = defaultdict(list)
        for slot in ready:
            question = _Question.of(slot)
            groups[slot.shape.operator, question.version].append(question)
        for (operator, version), questions in groups.items():
            self._answer_group(operator, version, questions)

    def _answer_group(self, operator: int, version: int, questions: list["_Question"]) -> None:
        inputs = np.concatenate([question.slot.inputs[: question.count] for question in questions])
        dt = np.repeat([question.dt for question in questions], [question.count for question in questions])
        mean = np.empty((len(inputs), questions[0].slot.shape.n_out))
        score = np.empty(len(inputs))
        started = time.perf_counter()
        with self._guards[operator].over(version, mean, score):
            self._predictors[operator].predict(inputs, dt, version, mean, score)
        seconds = time.perf_counter() - started
        start = 0
        for question in questions:
            rows = slice(start, start + question.count)
            question.put(mean[rows], score[rows], seconds)
            start += question.count


@dataclass(frozen=True)
class _Question:
    """A question as it was when the server took it; the rank may abandon it meanwhile."""

    slot: Slot
    number: int
    count: int
    version: int
    dt: float

    @classmethod
    def of(cls, slot: Slot) -> "_Question":
        number = int(slot.request[0])
        count = min(int(slot.count[0]), slot.shape.capacity)
        return cls(slot, number, count, int(slot.version[0]), float(slot.dt[0]))

    def put(self, mean: np.ndarray, score: np.ndarray, seconds: float) -> None:
        self.slot.mean[: self.count] = mean
        self.slot.score[: self.count] = score
        self.slot.seconds[0] = seconds
        self.slot.answer[0] = self.number
        ring(self.slot.answer)
