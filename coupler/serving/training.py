"""The trainer as an actor: trains in a process of its own, then hands the candidate to the servers."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import ray
import torch

from coupler.learning.rounds import RoundFolder, RoundOutcome
from coupler.learning.trainer import TrainingTask, train

_log = logging.getLogger("coupler")


class TrainingActor:
    """Trains one candidate at a time.

    Parameters
    ----------
    servers : sequence of Ray actor handles
        The servers to load candidates; none if ranks load them themselves.
    cores : tuple of int
        Where to run.
    threads : int
        Torch threads.
    """

    def __init__(self, servers: Sequence[Any], cores: Sequence[int], threads: int) -> None:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
        self._servers = servers

    def train(self, operator: int, number: int, task: TrainingTask) -> None:
        """Train a candidate, load it into every server, then publish the round's outcome.

        The outcome is published last: whoever sees it may ask any server for the version it names.
        """
        began = time.perf_counter()
        outcome = train(task)
        if outcome.candidate is not None:
            self._load(operator, outcome.candidate.version, task.needed)
        version = None if outcome.candidate is None else outcome.candidate.version
        RoundFolder(task.models, task.operator).publish(
            number,
            RoundOutcome(candidate=version, sentence=outcome.sentence, began=began, ended=time.perf_counter()),
        )

    def _load(self, operator: int, version: int, needed: Sequence[int]) -> None:
        """Have all servers load a version at the same time; one that is gone stops nobody, its ranks know."""
        for loading in [server.load.remote(operator, version, needed) for server in self._servers]:
            try:
                ray.get(loading)
            except ray.exceptions.RayActorError:
                _log.warning("a server is gone and loads version %d no more", version)
