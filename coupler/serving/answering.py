"""The loaded models of a run on one device, whoever brings the questions: an arena or Ray's object store."""

import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from coupler.errors import CouplerError
from coupler.exchange.guard import Guard
from coupler.learning.registry import Registry
from coupler.records import Rows
from coupler.routine import Routine
from coupler.serving.agreement import load_as_agreed
from coupler.serving.cuda import PageLock
from coupler.serving.modelplan import ModelPlan, check_folder
from coupler.serving.predictor import Predictor, choose_device

_log = logging.getLogger("coupler")
# A version that could not be loaded is not tried again for so long [s].
_MISSING_SECONDS = 10.0


class Models:
    """The versions of every operator's model on this process's device.

    Parameters
    ----------
    plan : ModelPlan
        What answers.
    cores : tuple of int
        Where to run; empty leaves the process where it is.

    Raises
    ------
    ConfigError
        If the device is not there, or this node does not see the run folder.
    """

    def __init__(self, plan: ModelPlan, cores: tuple[int, ...]) -> None:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(1)  # chunks are dealt out to threads instead
        check_folder(Path(plan.models))
        self._operators = plan.operators
        self._registry = Registry(Path(plan.models))
        self._device = choose_device(plan.device)
        self._page_lock = PageLock(self._device)
        self._answering = threading.Lock()
        self._missing: dict[tuple[int, int], float] = {}
        self._guards = [Guard() for _ in plan.operators]
        self._predictors = [
            Predictor(*columns, self._device, plan.threads, form=plan.form, timed=not plan.reproducible)
            for columns in plan.columns
        ]
        _log.addHandler(logging.FileHandler(Path(plan.models).parent / "server.log", delay=True))
        _log.setLevel(logging.INFO)

    @property
    def device(self) -> str:
        """Name of the device."""
        return str(self._device)

    def adopt(self, memory: memoryview) -> None:
        """Be told of memory that questions will lie in: a GPU reads it without the processor's help."""
        if self._device.type == "cuda":
            with self._answering:
                self._page_lock.take(memory)

    def load(self, operator: int, version: int, needed: Collection[int] = ()) -> None:
        """Load a version from the registry beside those that are needed; it may be asked once this has returned."""
        card = self._registry.card(self._operators[operator], version)
        predictor = self._predictors[operator]
        # A forward must not be recorded on a GPU while another one runs there.
        with self._answering if self._device.type == "cuda" else nullcontext():
            load_as_agreed(predictor, self._registry, card, needed)
        _log.info("%s, version %d: %s", card.operator, version, predictor.choices[version].sentence)

    def fetch(self, operator: int, version: int) -> bool:
        """Load a version that is asked for and is not there; say whether that was so.

        A server that was started again meets versions which took over meanwhile. One that cannot be loaded stays away
        for some seconds, as a file of another node may not be seen yet, and its answers are not finite.
        """
        key = operator, version
        if self._predictors[operator].has(version) or time.monotonic() < self._missing.get(key, 0.0):
            return False
        try:
            self.load(operator, version)
        except CouplerError as error:
            self._missing[key] = time.monotonic() + _MISSING_SECONDS
            _log.error("version %d cannot be loaded: %s", version, error)
            return False
        return True

    def routines(self) -> dict[tuple[int, int], Routine]:
        """Give the operators and versions that compiled code can ask without coming here, and how."""
        numbered = enumerate(self._predictors)
        return {(index, version): found for index, each in numbered for version, found in each.routines.items()}

    def answer(self, operator: int, version: int, parts: Sequence[Rows]) -> float:
        """Answer a batch in place and give the seconds it took; what the model cannot answer becomes NaN.

        One batch at a time, whoever asks: a form may have only one set of places for rows.
        """
        with self._answering:
            started = time.perf_counter()
            self._guards[operator].answer(self._predictors[operator].predict, parts, version)
            return time.perf_counter() - started
