"""The forward pass: the same answer in any company, the versions that are kept, the form and the device of a model."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coupler.errors import ConfigError, FieldMismatch, PluginError
from coupler.field import Field
from coupler.learning.registry import ModelCard
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Signature
from coupler.records import Rows
from coupler.serving.forms import ALLOWED_DIFFERENCE, FormChoice, FormTrial
from coupler.serving.predictor import CHUNK_ROWS, Predictor, choose_device
from coupler.surrogate import Forward, Prediction, Samples, Surrogate

Floats = NDArray[np.float64]

COLUMNS = (Field("u"), Field("v"), Field("w"))
SIGNATURE = Signature(COLUMNS, COLUMNS[:2], (1e-6, 1e-6), (1e-3, 1e-3))
CPU = torch.device("cpu")
COUNT = CHUNK_ROWS + 300
SMALL = 32


class Plain(Surrogate):
    """Answers u plus its number, and w as score; it notes what it is asked."""

    def __init__(self, number: float = 0.0) -> None:
        super().__init__(SIGNATURE)
        self.number = number
        self.sizes: set[int] = set()
        self.asked: list[Floats] = []

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None: ...

    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        assert not self.training
        self.sizes.add(len(inputs))
        self.asked.append(inputs.numpy().copy())
        return Prediction(inputs[:, :2] + self.number, inputs[:, 2].abs())


class Misshapen(Plain):
    """Answers in whatever shape it is told to."""

    def __init__(self, mean: Any = None, score: Any = None) -> None:
        super().__init__()
        self.mean, self.score = mean, score

    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        mean = torch.zeros((len(inputs), 2) if self.mean is None else self.mean)
        return Prediction(mean, torch.zeros(len(inputs) if self.score is None else self.score))


class Sizeable(Plain):
    """Answers by how many rows it is asked about, as matrix products may."""

    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        mean, score = super().predict(inputs, dt)
        return Prediction(mean + 1e-16 * (len(inputs) == 16), score)


class Doubled(Plain):
    """Has a compiled form that is off by so many tolerances, and slow if it is told to be."""

    def __init__(self, off: float = 0.0, score_off: float = 0.0, work: int = 0, value: float = 1.0) -> None:
        super().__init__()
        self.off, self.score_off, self.work, self.value = off, score_off, work, value

    def fused(self) -> Forward:
        def forward(inputs: Floats, dt: float, mean: Floats, score: Floats) -> None:
            for _ in range(self.work):
                np.sort(inputs, axis=0)
            tolerance = np.asarray(SIGNATURE.atol) + np.asarray(SIGNATURE.rtol) * np.abs(inputs[:, :2])
            mean[...] = (inputs[:, :2] + self.off * tolerance) * self.value
            score[...] = np.abs(inputs[:, 2]) + self.score_off

        return forward


def _parts(inputs: Floats, dt: Floats, answers: Floats) -> list[Rows]:
    """Make parts of rows that follow each other with the same time step."""
    cuts = np.flatnonzero(np.diff(dt)) + 1
    groups = zip(np.split(inputs, cuts), np.split(dt, cuts), np.split(answers, cuts), strict=True)
    return [
        Rows(rows, float(steps[0]) if len(steps) else 1.0, given[:, :2], given[:, 2]) for rows, steps, given in groups
    ]


def _answer(predictor: Predictor, inputs: Floats, dt: Floats, version: int = 1) -> Floats:
    """Give mean and score side by side; what is not written stays NaN."""
    answers = np.full((len(inputs), 3), np.nan)
    predictor.predict(_parts(inputs, dt, answers), version)
    return answers


def _loaded(surrogate: Surrogate, **options: Any) -> Predictor:
    predictor = Predictor(3, 2, CPU, **options)
    predictor.load(1, surrogate)
    return predictor


@pytest.fixture(scope="module")
def ensemble() -> MLPEnsemble:
    """A stock model after a moment of training; what it has learned does not matter."""
    surrogate = MLPEnsemble(SIGNATURE, members=3, width=32, depth=2)
    random = np.random.default_rng(7)
    samples = Samples(random.normal(size=(300, 3)), random.uniform(0.5, 1.0, 300), random.normal(size=(300, 2)))
    surrogate.fit(samples, seed=0, seconds=0.2)
    return surrogate


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture(params=["fused", "eager"])
def predictor(request: pytest.FixtureRequest, ensemble: MLPEnsemble, threads: int) -> Predictor:
    return _loaded(ensemble, threads=threads, form=request.param)


@pytest.fixture(scope="module")
def elements() -> tuple[Floats, Floats]:
    """Elements of several ranks, each rank with its own time step."""
    random = np.random.default_rng(3)
    return random.normal(size=(COUNT, 3)), np.sort(random.choice([0.5, 0.7, 1.0], COUNT))


def test_the_answer_to_an_element_is_bitwise_the_same_in_any_order(
    predictor: Predictor, elements: tuple[Floats, Floats]
) -> None:
    inputs, dt = elements
    whole = _answer(predictor, inputs, dt)

    assert np.isfinite(whole).all()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(COUNT)
        order = order[np.argsort(dt[order], kind="stable")[::-1]]
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


def test_the_parts_of_many_ranks_are_answered_as_if_each_were_alone(
    predictor: Predictor, elements: tuple[Floats, Floats]
) -> None:
    inputs, dt = elements[0], np.arange(1, COUNT + 1) / COUNT
    pieces = [slice(start, start + 37) for start in range(0, COUNT, 37)]
    alone = [_answer(predictor, inputs[piece], np.full(len(inputs[piece]), dt[piece][0])) for piece in pieces]
    together = np.full((COUNT, 3), np.nan)

    predictor.predict([Rows(inputs[p], dt[p][0], together[p, :2], together[p, 2]) for p in pieces], 1)

    np.testing.assert_array_equal(together, np.concatenate(alone))


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
    predictor.predict([], 1)


def test_rows_that_may_only_be_read_are_answered(predictor: Predictor, elements: tuple[Floats, Floats]) -> None:
    inputs, dt = elements
    locked = inputs.copy()
    locked.flags.writeable = False

    np.testing.assert_array_equal(_answer(predictor, locked, dt), _answer(predictor, inputs, dt))


def test_torch_only_ever_sees_batches_of_a_few_sizes() -> None:
    surrogate = Plain()
    predictor = _loaded(surrogate)
    surrogate.sizes.clear()

    for count in (1, 7, 15, 16, 17, 100, 1000, CHUNK_ROWS, CHUNK_ROWS + 1, COUNT):
        inputs = np.random.default_rng(count).normal(size=(count, 3))
        np.testing.assert_array_equal(_answer(predictor, inputs, np.ones(count))[:, :2], inputs[:, :2])

    assert surrogate.sizes == {16, 128, 512, CHUNK_ROWS}


def test_a_size_that_gives_other_bits_is_not_used() -> None:
    surrogate = Sizeable()
    predictor = _loaded(surrogate)
    surrogate.sizes.clear()

    _answer(predictor, np.zeros((1, 3)), np.ones(1))

    assert surrogate.sizes == {128}


def test_the_last_three_versions_are_kept() -> None:
    predictor = Predictor(3, 2, CPU)
    for version in (1, 2, 3, 4):
        predictor.load(version, Plain(float(version)))

    for version in (2, 3, 4):
        assert _answer(predictor, np.zeros((1, 3)), np.ones(1), version)[0, 0] == version
    assert list(predictor.choices) == [2, 3, 4]
    with pytest.raises(PluginError, match=r"version 1 of the model is not loaded \(loaded: \[2, 3, 4\]\)"):
        _answer(predictor, np.zeros((1, 3)), np.ones(1), 1)


def test_a_version_that_answers_stays_however_many_candidates_come_after_it() -> None:
    predictor = Predictor(3, 2, CPU)
    for version in range(1, 9):
        predictor.load(version, Plain(float(version)), needed=(1,))

    assert list(predictor.choices) == [1, 7, 8]
    assert _answer(predictor, np.zeros((1, 3)), np.ones(1), 1)[0, 0] == 1


def test_a_version_that_is_loaded_again_is_the_newest() -> None:
    predictor = Predictor(3, 2, CPU)
    for version in (1, 2, 3, 1, 4):
        predictor.load(version, Plain(float(version)))

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
def test_answers_of_another_shape_are_refused_when_they_are_asked_for(shapes: dict[str, Any], threads: int) -> None:
    predictor = _loaded(Misshapen(**shapes), threads=threads)

    assert "does not answer" in predictor.choices[1].reason
    with pytest.raises(PluginError, match=r"Misshapen\.predict returned mean .* and score .* elements of 2 outputs"):
        _answer(predictor, np.zeros((4, 3)), np.ones(4))


def test_elements_with_another_number_of_columns_are_refused(predictor: Predictor) -> None:
    with pytest.raises(FieldMismatch, match="3 inputs and 2 outputs per element"):
        _answer(predictor, np.zeros((4, 2)), np.ones(4))


def test_answers_of_lower_precision_become_double() -> None:
    surrogate = Plain()
    surrogate.predict = lambda inputs, dt: Prediction(  # type: ignore[method-assign]
        torch.full((len(inputs), 2), 0.1), torch.zeros(len(inputs))
    )

    assert _answer(_loaded(surrogate), np.zeros((1, 3)), np.ones(1))[0, 0] == np.float64(np.float32(0.1))


def test_a_compiled_form_that_is_faster_is_used_and_its_figures_are_kept(ensemble: MLPEnsemble) -> None:
    choice = _loaded(ensemble).choices[1]

    trials = {trial.form: trial for trial in choice.trials}
    assert choice.form == "fused"
    assert {"fused", "eager", "bf16"} == set(trials)
    assert trials["fused"].chunk_seconds < trials["eager"].chunk_seconds
    assert trials["fused"].mean_difference < ALLOWED_DIFFERENCE
    assert "fused" in choice.sentence and "µs per element" in choice.sentence


def test_a_form_that_is_slower_than_eager_is_not_used() -> None:
    assert _loaded(Doubled(work=100)).choices[1].form == "eager"


@pytest.mark.parametrize(
    ("surrogate", "said"),
    [
        (Doubled(off=3 * ALLOWED_DIFFERENCE), "0.06 tolerances"),
        (Doubled(score_off=3 * ALLOWED_DIFFERENCE), "0.06 in score"),
        (Doubled(value=math.nan), "finite where eager is not, or the other way round"),
        (Plain(), "has no fused form"),
    ],
    ids=["mean", "score", "nan", "none"],
)
@pytest.mark.parametrize("timed", [True, False])
def test_a_form_that_answers_differently_is_not_used(surrogate: Surrogate, said: str, timed: bool) -> None:
    predictor = _loaded(surrogate, timed=timed)

    choice = predictor.choices[1]
    assert choice.form == "eager" or choice.form == "bf16"
    assert said in next(trial.complaint for trial in choice.trials if trial.form == "fused")


def test_a_difference_is_allowed_where_the_score_is_high_enough_that_nobody_uses_the_answer() -> None:
    card = _card(range_lower=(0.1, 0.1, 10.0), range_upper=(1.0, 1.0, 20.0))
    predictor = Predictor(3, 2, CPU, timed=False)

    predictor.load(1, Doubled(off=3 * ALLOWED_DIFFERENCE), card)

    assert predictor.choices[1].form == "fused"


def test_nothing_hangs_on_the_clock_where_it_may_not_choose() -> None:
    choice = _loaded(Doubled(work=100), timed=False).choices[1]

    assert choice.form == "fused"
    assert "by preference" in choice.reason
    assert all(math.isnan(trial.chunk_seconds) for trial in choice.trials)


def test_a_form_asked_for_by_name_is_used_whatever_it_is_like() -> None:
    predictor = _loaded(Doubled(off=1.0, work=100), form="fused")

    assert predictor.choices[1].form == "fused"
    assert "1 tolerances" in predictor.choices[1].sentence
    assert _answer(predictor, np.ones((1, 3)), np.ones(1))[0, 0] == pytest.approx(1.001001)


@pytest.mark.parametrize(("form", "said"), [("fused", "Plain has no fused form"), ("compiled", "a C\\+\\+ compiler")])
def test_a_form_asked_for_by_name_that_is_not_there_is_an_error(
    form: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(PluginError, match=rf'surrogate\.form = "{form}" cannot be had: .*{said}'):
        _loaded(Plain(), form=form)


def test_a_model_is_tried_on_rows_of_the_range_it_was_trained_on() -> None:
    surrogate = Plain()
    card = _card(range_lower=(1e-6, -2.0, 5.0), range_upper=(1e3, 3.0, 5.5))

    Predictor(3, 2, CPU).load(1, surrogate, card)

    asked = np.concatenate(surrogate.asked)
    assert (asked >= card.range_lower).all() and (asked <= card.range_upper).all()
    assert np.median(asked[:, 0]) < 1  # evenly in decades


def _card(**ranges: Any) -> ModelCard:
    known: dict[str, Any] = {"version": 1, "operator": "reaction", "surrogate": "a:B", "params": {}, "signature": {}}
    measured: dict[str, Any] = {"threshold": 1.0, "holdout_loss": 0.0, "holdout_accepted": 1.0, "seconds": 0.0}
    return ModelCard(**known, **measured, step=0, samples=1, sha256="", range_dt=(0.1, 0.2), **ranges)


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


def test_the_seconds_of_an_element_are_those_of_a_chunk_over_its_rows() -> None:
    trial = FormTrial("eager", chunk_seconds=0.5, rows=32)

    assert FormChoice("eager", "as asked", (trial,)).seconds_per_element == 0.5 / 32
