"""What torch gives by itself for the forward of a model: plain, by ``torch.func``, and as fast as stock torch goes."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.harness.models import GeluEnsemble, PlainMLP
from coupler.surrogate import Prediction, Surrogate

Answer = Callable[[], Prediction]
"""Answers one batch; what it gives is valid until the next call."""

_CHUNKS = (512, 1024, 2048, 4096)
_TRIALS = 3


def eager(surrogate: Surrogate, inputs: NDArray[np.float64], dt: float) -> Answer:
    """Give ``predict`` on the whole batch, what people write."""
    rows, steps = torch.from_numpy(inputs), torch.full((len(inputs),), dt, dtype=torch.float64)

    @torch.inference_mode()
    def answer() -> Prediction:
        return surrogate.predict(rows, steps)

    return answer


def stacked_by_func(surrogate: GeluEnsemble, inputs: NDArray[np.float64]) -> Answer:
    """Give the ensemble as torch's tutorial on ensembles has it: modules, stacked, under ``vmap``."""
    members = [_module_of(surrogate, number) for number in range(len(surrogate.weights[0]))]
    parameters, buffers = stack_module_state(members)
    rows = torch.from_numpy(inputs)
    all_members = vmap(partial(functional_call, members[0]), in_dims=((0, 0), None))

    @torch.inference_mode()
    def answer() -> Prediction:
        answers = all_members((parameters, buffers), (rows.float(),))
        mean = answers.mean(0)
        return Prediction(mean.double(), (answers - mean).square().mean(0).amax(1).sqrt().double())

    return answer


def chunked(surrogate: Surrogate, inputs: NDArray[np.float64], dt: float) -> Answer:
    """Give the best that stock torch does: activations that stay in the cache and are made once.

    The size of the chunks is the one that is fastest here, for this batch.
    """
    sizes = [size for size in _CHUNKS if size < 2 * len(inputs)] or [_CHUNKS[0]]
    candidates = [_in_chunks(surrogate, inputs, dt, min(size, len(inputs))) for size in sizes]
    return min(candidates, key=_seconds)


def _in_chunks(surrogate: Surrogate, inputs: NDArray[np.float64], dt: float, size: int) -> Answer:
    rows = torch.from_numpy(inputs)
    mean = torch.empty(len(rows), len(surrogate.signature.outputs), dtype=torch.float64)
    score = torch.zeros(len(rows), dtype=torch.float64)
    chunk = _chunk_of(surrogate, size, dt)
    starts = range(0, len(rows), size)

    @torch.inference_mode()
    def answer() -> Prediction:
        for start in starts:
            part = slice(start, min(start + size, len(rows)))
            mean[part], score[part] = chunk(rows[part])
        return Prediction(mean, score)

    return answer


def _chunk_of(surrogate: Surrogate, size: int, dt: float) -> Callable[[Tensor], Prediction]:
    """Give the forward of one chunk, by hand where ``predict`` makes its activations anew."""
    if isinstance(surrogate, PlainMLP):
        return _plain_chunk(surrogate, size)
    if isinstance(surrogate, GeluEnsemble):
        return _ensemble_chunk(surrogate, size)
    steps = torch.full((size,), dt, dtype=torch.float64)
    return lambda rows: surrogate.predict(rows, steps[: len(rows)])


def _plain_chunk(surrogate: PlainMLP, size: int) -> Callable[[Tensor], Prediction]:
    layers = [
        (layer.weight.detach().T, layer.bias.detach())
        for layer in surrogate.layers.children()
        if isinstance(layer, torch.nn.Linear)
    ]
    space = [torch.empty(size, len(bias)) for _, bias in layers]
    certain = torch.zeros(size, dtype=torch.float64)

    def answer(rows: Tensor) -> Prediction:
        hidden = rows.float()
        for number, ((weight, bias), place) in enumerate(zip(layers, space, strict=True)):
            hidden = torch.addmm(bias, hidden, weight, out=place[: len(rows)])
            if number < len(layers) - 1:
                hidden.relu_()
        return Prediction(hidden, certain[: len(rows)])

    return answer


def _ensemble_chunk(surrogate: GeluEnsemble, size: int) -> Callable[[Tensor], Prediction]:
    layers = [
        (weight.detach(), bias.detach()) for weight, bias in zip(surrogate.weights, surrogate.biases, strict=True)
    ]
    members = len(layers[0][0])
    space = [torch.empty(members, size, weight.shape[2]) for weight, _ in layers]

    def answer(rows: Tensor) -> Prediction:
        hidden = rows.float().expand(members, -1, -1)
        for number, ((weight, bias), place) in enumerate(zip(layers, space, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight, out=place[:, : len(rows)])
            if number < len(layers) - 1:
                torch.ops.aten.gelu_(hidden)
        mean = hidden.mean(0)
        return Prediction(mean, (hidden - mean).square_().mean(0).amax(1).sqrt_())

    return answer


def _module_of(surrogate: GeluEnsemble, member: int) -> torch.nn.Module:
    """Give one member as a module of its own."""
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(surrogate.weights, surrogate.biases, strict=True):
        layer = torch.nn.Linear(*weight.shape[1:])
        layer.weight.data, layer.bias.data = weight[member].detach().T.contiguous(), bias[member, 0].detach()
        layers += [layer, torch.nn.GELU()]
    return torch.nn.Sequential(*layers[:-1])


@torch.inference_mode()
def _seconds(answer: Answer) -> float:
    """Give the fastest of a few trials."""
    best = float("inf")
    for _ in range(1 + _TRIALS):
        before = time.perf_counter()
        answer()
        best = min(best, time.perf_counter() - before)
    return best
