"""One residual multilayer perceptron whose doubt is the Laplace approximation of its last layer.

The net is that of models/mlp_ensemble.py, alone. With the layers below frozen the last one is linear in its features f
(with a 1 for the bias): for a Gaussian likelihood the posterior of its weights is then Gaussian, and the generalised
Gauss-Newton matrix H = F'F + a I is exact (Daxberger et al., 2021, arXiv:2106.14806). An answer has the variance
s^2 f' H^-1 f, with s the noise of an output: elements whose features were seldom seen are doubtful. In tolerance
coordinates the noise is in tolerances. The precision a of the prior is the one of largest evidence (MacKay, 1992,
Neural Computation 4, 415).

Of H only the directions least seen matter for the variance; they are further answers of the last layer, so the score is
their length and costs next to nothing.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from numba import njit
from torch import Tensor

from coupler.fused import (
    CompiledForward,
    answer_members,
    first_answer,
    pack,
    put_bundle,
    take_bundle,
    workspace,
)
from coupler.lanes import LANES
from coupler.models.calibration import calibrate
from coupler.models.conservation import Conservation, settle_lanes, settling_space, settling_start
from coupler.models.coordinates import Coordinates, add_increments, put_features, start_increments
from coupler.models.residual_nets import Lesson, ResidualNets, Training, teach
from coupler.operator import Signature
from coupler.surrogate import Forward, Prediction, Samples, Surrogate

# Samples beyond these say nothing new of what was seen.
_MOST_FEATURES = 20_000
_EVIDENCE_ROUNDS = 30
# In single precision a direction seen less than this share of the best seen one is rounding.
_LEAST_SEEN = 1e-6


class MLPLaplace(Surrogate):
    """Predict increments in tolerance coordinates by one residual net; its last layer's Laplace variance is the score.

    Parameters
    ----------
    signature : Signature
        Names, bounds, tolerances and conserved sums of the operator.
    width, depth : int
        Units per layer, residual layers.
    directions : int
        Of the last layer's features, those least seen in the training that the score looks at; at most width + 1.
    learning_rate : float
        Largest step size of SOAP; a third of it when a trained model is trained further.
    epochs : int
        Passes over the samples when no time is given.
    batch : int
        Samples per step.
    """

    seldom: Tensor
    seldom_bias: Tensor
    score_scale: Tensor
    fitted: Tensor

    def __init__(
        self,
        signature: Signature,
        *,
        width: int = 64,
        depth: int = 3,
        directions: int = 16,
        learning_rate: float = 1e-2,
        epochs: int = 40,
        batch: int = 256,
    ) -> None:
        super().__init__(signature)
        if min(width, depth, directions, epochs, batch) < 1 or learning_rate <= 0:
            raise ValueError("width, depth, directions, epochs, batch and learning_rate must be positive")
        if directions > width + 1:
            raise ValueError(f"directions is {directions}, but a last layer with width = {width} has {width + 1}")
        self.plan = Training(learning_rate, epochs, batch, None)
        self.coordinates, self.conservation = Coordinates(signature), Conservation(signature)
        self.nets = ResidualNets(1, self.coordinates.features, width, depth, self.coordinates.answers)
        self.register_buffer("seldom", torch.zeros(width, directions))
        self.register_buffer("seldom_bias", torch.zeros(directions))
        self.register_buffer("score_scale", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Train the net, then take the posterior of its last layer; see :class:`Surrogate`.

        A model whose scales the samples have outgrown starts anew.
        """
        plan = self.plan._replace(seconds=seconds)
        taught = teach(self.nets, self.coordinates, samples, plan, seed=seed, known=bool(self.fitted))
        self._take_posterior(taught.lesson.take(taught.division.seen[:_MOST_FEATURES]))
        self.fitted.fill_(True)
        calibrate(self, self.score_scale, samples.take(taught.division.judged.numpy()))

    @torch.no_grad()
    def predict(self, inputs: Tensor, dt: Tensor) -> Prediction:
        """Answer row by row; see :class:`Surrogate`."""
        hidden = self.nets.hidden(self.coordinates.read(inputs, dt)[None])[0]
        answer = torch.addmm(self.nets.biases[-1][0], hidden, self.nets.weights[-1][0])
        mean = self.conservation.settle(inputs, self.coordinates.write(inputs, answer))
        seldom = torch.addmm(self.seldom_bias, hidden, self.seldom)
        return Prediction(mean, seldom.double().square().sum(1).sqrt() * self.score_scale)

    def fused(self) -> Forward:
        """Give all of ``predict`` in one compiled function; see :class:`Surrogate`."""
        *layers, last = self.nets.layers()
        weights = np.concatenate([last.weights[0], self.seldom.cpu().numpy()], axis=1)[None]
        biases = np.concatenate([last.biases[0], self.seldom_bias.cpu().numpy()])[None]
        nets = pack([*layers, replace(last, weights=weights, biases=biases)])
        known = (self.coordinates.feature_rows(), self.coordinates.output_rows(), self.conservation.rows())
        arrays = [rows.cpu().numpy() for rows in (*known, self.score_scale[None])]
        sizes = np.array([len(self.seldom_bias)])
        n_in, n_out = len(self.signature.inputs), len(self.signature.outputs)
        return CompiledForward(_answer, n_in, n_out, nets, *arrays, sizes)

    @torch.no_grad()
    def _take_posterior(self, lesson: Lesson) -> None:
        """Find the directions of the features that were seen least, each in units of its deviation."""
        hidden = self.nets.hidden(lesson.features[None])[0].double()
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
        seen, directions = torch.linalg.eigh(hidden.T @ hidden)
        noise = (self.nets(lesson.features[None])[0] - lesson.answers).double().square().mean(0).clamp(min=1e-12)
        last = torch.cat([self.nets.weights[-1][0], self.nets.biases[-1][0]]).double()
        prior = _precision(seen.clamp(min=0), (directions.T @ last).square() / noise, _LEAST_SEEN * float(seen[-1]))
        count = len(self.seldom_bias)
        scaled = directions[:, :count] / (seen[:count].clamp(min=0) + prior).sqrt()
        self.seldom.copy_(scaled[:-1])
        self.seldom_bias.copy_(scaled[-1])


def _precision(seen: Tensor, square: Tensor, least: float) -> float:
    """Give the prior's precision of largest evidence, in units of the noise: MacKay's fixed point.

    ``seen`` (width + 1,) are the eigenvalues of F'F, ``square`` (width + 1, n_out) the squares of the weights along
    their directions over the noise of their output.
    """
    prior = 1.0
    for _ in range(_EVIDENCE_ROUNDS):
        determined = float((seen / (seen + prior)).sum()) * square.shape[1]
        prior = max(determined / max(float(square.sum()), 1e-300), least)
    return prior


@njit(nogil=True, cache=True)
def _answer(inputs, dt, mean, score, weights, plan, features, outputs, sums, scale, sizes):
    """Do what ``predict`` does, compiled: bundles of sixteen elements, from their inputs to mean and score."""
    net = workspace(plan)
    n_in, n_out = inputs.shape[1], mean.shape[1]
    columns, answers, doubt = np.empty((n_in, LANES)), np.empty((n_out, LANES)), np.empty(LANES)
    space = settling_space(sums)
    log_dt, answer = np.log(dt), first_answer(plan)
    for start in range(0, len(inputs), LANES):
        count = min(LANES, len(inputs) - start)
        take_bundle(inputs, start, count, columns)
        settling_start(columns, sums, space)
        start_increments(columns, outputs, answers)
        put_features(columns, log_dt, features, net)
        answer_members(weights, plan, net)
        add_increments(net, answer, outputs, answers)
        settle_lanes(answers, sums, space)
        put_bundle(answers, 0, start, count, mean)
        doubt[:] = 0.0
        for direction in range(answer + n_out, answer + n_out + sizes[0]):
            for lane in range(LANES):
                doubt[lane] += np.float64(net[direction, lane]) ** 2
        for lane in range(count):
            score[start + lane] = np.sqrt(doubt[lane]) * scale[0]
