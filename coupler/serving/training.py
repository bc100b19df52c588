"""The trainer as an actor: trains in a process of its own, then hands the candidate to the servers."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from coupler.serving.actor import Actor
from coupler.serving.courtesy import give_way

_log = logging.getLogger("coupler")
# Longest wait for a server to load a candidate; one that comes later loads it when it is asked [s].
_LOAD_SECONDS = 120.0


class TrainingActor(Actor):
    """Trains one candidate at a time.

    Parameters
    ----------
    cores : tuple of int
        Where to run.
    threads : int
        Torch threads.
    beside : int
        Ranks that want the same cores, to whom it gives way; 0 where there are none.
    """

    def __init__(self, cores: Sequence[int], threads: int, beside: int) -> None:
        import torch  # here: whoever starts a trainer needs none

        if beside:
            _give_way(beside)
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
        self._training = threading.Lock()

    def train(self, operator: int, number: int, task: str, servers: Sequence[Any]) -> None:
        """Train a candidate, load it into every server, then publish the round's outcome.

        The outcome is published last: whoever sees it may ask any server for the version it names.

        Parameters
        ----------
        operator, number : int
            Whose model, and the number of the round.
        task : str
            The :class:`~coupler.learning.trainer.TrainingTask` as JSON.
        servers : sequence of Ray actor handles
            Whom to have it loaded by; none if ranks load it themselves.
        """
        from coupler.learning.rounds import TRAINING_LOCK, RoundFolder, RoundOutcome
        from coupler.learning.trainer import TrainingTask, train
        from coupler.lock import FolderLock

        asked = TrainingTask.model_validate_json(task)
        # A run that is resumed waits until nobody trains any more for the one that was killed.
        with self._training, FolderLock(Path(asked.models) / TRAINING_LOCK):
            rounds = RoundFolder(asked.models, asked.operator)
            if rounds.published(number):  # a trainer before this one came so far
                return
            began = time.perf_counter()
            outcome = train(asked)
            version = None if outcome.candidate is None else outcome.candidate.version
            if version is not None:
                _load(servers, operator, version, asked.needed)
            ended = time.perf_counter()
            rounds.publish(number, RoundOutcome(candidate=version, sentence=outcome.sentence, began=began, ended=ended))


def _give_way(ranks: int) -> None:
    try:
        give_way(ranks)
    except OSError as error:
        _log.warning(
            "the trainer cannot give way to the ranks on its cores (%s), so they are slower while it trains", error
        )


def _load(servers: Sequence[Any], operator: int, version: int, needed: Sequence[int]) -> None:
    """Have all servers load a version at the same time; one that is gone, slow or cannot stops nobody."""
    ends = time.monotonic() + _LOAD_SECONDS
    for loading in [server.load.remote(operator, version, needed) for server in servers]:
        try:
            ray.get(loading, timeout=max(0.0, ends - time.monotonic()))
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1]
            _log.warning("a server does not load version %d now, it will when it is asked: %s", version, said)
