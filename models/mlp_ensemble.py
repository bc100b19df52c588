"""A residual multilayer perceptron, several times over: the default surrogate for pointwise physics.

The net works in *tolerance coordinates* u(y) = sign(y) ln(1 + rtol |y| / atol) / rtol, because
du = dy / (atol + rtol |y|): a distance of 1 in u is one tolerance of y, whatever the size of y. So the loss of the
training is the error the gate measures, quantities over many decades need no scaling by hand, and the spread of the
members is a score as it stands.
"""

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from coupler.fused import (
    Activation,
    CompiledForward,
    DenseLayer,
    answer_members,
    larger,
    log_lanes,
    pack,
    put_bundle,
    signed_expm1_lanes,
    signed_log1p_lanes,
    summarize_members,
    take_bundle,
    workspace,
)
from coupler.lanes import LANES
from coupler.models.best import BestWeights
from coupler.models.schedule import learning_rate_share, score_scale
from coupler.models.soap import StackedSoap
from coupler.models.tolerance import LEAST_RTOL, decode, encode
from coupler.operator import Signature
from coupler.surrogate import Forward, Prediction, Samples, Surrogate

# Of a non-negative input, what is below this share of the large values looks like zero.
_LOG_RANGE = 1e-9
# Share of the samples the members do not see, to compare their spread with their error; never more than needed.
_HELD_BACK, _HELD_BACK_MOST = 0.1, 2000
# Share of elements whose error should not exceed their score.
_SCORE_COVERS = 0.9
# A model that is trained further needs no large steps any more, they would only undo what it knows.
_WARM_LEARNING_RATE = 0.3
# From the middle of a training on, where large steps are over, the nets are tried so many times on what they do not
# see. Not before: a net that is trained further has seen all of that, and would be flattered by it.
_TRIED_FROM, _TRIALS = 0.5, 10
# Rows of what the compiled form knows of its features and of its outputs.
_FLOOR, _CENTRE, _FACTOR = range(3)
_SOURCE, _KNEE, _RTOL, _SHIFT, _SCALE, _LOWER, _UPPER, _SCORE, _LEAST = range(9)
_NONE = -1.0


class MLPEnsemble(Surrogate):
    """Predict increments in tolerance coordinates by the mean of several residual nets; their spread is the score.

    Parameters
    ----------
    signature : Signature
        Names, bounds and tolerances of the operator.
    members : int
        Nets; more give a better score and cost in proportion.
    width, depth : int
        Units per layer, residual layers.
    learning_rate : float
        Largest step size of SOAP; a third of it when a trained model is trained further.
    epochs : int
        Passes over the samples when no time is given.
    batch : int
        Samples per step and member.
    """

    rtol: Tensor
    knee: Tensor
    source: Tensor
    has_source: Tensor
    logged: Tensor
    lower: Tensor
    upper: Tensor
    floor: Tensor
    feature_mean: Tensor
    feature_scale: Tensor
    increment_mean: Tensor
    increment_scale: Tensor
    score_scale: Tensor
    fitted: Tensor

    def __init__(
        self,
        signature: Signature,
        *,
        members: int = 4,
        width: int = 48,
        depth: int = 3,
        learning_rate: float = 1e-2,
        epochs: int = 40,
        batch: int = 256,
    ) -> None:
        super().__init__(signature)
        if min(members, width, depth, epochs, batch) < 1 or learning_rate <= 0:
            raise ValueError("members, width, depth, epochs, batch and learning_rate must be positive")
        self.members, self.learning_rate, self.epochs, self.batch = members, learning_rate, epochs, batch
        n_in, n_out = len(signature.inputs), len(signature.outputs)
        sizes = [n_in + 1, *[width] * (depth + 1), n_out]
        self.weights = torch.nn.ParameterList(torch.zeros(members, *pair) for pair in pairwise(sizes))
        self.biases = torch.nn.ParameterList(torch.zeros(members, 1, size) for size in sizes[1:])
        self._register_columns(signature)
        for name, size in (("feature", n_in + 1), ("increment", n_out)):
            self.register_buffer(f"{name}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{name}_scale", torch.ones(size, dtype=torch.float64))
        self.register_buffer("floor", torch.ones(n_in, dtype=torch.float64))
        self.register_buffer("score_scale", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))
        self._draw_weights(torch.Generator().manual_seed(0))

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Train all members at once, in float32, each with its own order of the samples; see :class:`Surrogate`.

        Whenever the training ends, the weights stay that did best on a tenth of the samples the members do not see.
        """
        stop = None if seconds is None else time.thread_time() + seconds
        generator = torch.Generator().manual_seed(seed)
        inputs, dt = torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt)
        target = self._encode(torch.from_numpy(samples.truth)) - self._base(inputs)
        rate = self.learning_rate
        if self.fitted:
            rate *= _WARM_LEARNING_RATE
        else:
            self._set_scales(inputs, dt, target)
            self._draw_weights(generator)
        order = torch.randperm(len(samples), generator=generator)
        held_back = min(_HELD_BACK_MOST, int(_HELD_BACK * len(samples)))
        features = self._features(inputs, dt)
        increments = ((target - self.increment_mean) / self.increment_scale).float()
        seen, unseen = (_Lesson(features[rows], increments[rows]) for rows in (order[held_back:], order[:held_back]))
        self._train(seen, unseen, rate, generator, stop)
        self.fitted.fill_(True)
        self._calibrate(samples.take((order[:held_back] if held_back else order).numpy()))

    @torch.no_grad()
    def predict(self, inputs: Tensor, dt: Tensor) -> Prediction:
        """Answer row by row; see :class:`Surrogate`."""
        answers = self._forward(self._features(inputs, dt).expand(self.members, -1, -1))
        answer = answers.mean(0)
        mean = self._decode(self._base(inputs) + answer.double() * self.increment_scale + self.increment_mean)
        # Written out, because torch's std over the first dimension takes half as long as the whole forward.
        variance = (answers - answer).square_().mean(0).double() * self.increment_scale.square()
        spread = variance.amax(1).sqrt() if self.members > 1 else torch.ones_like(dt)
        return Prediction(torch.clamp(mean, self.lower, self.upper), spread * self.score_scale)

    def fused(self) -> Forward:
        """Give all of ``predict`` in one compiled function; see :class:`Surrogate`."""
        last = len(self.weights) - 1
        layers = [
            DenseLayer(
                weight.detach().cpu().numpy(),
                bias.detach().cpu().numpy()[:, 0],
                Activation.IDENTITY if number == last else Activation.SILU,
                residual=0 < number < last,
            )
            for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True))
        ]
        floor = torch.where(self.logged, self.floor, torch.full_like(self.floor, _NONE))
        features = torch.stack(
            [torch.cat([floor, floor.new_tensor([_NONE])]), self.feature_mean, 1.0 / self.feature_scale]
        )
        outputs = torch.stack(
            [
                torch.where(self.has_source > 0, self.source.double(), torch.full_like(self.rtol, _NONE)),
                self.knee,
                self.rtol,
                self.increment_mean,
                self.increment_scale,
                self.lower,
                self.upper,
                self.score_scale.expand_as(self.rtol),
                torch.full_like(self.rtol, 0.0 if self.members > 1 else 1.0),
            ]
        )
        n_in, n_out = len(self.signature.inputs), len(self.signature.outputs)
        return CompiledForward(_answer, n_in, n_out, pack(layers), features.cpu().numpy(), outputs.cpu().numpy())

    def _forward(self, features: Tensor) -> Tensor:
        # Stacked products: faster than torch.func.vmap over modules. In place where no gradient is wanted, because
        # fresh activations cost more than the products: the allocator returns them to the system, page by page.
        in_place = not torch.is_grad_enabled()
        hidden = functional.silu(torch.baddbmm(self.biases[0], features, self.weights[0]), inplace=in_place)
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            change = functional.silu(torch.baddbmm(bias, hidden, weight), inplace=in_place)
            hidden = change.add_(hidden) if in_place else change + hidden
        return torch.baddbmm(self.biases[-1], hidden, self.weights[-1])

    def _train(
        self, seen: "_Lesson", unseen: "_Lesson", rate: float, generator: torch.Generator, stop: float | None
    ) -> None:
        count = len(seen.features)
        batch = min(self.batch, math.ceil(count / 8))
        total = self.epochs * (count // batch)
        optimizer, best = StackedSoap(self.parameters(), lr=rate), BestWeights(self.parameters())
        start, next_trial = time.thread_time(), _TRIED_FROM
        for step, rows in enumerate(self._batches(count, batch, generator)):
            progress = step / total if stop is None else (time.thread_time() - start) / max(stop - start, 1e-9)
            if progress >= next_trial:
                best.offer(self._loss_on(unseen))
                next_trial = progress + (1 - _TRIED_FROM) / _TRIALS
            if progress >= 1:
                break
            optimizer.param_groups[0]["lr"] = rate * learning_rate_share(progress)
            loss = self._loss(seen.features[rows], seen.increments[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        best.offer(self._loss_on(unseen))
        best.restore()

    def _loss(self, features: Tensor, increments: Tensor) -> Tensor:
        """Pseudo-Huber: quadratic below one tolerance, where it is good enough, linear above."""
        error = (self._forward(features) - increments) * self.increment_scale.float()
        return torch.sqrt(1 + error.square()).mean()

    @torch.no_grad()
    def _loss_on(self, unseen: "_Lesson") -> float:
        """Give the loss on what the members do not see; no number if there is nothing."""
        return float(self._loss(unseen.features.expand(self.members, -1, -1), unseen.increments))

    def _batches(self, count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Row numbers (members, batch) without end; every member goes through the samples in its own order."""
        while True:
            orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(self.members)])
            for start in range(0, count - batch + 1, batch):
                yield orders[:, start : start + batch]

    @torch.no_grad()
    def _calibrate(self, samples: Samples) -> None:
        """Scale the spread so that most errors are below their score."""
        self.score_scale.fill_(1.0)
        prediction = self.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt))
        error = torch.from_numpy(self.signature.error(prediction.mean.numpy(), samples.truth))
        self.score_scale.copy_(score_scale(error, prediction.score, _SCORE_COVERS))

    def _set_scales(self, inputs: Tensor, dt: Tensor, target: Tensor) -> None:
        """Take all scales from the first samples; later ones keep them, or the weights would mean something else."""
        small, large = torch.quantile(inputs[: 2**20], torch.tensor([0.001, 0.99], dtype=torch.float64), dim=0)
        floor = torch.maximum(0.1 * small, _LOG_RANGE * large)
        self.floor.copy_(torch.where(floor > 0, floor, torch.ones_like(floor)))
        features = self._raw_features(inputs, dt)
        for name, values in (("feature", features), ("increment", target)):
            scale = values.std(0, correction=0)
            self.get_buffer(f"{name}_mean").copy_(values.mean(0))
            # A column that does not vary (a fixed time step) becomes zero, not rounding noise blown up.
            varies = scale > 1e-9 * (1 + values.abs().amax(0))
            self.get_buffer(f"{name}_scale").copy_(torch.where(varies, scale, torch.ones_like(scale)))

    def _draw_weights(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for weight, bias in zip(self.weights, self.biases, strict=True):
                weight.normal_(generator=generator).div_(math.sqrt(weight.shape[1]))
                bias.zero_()
            self.weights[-1].mul_(0.1)  # start near the mean increment

    def _register_columns(self, signature: Signature) -> None:
        """Put what the signature says into buffers, so that it follows the module to its device; it is not saved."""
        rtol = torch.tensor(signature.rtol, dtype=torch.float64).clamp(min=LEAST_RTOL)
        sources = torch.tensor(signature.increments)
        columns = {
            "rtol": rtol,
            "knee": torch.tensor(signature.atol, dtype=torch.float64) / rtol,
            "source": sources.clamp(min=0),
            "has_source": (sources >= 0).double(),
            "logged": torch.tensor([column.lower >= 0 for column in signature.inputs]),
            "lower": torch.tensor([column.lower for column in signature.outputs], dtype=torch.float64),
            "upper": torch.tensor([column.upper for column in signature.outputs], dtype=torch.float64),
        }
        for name, values in columns.items():
            self.register_buffer(name, values, persistent=False)

    def _encode(self, values: Tensor) -> Tensor:
        return encode(values, self.knee, self.rtol)

    def _decode(self, coordinates: Tensor) -> Tensor:
        return decode(coordinates, self.knee, self.rtol)

    def _base(self, inputs: Tensor) -> Tensor:
        """Where increments start: the coordinate of the input of the same name, zero if there is none."""
        return self._encode(inputs[:, self.source]) * self.has_source

    def _raw_features(self, inputs: Tensor, dt: Tensor) -> Tensor:
        columns = torch.where(self.logged, torch.log(inputs.clamp(min=0) + self.floor), inputs)
        return torch.cat([columns, torch.log(dt)[:, None]], dim=1)

    def _features(self, inputs: Tensor, dt: Tensor) -> Tensor:
        return ((self._raw_features(inputs, dt) - self.feature_mean) / self.feature_scale).float()


class _Lesson(NamedTuple):
    """Features and wanted increments of some samples, in the units of the nets."""

    features: Tensor
    increments: Tensor


@njit(nogil=True, cache=True)
def _answer(inputs, dt, mean, score, weights, plan, features, outputs):
    """Do what ``predict`` does, compiled: bundles of sixteen elements, from their inputs to mean and score."""
    net = workspace(plan)
    n_in, n_out = inputs.shape[1], mean.shape[1]
    columns, answers, doubt = np.empty((n_in, LANES)), np.empty((n_out, LANES)), np.empty(LANES)
    log_dt = np.log(dt)
    for start in range(0, len(inputs), LANES):
        count = min(LANES, len(inputs) - start)
        take_bundle(inputs, start, count, columns)
        _start_increments(columns, outputs, answers)
        _put_features(columns, log_dt, features, net)
        answer_members(weights, plan, net)
        average, variance = summarize_members(plan, net)
        _add_increments(net, average, outputs, answers)
        put_bundle(answers, 0, start, count, mean)
        doubt[:] = outputs[_LEAST, 0]
        for output in range(n_out):
            for lane in range(LANES):
                doubt[lane] = larger(doubt[lane], net[variance + output, lane] * outputs[_SCALE, output] ** 2)
        for lane in range(count):
            score[start + lane] = np.sqrt(doubt[lane]) * outputs[_SCORE, 0]


@njit(nogil=True)
def _start_increments(columns, outputs, answers):
    """See ``_base``: the coordinates of the inputs of the outputs' names, in units of 1 / rtol."""
    for output in range(len(answers)):
        source = int(outputs[_SOURCE, output])
        for lane in range(LANES):
            answers[output, lane] = columns[max(source, 0), lane] / outputs[_KNEE, output]
        if source >= 0:
            signed_log1p_lanes(answers, output)
        else:
            answers[output] *= 0.0  # and NaN where the first input is not finite, as there


@njit(nogil=True)
def _put_features(columns, log_dt, features, net):
    """See ``_features``; spoils the columns."""
    n_in = len(columns)
    for column in range(n_in):
        floor = features[_FLOOR, column]
        if floor != _NONE:
            for lane in range(LANES):
                columns[column, lane] = larger(columns[column, lane], 0.0) + floor
            log_lanes(columns, column)
        for lane in range(LANES):
            net[column, lane] = (columns[column, lane] - features[_CENTRE, column]) * features[_FACTOR, column]
    net[n_in] = (log_dt - features[_CENTRE, n_in]) * features[_FACTOR, n_in]


@njit(nogil=True)
def _add_increments(net, average, outputs, answers):
    """Add the members' mean to where the increments start, and leave the tolerance coordinates."""
    for output in range(len(answers)):
        rtol, shift, scale = outputs[_RTOL, output], outputs[_SHIFT, output], outputs[_SCALE, output]
        for lane in range(LANES):
            answers[output, lane] += (net[average + output, lane] * scale + shift) * rtol
        signed_expm1_lanes(answers, output)
        knee, lower, upper = outputs[_KNEE, output], outputs[_LOWER, output], outputs[_UPPER, output]
        for lane in range(LANES):
            value = answers[output, lane] * knee
            value = lower if value < lower else value  # NaN stays
            answers[output, lane] = upper if value > upper else value
