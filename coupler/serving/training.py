"""The trainer as an actor: trains in a process of its own, then hands the candidate to the server."""

import os
from collections.abc import Sequence
from typing import Any

import ray
import torch

from coupler.learning.rounds import RoundFolder, RoundOutcome
from coupler.learning.trainer import TrainingTask, train

# Below the ranks' priority: on a full node the run goes first and training takes what is left.
_NICENESS = 5


class TrainingActor:
    """Trains one candidate at a time.

    Parameters
    ----------
    server : Ray actor handle or None
        The server to load candidates; None if ranks load them themselves.
    cores : tuple of int
        Where to run.
    threads : int
        Torch threads.
    """

    def __init__(self, server: Any, cores: Sequence[int], threads: int) -> None:
        os.sched_setaffinity(0, cores)
        os.nice(_NICENESS)
        torch.set_num_threads(threads)
        self._server = server

    def train(self, operator: int, number: int, task: TrainingTask) -> None:
        """Train a candidate, load it into the server, then publish the round's outcome.

        The outcome is published last: whoever sees it may ask the server for the version it names.
        """
        outcome = train(task)
        if outcome.candidate is not None and self._server is not None:
            ray.get(self._server.load.remote(operator, outcome.candidate.version))
        version = None if outcome.candidate is None else outcome.candidate.version
        RoundFolder(task.models, task.operator).publish(
            number, RoundOutcome(candidate=version, sentence=outcome.sentence)
        )
