"""The forward pass: the same answer in any company, the versions that are kept, the device that was asked for."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coupler.errors import ConfigError, PluginError
from coupler.field import Field
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Signature
from coupler.serving.predictor import CHUNK_ROWS, Predictor, choose_device
from coupler.surrogate import Prediction, Samples, Surrogate

Floats = NDArray[np.float64]

COLUMNS = (Field("u"), Field("v"), Field("w"))
SIGNATURE = Signature(COLUMNS, COLUMNS[:2], (1e-6, 1e-6), (1e-3, 1e-3))
CPU = torch.device("cpu")
COUNT = CHUNK_ROWS + 300


class Constant(Surrogate):
    """Answers with its number, or in whatever shape it is told to."""

    def __init__(self, number: float = 0.0, mean: Any = None, score: Any = None) -> None:
        super().__init__(SIGNATURE)
        self.number, self.mean, self.score = number, mean, score

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None: ...

    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        assert not self.training
        assert inputs.shape == (CHUNK_ROWS, 3)
        mean = torch.full((len(inputs), 2), self.number) if self.mean is None else torch.zeros(self.mean)
        return Prediction(mean, torch.zeros(len(inputs) if self.score is None else self.score))


def _answer(predictor: Predictor, inputs: Floats, dt: Floats, version: int = 1) -> Floats:
    """Give mean and score side by side; what is not written stays NaN."""
    rows = np.full((len(inputs), 3), np.nan)
    predictor.predict(inputs, dt, version, rows[:, :2], rows[:, 2])
    return rows


@pytest.fixture(scope="module")
def ensemble() -> MLPEnsemble:
    """A stock model after a moment of training; what it has learned does not matter."""
    surrogate = MLPEnsemble(SIGNATURE, members=3, width=32, depth=2)
    random = np.random.default_rng(7)
    samples = Samples(random.normal(size=(300, 3)), random.uniform(0.5, 1.0, 300), random.normal(size=(300, 2)))
    surrogate.fit(samples, seed=0, seconds=0.2)
    return surrogate


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def predictor(request: pytest.FixtureRequest, ensemble: MLPEnsemble) -> Predictor:
    predictor = Predictor(3, 2, CPU, threads=request.param)
    predictor.load(1, ensemble)
    return predictor


@pytest.fixture(scope="module")
def elements() -> tuple[Floats, Floats]:
    random = np.random.default_rng(3)
    return random.normal(size=(COUNT, 3)), random.uniform(0.5, 1.0, COUNT)


def test_the_answer_to_an_element_is_bitwise_the_same_in_any_order(
    predictor: Predictor, elements: tuple[Floats, Floats]
) -> None:
    inputs, dt = elements
    whole = _answer(predictor, inputs, dt)

    assert np.isfinite(whole).all()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(COUNT)
        np.testing.assert_array_equal(_answer(predictor, inputs[order], dt[order]), whole[order])


@pytest.mark.parametrize(
    "cuts", [(1,), (1, 2, 3), (CHUNK_ROWS,), (CHUNK_ROWS - 1, CHUNK_ROWS + 1), (0, 700, 700, 1900)]
)
def test_the_answer_to_an_element_is_bitwise_the_same_in_any_group(
    predictor: Predictor, elements: tuple[Floats, Floats], cuts: tuple[int, ...]
) -> None:
    inputs, dt = elements
    whole = _answer(predictor, inputs, dt)

    groups = zip(np.split(inputs, cuts), np.split(dt, cuts), strict=True)
    parts = [_answer(predictor, *group) for group in groups]

    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_answer_to_an_element_does_not_depend_on_a_broken_neighbour(
    predictor: Predictor, elements: tuple[Floats, Floats]
) -> None:
    inputs, dt = elements
    whole = _answer(predictor, inputs, dt)
    broken = inputs.copy()
    broken[::7] = np.nan

    answer = _answer(predictor, broken, dt)

    np.testing.assert_array_equal(np.delete(answer, np.s_[::7], axis=0), np.delete(whole, np.s_[::7], axis=0))


def test_nothing_is_answered_with_nothing(predictor: Predictor) -> None:
    assert _answer(predictor, np.empty((0, 3)), np.empty(0)).shape == (0, 3)


def test_the_last_three_versions_are_kept() -> None:
    predictor = Predictor(3, 2, CPU)
    for version in (1, 2, 3, 4):
        predictor.load(version, Constant(float(version)))

    for version in (2, 3, 4):
        assert _answer(predictor, np.zeros((1, 3)), np.ones(1), version)[0, 0] == version
    with pytest.raises(PluginError, match=r"version 1 of the model is not loaded \(loaded: \[2, 3, 4\]\)"):
        _answer(predictor, np.zeros((1, 3)), np.ones(1), 1)


def test_a_version_that_is_loaded_again_is_the_newest() -> None:
    predictor = Predictor(3, 2, CPU)
    for version in (1, 2, 3, 1, 4):
        predictor.load(version, Constant(float(version)))

    assert _answer(predictor, np.zeros((1, 3)), np.ones(1), 1)[0, 0] == 1
    with pytest.raises(PluginError, match="version 2 of the model is not loaded"):
        _answer(predictor, np.zeros((1, 3)), np.ones(1), 2)


@pytest.mark.parametrize(
    "shapes",
    [
        {"mean": (CHUNK_ROWS, 3)},
        {"mean": (CHUNK_ROWS, 1)},
        {"mean": (CHUNK_ROWS,)},
        {"mean": (1, 2)},
        {"score": (CHUNK_ROWS, 1)},
        {"score": ()},
        {"score": (1,)},
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 2])
def test_answers_of_another_shape_are_refused(shapes: dict[str, Any], threads: int) -> None:
    predictor = Predictor(3, 2, CPU, threads)
    predictor.load(1, Constant(**shapes))

    with pytest.raises(PluginError, match=r"Constant\.predict returned mean .* and score .* elements of 2 outputs"):
        _answer(predictor, np.zeros((4, 3)), np.ones(4))


def test_elements_with_another_number_of_columns_are_refused(predictor: Predictor) -> None:
    with pytest.raises(RuntimeError, match="size"):
        _answer(predictor, np.zeros((4, 2)), np.ones(4))


def test_answers_of_lower_precision_become_double() -> None:
    predictor = Predictor(3, 2, CPU)
    predictor.load(1, Constant(0.1))  # torch makes it float32

    assert _answer(predictor, np.zeros((1, 3)), np.ones(1))[0, 0] == np.float64(np.float32(0.1))


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:x", "cuda:-1", "meta", "mps", "auto "])
def test_a_device_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf'surrogate\.device = "{name}" is not a device: write auto, cpu or cuda:0'):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu() -> None:
    missing = torch.cuda.device_count()

    with pytest.raises(ConfigError, match=rf'"cuda:{missing}", but torch sees {missing} CUDA devices here'):
        choose_device(f"cuda:{missing}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_an_error() -> None:
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match="torch sees 0 CUDA devices"):
        choose_device("cuda")


@pytest.mark.gpu
def test_with_a_gpu_auto_is_the_first_one() -> None:
    assert choose_device("auto") == torch.device("cuda:0")


def test_the_cpu_is_the_cpu() -> None:
    assert choose_device("cpu") == CPU
