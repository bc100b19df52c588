"""What every system is asked, and the forward that every one of them runs to answer it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.models import GeluEnsemble, Identity, PlainMLP, columns
from coupler.exchange import SlotShape
from coupler.learning.registry import Registry
from coupler.plugin import name_of
from coupler.records import Rows
from coupler.serving.predictor import CHUNK_ROWS, Predictor
from coupler.surrogate import Surrogate

# Models by name, with their columns in and out. A model's place here is the index of its operator.
MODELS: dict[str, tuple[type[Surrogate], int]] = {
    "identity": (Identity, 16),
    "mlp": (PlainMLP, 16),
    "ensemble": (GeluEnsemble, 11),
}
VERSION = 1
DT = 0.1
# Longest wait for any answer [s].
DEADLINE = 60.0
# Where the form of the forward may differ: rounding in single precision, answers of the size of one.
_ROUNDING = 1e-4

Answer = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Workload:
    """A batch for a model.

    Parameters
    ----------
    case : str
        The row's name for it.
    model : str
        One of :data:`MODELS`.
    elements : int
        Rows of the batch.
    """

    case: str
    model: str
    elements: int

    @property
    def operator(self) -> int:
        """Index of its operator."""
        return list(MODELS).index(self.model)

    @property
    def columns(self) -> int:
        """Columns of the inputs, and of the answer."""
        return MODELS[self.model][1]

    @property
    def bytes(self) -> int:
        """Size of the inputs; the answer is as large."""
        return 8 * self.elements * self.columns

    def inputs(self, seed: int = 0) -> NDArray[np.float64]:
        """Draw a batch (elements, columns)."""
        return np.random.default_rng(seed).random((self.elements, self.columns))

    def check(self, answer: NDArray[np.float64], expected: NDArray[np.float64], system: str) -> None:
        """Refuse a system that does not answer what it was asked.

        Raises
        ------
        AssertionError
            If it does not.
        """
        tolerance = 0.0 if self.model == "identity" else _ROUNDING
        assert np.allclose(answer, expected, rtol=0.0, atol=tolerance), f"{system} answers wrongly in {self.case}"


def publish(models: Path) -> None:
    """Register every model as version 1 in a folder."""
    registry = Registry(models)
    for name, (kind, many) in MODELS.items():
        facts = {"operator": name, "surrogate": name_of(kind), "params": {}, "step": 0, "samples": 1}
        measured = {"threshold": 1.0, "holdout_loss": 0.0, "holdout_accepted": 1.0, "seconds": 0.0}
        trained = {"range_lower": (0.0,) * many, "range_upper": (1.0,) * many}
        registry.register(kind(columns(many, many)), facts | measured | trained)


def load(models: Path | str, model: str) -> Surrogate:
    """Load a model from the folder where it was published."""
    registry = Registry(Path(models))
    return registry.load(registry.card(model, VERSION)).eval()


def slot_shape(workload: Workload) -> SlotShape:
    """Give the slot in an arena that the workload needs."""
    return SlotShape(workload.operator, workload.elements, workload.columns, workload.columns)


def predictor(models: Path | str, model: str) -> Predictor:
    """Give the product's own forward with the model loaded, on one thread."""
    torch.set_num_threads(1)
    many = MODELS[model][1]
    found = Predictor(many, many, torch.device("cpu"), timed=False)
    found.load(VERSION, load(models, model))
    return found


class Forward:
    """The forward inside a rival, the same as the product's; the identity costs a rival nothing.

    Parameters
    ----------
    models : str
        Folder where the models were published.
    form : str
        ``same`` computes as the product does; ``eager`` as torch does by itself, the whole batch at once; ``chunked``
        like that in chunks that stay in the cache.
    """

    def __init__(self, models: str, form: str = "same") -> None:
        torch.set_num_threads(1)
        # What other processes send may be read-only, which is all right: it is only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._models, self._form = models, form
        self._loaded: dict[str, Answer] = {"identity": lambda inputs: inputs}

    def answer(self, model: str, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Answer a batch; what is given is overwritten by the next answer of the same model."""
        if model not in self._loaded:
            self._loaded[model] = self._load(model)
        return self._loaded[model](inputs)

    def _load(self, model: str) -> Answer:
        if self._form == "same":
            return _same(predictor(self._models, model))
        surrogate = load(self._models, model)
        return _chunked(surrogate) if self._form == "chunked" else lambda inputs: _eager(surrogate, inputs)


def _same(forward: Predictor) -> Answer:
    space = _Space()

    def answer(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, score = space.of(inputs)
        forward.predict([Rows(inputs, DT, mean, score)], VERSION)
        return mean

    return answer


def _chunked(surrogate: Surrogate) -> Answer:
    space = _Space()

    def answer(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, _ = space.of(inputs)
        for start in range(0, len(inputs), CHUNK_ROWS):
            mean[start : start + CHUNK_ROWS] = _eager(surrogate, inputs[start : start + CHUNK_ROWS])
        return mean

    return answer


@torch.inference_mode()
def _eager(surrogate: Surrogate, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = torch.full((len(inputs),), DT, dtype=torch.float64)
    answer: NDArray[np.float64] = surrogate.predict(torch.from_numpy(inputs), steps).mean.numpy()
    return answer


class _Space:
    """Arrays for answers, kept from call to call, as a server that cares would."""

    def __init__(self) -> None:
        self._mean, self._score = np.empty((0, 0)), np.empty(0)

    def of(self, inputs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._mean.shape != inputs.shape:
            self._mean, self._score = np.zeros(inputs.shape), np.zeros(len(inputs))
        return self._mean, self._score
