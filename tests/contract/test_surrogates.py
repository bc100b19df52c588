"""What every stock surrogate promises, whatever its architecture."""

import importlib
import inspect
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import coupler.models
from coupler.errors import PluginError
from coupler.field import Field
from coupler.operator import Signature
from coupler.surrogate import Forward, Prediction, Samples, Surrogate
from tests.contract.optional import MISSING, PACKAGES

CHUNK_ROWS = 1024


def _imported(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the packages below neuraloperator say of themselves is not ours
        return importlib.import_module(name)


def _stock_surrogates() -> list[type[Surrogate]]:
    names = sorted(path.stem for path in Path(coupler.models.__path__[0]).glob("*.py") if path.stem != "__init__")
    modules = [_imported(f"coupler.models.{name}") for name in names if name not in MISSING]
    return [
        item
        for module in modules
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Surrogate) and item.__module__ == module.__name__
    ]


def _takes_cells(kind: type[Surrogate]) -> bool:
    """Whether it is for operators whose elements are cells; those over tiles have tests of their own."""
    field = Field("a")
    try:
        kind(Signature((field,), (field,), (1.0,), (0.0,)))
    except PluginError:
        return False
    return True


STOCK = [kind for kind in _stock_surrogates() if _takes_cells(kind)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Promises are made for one thread, as the trainer and the server set it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=STOCK, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Surrogate]:
    found: type[Surrogate] = request.param
    return found


@pytest.fixture(scope="module")
def signature() -> Signature:
    """Two positive quantities, a signed parameter that is only read and a rate that is only given."""
    fields = (Field("a", bounds=(0, None)), Field("b", bounds=(0, 1e6)))
    return Signature(
        inputs=(*fields, Field("angle")),
        outputs=(*fields, Field("rate")),
        atol=(1e-4, 1e-3, 1e-2),
        rtol=(1e-2, 1e-2, 0.0),
    )


def _samples(count: int, seed: int) -> Samples:
    """A decay of a into b, a over four decades, at a speed set by the angle."""
    random = np.random.default_rng(seed)
    a, b, angle = 10 ** random.uniform(-3, 1, count), random.uniform(0, 5, count), random.uniform(-1, 1, count)
    dt = random.uniform(0.5, 1.0, count)
    left = a * np.exp(-dt * (1 + angle**2))
    return Samples(np.stack([a, b, angle], axis=1), dt, np.stack([left, b + a - left, np.sin(angle)], axis=1))


def _fitted(kind: type[Surrogate], signature: Signature, *, count: int = 1000, seed: int = 3) -> Surrogate:
    surrogate = kind(signature)
    surrogate.fit(_samples(count, seed=1), seed=seed)
    return surrogate


def _answer_in_chunks(surrogate: Surrogate, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
    """Answer as the server does: chunks of one size, the last one padded with its first row."""
    means, scores = [], []
    for start in range(0, len(inputs), CHUNK_ROWS):
        rows = torch.arange(start, start + CHUNK_ROWS)
        rows = torch.where(rows < len(inputs), rows, start)
        mean, score = surrogate.predict(inputs[rows], dt[rows])
        means.append(mean[: len(inputs) - start])
        scores.append(score[: len(inputs) - start])
    return Prediction(torch.cat(means), torch.cat(scores))


def _tensors(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    samples = _samples(count, seed=2)
    return torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt)


def _copy(surrogate: Surrogate) -> Surrogate:
    again = type(surrogate)(surrogate.signature)
    again.load_state_dict(load(save(surrogate.state_dict())))
    return again


@pytest.fixture(scope="module")
def fitted(kind: type[Surrogate], signature: Signature) -> Surrogate:
    """A trained model, for those who only ask it."""
    return _fitted(kind, signature)


@pytest.fixture(scope="module")
def learned(kind: type[Surrogate], signature: Signature) -> Surrogate:
    """One that had four times as many samples, for those who only ask it."""
    return _fitted(kind, signature, count=4000)


Compiled = tuple[Surrogate, Forward]


@pytest.fixture(scope="module")
def fused(fitted: Surrogate) -> Compiled:
    """A trained model and its fused form."""
    if type(fitted).fused is Surrogate.fused:
        pytest.skip(f"{type(fitted).__name__} has no fused form")
    forward = fitted.fused()
    assert forward is not None
    return fitted, forward


def _fused_answer(forward: Forward, inputs: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    mean, score = np.full((len(inputs), 3), np.nan), np.full(len(inputs), np.nan)
    forward(inputs, dt, mean, score)
    return mean, score


@pytest.mark.parametrize("name", PACKAGES)
def test_an_optional_surrogate_is_tried_where_its_package_is_installed(name: str) -> None:
    if name in MISSING:
        pytest.skip(f'{PACKAGES[name]} is not installed: pip install "coupler[{name}]"')

    assert f"coupler.models.{name}" in [kind.__module__ for kind in STOCK]


def test_there_are_stock_surrogates() -> None:
    assert "MLPEnsemble" in [kind.__name__ for kind in STOCK]


def test_answers_have_the_declared_shapes_and_are_finite(fitted: Surrogate) -> None:
    prediction = fitted.predict(*_tensors(50))

    assert prediction.mean.shape == (50, 3)
    assert prediction.score.shape == (50,)
    assert prediction.mean.dtype == prediction.score.dtype == torch.float64
    assert torch.isfinite(prediction.mean).all()
    assert torch.isfinite(prediction.score).all()
    assert (prediction.score >= 0).all()


def test_an_element_is_answered_the_same_alone_and_among_many(fitted: Surrogate) -> None:
    inputs, dt = _tensors(2500)
    many = _answer_in_chunks(fitted, inputs, dt)

    for row in (0, 1023, 1024, 2499):
        alone = _answer_in_chunks(fitted, inputs[row : row + 1], dt[row : row + 1])
        assert torch.equal(alone.mean[0], many.mean[row])  # bitwise: the ranks must not matter
        assert torch.equal(alone.score[0], many.score[row])


def test_the_fused_form_answers_as_predict_does(fused: Compiled) -> None:
    surrogate, forward = fused
    inputs, dt = _tensors(2500)[0], torch.full((2500,), 0.7, dtype=torch.float64)

    mean, score = _fused_answer(forward, inputs.numpy(), 0.7)

    expected = surrogate.predict(inputs, dt)
    # Both round to single precision, in another order: far below what the gate can tell.
    assert surrogate.signature.error(mean, expected.mean.numpy()).max() < 1e-3
    np.testing.assert_allclose(score, expected.score.numpy(), rtol=1e-4, atol=1e-3)


def test_the_fused_form_gives_an_element_the_same_bits_in_any_order_and_group(fused: Compiled) -> None:
    forward, inputs = fused[1], _samples(1000, seed=2).inputs
    mean, score = _fused_answer(forward, inputs, 0.7)
    order = np.random.default_rng(1).permutation(1000)

    groups = [_fused_answer(forward, part, 0.7) for part in np.split(inputs[order], (1, 2, 19, 35, 700))]

    np.testing.assert_array_equal(np.concatenate([group[0] for group in groups]), mean[order])
    np.testing.assert_array_equal(np.concatenate([group[1] for group in groups]), score[order])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, -5.0])
@pytest.mark.parametrize("column", [0, 1, 2, 3], ids=["a", "b", "angle", "dt"])
def test_the_fused_form_is_finite_where_predict_is(fused: Compiled, value: float, column: int) -> None:
    surrogate, forward = fused
    inputs = _samples(40, seed=2).inputs
    dt = value if column == 3 else 0.7
    inputs[::2, column % 3] = inputs[::2, column % 3] if column == 3 else value

    mean, score = _fused_answer(forward, inputs, dt)

    expected = surrogate.predict(torch.from_numpy(inputs), torch.full((40,), dt, dtype=torch.float64))
    finite = np.isfinite(expected.mean.numpy()).all(axis=1) & np.isfinite(expected.score.numpy())
    np.testing.assert_array_equal(np.isfinite(mean).all(axis=1) & np.isfinite(score), finite)


def test_the_same_samples_and_seed_give_the_same_weights(fitted: Surrogate) -> None:
    again = _fitted(type(fitted), fitted.signature)

    assert save(again.state_dict()) == save(fitted.state_dict())


def test_another_seed_gives_other_weights(fitted: Surrogate) -> None:
    other = _fitted(type(fitted), fitted.signature, seed=4)

    assert save(other.state_dict()) != save(fitted.state_dict())


def test_a_model_built_from_its_saved_state_answers_the_same(fitted: Surrogate) -> None:
    inputs, dt = _tensors(200)

    again = _copy(fitted)

    assert torch.equal(again.predict(inputs, dt).mean, fitted.predict(inputs, dt).mean)
    assert torch.equal(again.predict(inputs, dt).score, fitted.predict(inputs, dt).score)


def test_fitting_and_answering_leave_their_inputs_untouched(kind: type[Surrogate], signature: Signature) -> None:
    samples, before = _samples(300, seed=1), _samples(300, seed=1)
    surrogate = kind(signature)

    surrogate.fit(samples, seed=0)
    surrogate.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt))

    for name in ("inputs", "dt", "truth"):
        np.testing.assert_array_equal(getattr(samples, name), getattr(before, name))


def test_fitting_learns_and_the_score_ranks_the_errors(learned: Surrogate) -> None:
    samples = _samples(2000, seed=9)

    mean, score = learned.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt))

    error = learned.signature.error(mean.numpy(), samples.truth)
    assert np.median(error) < 0.5  # "no change" has a median error of tens of tolerances
    surest = np.argsort(score.numpy())[:500]
    assert error[surest].mean() < error.mean()


def test_fitting_goes_on_from_the_weights_it_finds(learned: Surrogate) -> None:
    surrogate, samples = _copy(learned), _samples(2000, seed=9)

    def error() -> float:
        mean = surrogate.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt)).mean.numpy()
        return float(np.mean(np.minimum(surrogate.signature.error(mean, samples.truth), 5.0)))

    before = error()
    surrogate.fit(_samples(400, seed=5), seed=0)

    # 400 samples alone give several times this error; a tenth as many as before must not make it forget.
    assert error() < 2 * before + 0.1


def test_fitting_ends_within_its_budget(kind: type[Surrogate], signature: Signature) -> None:
    surrogate = kind(signature)
    samples = _samples(4000, seed=1)
    start = time.thread_time()

    surrogate.fit(samples, seed=0, seconds=1.0)

    # Processor time, as the budget is, so that others on the machine do not count. Without a budget it would train
    # several times as long.
    assert time.thread_time() - start < 1.5


def test_a_time_step_that_never_varies_is_no_obstacle(kind: type[Surrogate], signature: Signature) -> None:
    samples = _samples(500, seed=1)
    surrogate = kind(signature)

    surrogate.fit(Samples(samples.inputs, np.full(500, 0.7), samples.truth), seed=0)

    prediction = surrogate.predict(torch.from_numpy(samples.inputs), torch.full((500,), 0.7, dtype=torch.float64))
    assert torch.isfinite(prediction.mean).all()


def test_answers_stay_inside_the_bounds_of_the_fields(fitted: Surrogate) -> None:
    inputs, dt = _tensors(1000)
    inputs[:, :2] *= 1e-6  # far outside of what was trained on, near the bound

    mean = fitted.predict(inputs, dt).mean

    assert (mean[:, :2] >= 0).all()
    assert (mean[:, 1] <= 1e6).all()


def test_answers_keep_the_conserved_sums_to_rounding(kind: type[Surrogate], signature: Signature) -> None:
    surrogate = _fitted(kind, replace(signature, conserved={"mass": {"a": 1.0, "b": 1.0}}), count=300)
    inputs, dt = _tensors(500)

    mean = surrogate.predict(inputs, dt).mean

    torch.testing.assert_close(mean[:, :2].sum(1), inputs[:, :2].sum(1), rtol=1e-12, atol=0)
    assert (mean[:, :2] >= 0).all()
