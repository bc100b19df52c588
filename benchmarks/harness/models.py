"""The models the benchmarks serve: an identity, a plain network and an ensemble, as surrogates through the user's door.

Their weights are drawn from a seed, as what they answer does not matter here; double precision outside, single inside.
"""

from itertools import pairwise

import torch
from numba import njit
from torch.nn import functional

from coupler.field import Field
from coupler.fused import Activation, CompiledForward, DenseForward, DenseLayer
from coupler.operator import Signature
from coupler.surrogate import Forward, Prediction, Samples, Surrogate

# What differs by rounding in single precision is far below it, what differs by rounding in bfloat16 is not.
_TOLERANCE = 1e-3


def columns(n_in: int, n_out: int) -> Signature:
    """Give the signature of an operator with so many inputs and outputs."""
    inputs, outputs = ([Field(f"{letter}{i}") for i in range(n)] for letter, n in (("x", n_in), ("y", n_out)))
    return Signature(tuple(inputs), tuple(outputs), (_TOLERANCE,) * n_out, (_TOLERANCE,) * n_out)


class _Drawn(Surrogate):
    """A surrogate that has nothing to learn."""

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Keep the weights as they were drawn."""


class Identity(_Drawn):
    """Answer with the inputs, without doubt: what is left is the exchange."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        if len(signature.inputs) != len(signature.outputs):
            raise ValueError("an identity has as many outputs as inputs")
        self.register_buffer("unused", torch.zeros(1))  # a file of weights is never empty

    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        """Give the inputs back."""
        return Prediction(inputs, torch.zeros_like(dt))

    def fused(self) -> Forward:
        """One copy."""
        return CompiledForward(_copy, len(self.signature.inputs), len(self.signature.outputs), None)


@njit(nogil=True, cache=True)
def _copy(inputs, dt, mean, score):  # type: ignore[no-untyped-def]
    mean[:] = inputs
    score[:] = 0.0


class PlainMLP(_Drawn):
    """A plain network with ReLU, 16-64-64-16 for an operator of 16 inputs and outputs; it never doubts."""

    def __init__(self, signature: Signature, *, width: int = 64, depth: int = 2, seed: int = 0) -> None:
        super().__init__(signature)
        sizes = [len(signature.inputs), *[width] * depth, len(signature.outputs)]
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n, m) for n, m in pairwise(sizes))
        _draw(self, seed)

    @torch.no_grad()
    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        """Answer as everybody would write it."""
        hidden = inputs.float()
        *before, last = self.layers
        for layer in before:
            hidden = functional.relu(layer(hidden))
        return Prediction(last(hidden).double(), torch.zeros_like(dt))

    def fused(self) -> Forward:
        """Give the compiled form."""
        pairs = (layer.parameters() for layer in self.layers)
        weights = [(weight.T[None], bias[None]) for weight, bias in pairs]
        return _dense(weights, Activation.RELU)


class GeluEnsemble(_Drawn):
    """Networks with GELU, 5 x 11-64-64-11 for an operator of 11 inputs and outputs; the score is their spread."""

    def __init__(
        self, signature: Signature, *, members: int = 5, width: int = 64, depth: int = 2, seed: int = 0
    ) -> None:
        super().__init__(signature)
        sizes = [len(signature.inputs), *[width] * depth, len(signature.outputs)]
        pairs = list(pairwise(sizes))
        self.weights = torch.nn.ParameterList(torch.empty(members, *pair) for pair in pairs)
        self.biases = torch.nn.ParameterList(torch.empty(members, 1, pair[1]) for pair in pairs)
        _draw(self, seed)

    @torch.no_grad()
    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        """Answer by stacked products, the fastest eager form."""
        hidden = inputs.float().expand(len(self.weights[0]), -1, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = functional.gelu(torch.baddbmm(bias, hidden, weight))
        answers = torch.baddbmm(self.biases[-1], hidden, self.weights[-1])
        mean = answers.mean(0)
        score = (answers - mean).square().mean(0).amax(1).sqrt()
        return Prediction(mean.double(), score.double())

    def fused(self) -> Forward:
        """Give the compiled form."""
        weights = [(weight, bias[:, 0]) for weight, bias in zip(self.weights, self.biases, strict=True)]
        return _dense(weights, Activation.GELU)


@torch.no_grad()
def _draw(surrogate: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in surrogate.parameters():
        parameter.normal_(generator=generator).div_(8.0)  # the root of 64: activations of the size of one


def _dense(weights: list[tuple[torch.Tensor, torch.Tensor]], activation: Activation) -> Forward:
    layers = [
        DenseLayer(
            weight.detach().numpy(),
            bias.detach().numpy(),
            activation if number < len(weights) else Activation.IDENTITY,
        )
        for number, (weight, bias) in enumerate(weights, start=1)
    ]
    return DenseForward(layers)
