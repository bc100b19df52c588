"""The fused forward: the same numbers as NumPy, the same bits in any company, on any processor, from the cache."""

import math
import platform
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from numba import njit
from numpy.typing import NDArray
from torch.nn import functional

from coupler.errors import FieldMismatch, PluginError
from coupler.fused import (
    Activation,
    DenseForward,
    DenseLayer,
    larger,
    log_lanes,
    signed_expm1_lanes,
    signed_log1p_lanes,
)
from coupler.lanes import LANES
from tests.conftest import Processes

Floats = NDArray[np.float64]

# Sizes about those of lanes and blocks, and rows about those of a bundle.
SIZES = [(1, 1), (3, 5, 2), (7, 8, 9, 4), (16, 64, 64, 16), (2, 33, 33, 33, 13)]
ROWS = (0, 1, 15, 16, 17, 40)
ACTIVATIONS = {
    Activation.IDENTITY: lambda x: x,
    Activation.RELU: functional.relu,
    Activation.SILU: functional.silu,
    Activation.GELU: functional.gelu,
    Activation.TANH: torch.tanh,
}

SCRIPT = """
import numpy as np
from coupler import fused
from coupler.fused import Activation, DenseForward, DenseLayer
fused._BUILD += {older}
random = np.random.default_rng(0)
def layer(activation, residual=False):
    return DenseLayer(random.normal(size=(3, 8, 8)) / 3, random.normal(size=(3, 8)), activation, residual)
layers = [layer(activation, residual) for activation in Activation for residual in (False, True)]
forward = DenseForward(layers)
x, mean, score = random.normal(size=(40, 8)), np.empty((40, 8)), np.empty(40)
forward(x, 1.0, mean, score)
stats = fused._answer_dense.stats
print("from the cache", sum(stats.cache_hits.values()), "compiled", sum(stats.cache_misses.values()))
print("answers", mean.sum(), score.sum(), flush=True)
np.save("answers.npy", np.column_stack((mean, score)))
"""


def _layers(sizes: tuple[int, ...], activation: Activation, members: int = 1, seed: int = 0) -> list[DenseLayer]:
    """Draw networks; layers of equal sizes are residual, the last one has no activation."""
    random = np.random.default_rng(seed)
    pairs = list(pairwise(sizes))
    return [
        DenseLayer(
            random.normal(size=(members, n_in, n_out)) / math.sqrt(n_in),
            random.normal(size=(members, n_out)),
            activation if number < len(pairs) else Activation.IDENTITY,
            residual=n_in == n_out and number < len(pairs),
        )
        for number, (n_in, n_out) in enumerate(pairs, start=1)
    ]


def _expected(layers: list[DenseLayer], inputs: Floats) -> Floats:
    """Give mean and score in double precision, side by side."""
    hidden = torch.from_numpy(inputs).expand(len(layers[0].weights), -1, -1)
    for layer in layers:
        sums = hidden @ torch.from_numpy(layer.weights) + torch.from_numpy(layer.biases)[:, None]
        hidden = ACTIVATIONS[layer.activation](sums) + (hidden if layer.residual else 0.0)
    mean = hidden.mean(0)
    spread = (hidden - mean).square().mean(0).amax(1).sqrt()
    return torch.cat([mean, spread[:, None]], dim=1).numpy()


def _answer(forward: DenseForward, inputs: Floats, n_out: int) -> Floats:
    mean, score = np.full((len(inputs), n_out), np.nan), np.full(len(inputs), np.nan)
    forward(inputs, 1.0, mean, score)
    return np.column_stack((mean, score))


def _inputs(count: int, n_in: int) -> Floats:
    return np.random.default_rng(3).normal(size=(count, n_in))


def _of(function: Callable[[Floats, int], None], values: Floats) -> Floats:
    """Apply one of the functions on lanes to as many values as there are."""

    @njit
    def apply(rows):  # type: ignore[no-untyped-def]
        for row in range(len(rows)):
            function(rows, row)

    rows = np.resize(values, (-(-len(values) // LANES), LANES))
    apply(rows)
    return rows.ravel()[: len(values)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("activation", Activation, ids=lambda activation: activation.name)
def test_answers_are_those_of_numpy(sizes: tuple[int, ...], members: int, activation: Activation) -> None:
    layers = _layers(sizes, activation, members)
    forward = DenseForward(layers)

    for count in ROWS:
        inputs = _inputs(count, sizes[0])
        # Sums of up to 64 terms of size 1 in single precision, over up to four layers.
        np.testing.assert_allclose(_answer(forward, inputs, sizes[-1]), _expected(layers, inputs), atol=2e-5, rtol=0)


@pytest.mark.parametrize("activation", Activation, ids=lambda activation: activation.name)
def test_activations_are_as_accurate_as_single_precision_allows(activation: Activation) -> None:
    inputs = np.concatenate([np.linspace(-20, 20, 40001), np.logspace(-30, 30, 61), -np.logspace(-30, 30, 61)])
    inputs = inputs.astype(np.float32).astype(np.float64)
    forward = DenseForward([DenseLayer(np.ones((1, 1, 1)), np.zeros((1, 1)), activation)])

    answer = _answer(forward, inputs[:, None], 1)[:, 0]

    expected = ACTIVATIONS[activation](torch.from_numpy(inputs)).numpy()
    # Three units in the last place, of the input where that is larger, as torch's own GELU in single precision.
    np.testing.assert_array_less(np.abs(answer - expected), 4e-7 * np.maximum(1.0, np.abs(inputs)))


@pytest.mark.parametrize("activation", Activation, ids=lambda activation: activation.name)
def test_nan_stays_nan(activation: Activation) -> None:
    forward = DenseForward([DenseLayer(np.ones((1, 1, 1)), np.zeros((1, 1)), activation)])

    assert np.isnan(_answer(forward, np.full((20, 1), np.nan), 1)[:, 0]).all()


@pytest.mark.parametrize("cuts", [(1,), (1, 2, 3), (16,), (15, 17), (0, 32, 32), (5, 100, 133)])
def test_an_answer_is_bitwise_the_same_in_any_order_and_in_any_group(cuts: tuple[int, ...]) -> None:
    inputs = _inputs(150, 6)
    forward = DenseForward(_layers((6, 20, 20, 3), Activation.SILU, members=3))
    whole = _answer(forward, inputs, 3)

    order = np.random.default_rng(0).permutation(150)
    parts = [_answer(forward, part, 3) for part in np.split(inputs[order], cuts)]

    np.testing.assert_array_equal(np.concatenate(parts), whole[order])


def test_a_broken_element_does_not_touch_its_neighbours() -> None:
    inputs = _inputs(100, 6)
    forward = DenseForward(_layers((6, 20, 20, 3), Activation.GELU, members=2))
    whole = _answer(forward, inputs, 3)
    broken = inputs.copy()
    broken[::7] = np.inf

    answer = _answer(forward, broken, 3)

    assert not np.isfinite(answer[::7]).any()
    np.testing.assert_array_equal(np.delete(answer, np.s_[::7], axis=0), np.delete(whole, np.s_[::7], axis=0))


def test_arrays_may_be_views_with_gaps_and_inputs_only_to_be_read() -> None:
    inputs = _inputs(50, 6)
    forward = DenseForward(_layers((6, 9, 3), Activation.RELU))
    expected = _answer(forward, inputs, 3)
    locked, rows = np.asfortranarray(inputs), np.full((50, 4), np.nan)
    locked.flags.writeable = False

    forward(locked, 1.0, rows[:, :3], rows[:, 3])

    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(locked, inputs)


@pytest.mark.parametrize(
    "shapes", [((4, 5), (4, 3), 4), ((4, 6), (4, 2), 4), ((4, 6), (3, 3), 4), ((4, 6), (4, 3), 5)], ids=str
)
def test_arrays_of_other_shapes_are_refused(shapes: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    forward = DenseForward(_layers((6, 9, 3), Activation.RELU))
    inputs, mean, score = (np.zeros(shape) for shape in shapes)

    with pytest.raises(FieldMismatch, match="6 inputs and 3 outputs per element"):
        forward(inputs, 1.0, mean, score)


def test_layers_that_do_not_fit_are_refused() -> None:
    first, second = _layers((6, 9, 3), Activation.RELU)

    with pytest.raises(PluginError, match="has no layers"):
        DenseForward([])
    with pytest.raises(PluginError, match=r"Layer 2 .* has weights \(1, 6, 9\)"):
        DenseForward([first, first])
    with pytest.raises(PluginError, match=r"Layer 1 .* biases \(1, 3\)"):
        DenseForward([DenseLayer(first.weights, second.biases)])
    with pytest.raises(PluginError, match="adds its 6 inputs to its 9 outputs"):
        DenseForward([DenseLayer(first.weights, first.biases, residual=True)])


def test_logarithms_are_accurate_to_a_few_last_bits() -> None:
    values = np.concatenate([np.logspace(-320, 308, 5001), np.linspace(0.5, 2.0, 5001)])

    np.testing.assert_allclose(_of(log_lanes, values), np.log(values), rtol=4e-15, atol=1e-16)


def test_the_logarithm_of_what_has_none_is_as_in_numpy() -> None:
    values = np.array([0.0, -0.0, -1.0, -np.inf, np.inf, np.nan])

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(_of(log_lanes, values), np.log(values))


def test_tolerance_coordinates_and_their_inverse_are_accurate_on_both_sides_of_zero() -> None:
    sizes = np.concatenate([[0.0], np.logspace(-300, 300, 5001)])
    values = np.concatenate([sizes, -sizes])
    exponents = np.concatenate([np.linspace(-709.78, 709.78, 5001), np.logspace(-300, 0, 1001)])

    logs, powers = _of(signed_log1p_lanes, values), _of(signed_expm1_lanes, exponents)

    np.testing.assert_allclose(logs, np.sign(values) * np.log1p(np.abs(values)), rtol=1e-14)
    np.testing.assert_allclose(powers, np.sign(exponents) * np.expm1(np.abs(exponents)), rtol=1e-14)


def test_what_overflows_becomes_infinite_and_nan_stays_nan() -> None:
    values = np.array([710.0, -710.0, 1e300, np.inf, -np.inf, np.nan])

    np.testing.assert_array_equal(_of(signed_expm1_lanes, values), [np.inf, -np.inf, np.inf, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(_of(signed_log1p_lanes, values[3:]), [np.inf, -np.inf, np.nan])


def test_the_larger_of_a_number_and_nan_is_nan() -> None:
    assert larger(1.0, 2.0) == larger(2.0, 1.0) == 2.0
    assert math.isnan(larger(math.nan, 1.0))
    assert math.isnan(larger(1.0, math.nan))


@pytest.mark.timeout(240)
def test_compiled_code_is_cached_and_made_again_where_it_is_older_than_the_module(processes: Processes) -> None:
    def run(older: int) -> str:
        script = processes.folder / "script.py"
        script.write_text(SCRIPT.format(older=older))
        environment = {"NUMBA_CACHE_DIR": str(processes.folder / "cache")}
        done = processes.run([sys.executable, str(script)], timeout=100, environment=environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    first, second, other, last = run(0), run(0), run(-1), run(-1)

    assert "from the cache 0 compiled 1" in first
    assert "from the cache 1 compiled 0" in second
    assert "from the cache 1 compiled 0" in last
    assert {said.splitlines()[-1] for said in (first, second, other, last)} == {first.splitlines()[-1]}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a processor of that kind")
def test_a_processor_without_long_vectors_answers_alike(processes: Processes) -> None:
    script = processes.folder / "script.py"
    script.write_text(SCRIPT.format(older=0))

    def answers(environment: dict[str, str]) -> Floats:
        environment["NUMBA_CACHE_DIR"] = str(processes.folder / "cache")
        done = processes.run([sys.executable, str(script)], timeout=100, environment=environment)
        assert done.returncode == 0, done.stdout
        written: Floats = np.load(processes.folder / "answers.npy")
        return written

    old, this = answers({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}), answers({})

    np.testing.assert_allclose(old, this, rtol=0, atol=1e-4)  # ten layers in single precision
