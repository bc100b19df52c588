"""A residual multilayer perceptron, several times over: the default surrogate for pointwise physics.

The nets answer with increments in tolerance coordinates (models/coordinates.py); the mean of their answers is moved
onto the conserved sums of the operator (models/conservation.py), and their spread is the score as it stands.
"""

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from coupler.fused import (
    CompiledForward,
    answer_members,
    larger,
    pack,
    put_bundle,
    summarize_members,
    take_bundle,
    workspace,
)
from coupler.lanes import LANES
from coupler.models.calibration import calibrate
from coupler.models.conservation import Conservation, settle_lanes, settling_space, settling_start
from coupler.models.coordinates import SCALE, Coordinates, add_increments, put_features, start_increments
from coupler.models.doubt import LearnedDoubt, doubt_lanes
from coupler.models.residual_nets import ResidualNets, Taught, Training, teach
from coupler.operator import Signature
from coupler.surrogate import Forward, Prediction, Samples, Surrogate
from coupler.team import ALONE, Team

# Share of the elements held back whose spread is usual.
_USUAL = 0.99
# What the compiled form knows of the score: its scale, the least spread, and the largest usual one.
_SCORE, _LEAST, _SPREAD = range(3)


class MLPEnsemble(Surrogate):
    """Predict increments in tolerance coordinates by the mean of several residual nets; their spread is the score.

    Parameters
    ----------
    signature : Signature
        Names, bounds, tolerances and conserved sums of the operator.
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
    doubt : {"spread", "learned"}
        What the score is: the spread of the members; or the error learned as a function of the inputs (``doubt.py``),
        more where the members disagree unusually. The second ranks better where trainings are short and what is
        learned is smooth, as detailed kinetics: all members then make the same mistake.
    jolt : float
        Deviation, in tolerances, by which the inputs of every other sample are moved at most in a training, so that
        the nets are smooth where a run goes that is fed with their own answers; 0 for none.
    """

    score_scale: Tensor
    usual_spread: Tensor
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
        doubt: str = "spread",
        jolt: float = 0.0,
    ) -> None:
        super().__init__(signature)
        if doubt not in ("spread", "learned"):
            raise ValueError(f'doubt = "{doubt}" is neither "spread" nor "learned"')
        if min(members, width, depth, epochs, batch) < 1 or learning_rate <= 0:
            raise ValueError("members, width, depth, epochs, batch and learning_rate must be positive")
        if not 0 <= jolt < math.inf:
            raise ValueError(f"jolt = {jolt} must be a number of tolerances >= 0")
        self.members, self.plan = members, Training(learning_rate, epochs, batch, None, jolt)
        self.coordinates, self.conservation = Coordinates(signature), Conservation(signature)
        self.nets = ResidualNets(members, self.coordinates.features, width, depth, self.coordinates.answers)
        self.doubt = LearnedDoubt(self.coordinates.features) if doubt == "learned" else None
        self.register_buffer("usual_spread", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("score_scale", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Train all members at once, each with its own order of the samples; see :class:`Surrogate`.

        A model whose scales the samples have outgrown starts anew.
        """
        self.fit_together(samples, team=ALONE, seed=seed, seconds=seconds)

    @property
    def most_trainers(self) -> int:
        """One process per member."""
        return self.members

    def fit_together(self, samples: Samples, *, team: Team, seed: int, seconds: float | None = None) -> None:
        """Train some of the members in each process; see :class:`Surrogate`."""
        plan, known = self.plan._replace(seconds=seconds), bool(self.fitted)
        taught = teach(self.nets, self.coordinates, samples, plan, seed=seed, known=known, team=team)
        if self.doubt is not None:
            self._learn_doubt(self.doubt, taught)
        self.fitted.fill_(True)
        calibrate(self, self.score_scale, samples.take(taught.division.judged.numpy()))

    @torch.no_grad()
    def predict(self, inputs: Tensor, dt: Tensor) -> Prediction:
        """Answer row by row; see :class:`Surrogate`."""
        features = self.coordinates.read(inputs, dt)
        answers = self.nets(features.expand(self.members, -1, -1))
        answer = answers.mean(0)
        mean = self.conservation.settle(inputs, self.coordinates.write(inputs, answer))
        spread = self._spread(answers, answer)
        if self.doubt is None:
            return Prediction(mean, spread * self.score_scale)
        # Where the nets disagree more than on what was held back, there was nothing to learn a doubt from.
        strange = (spread / self.usual_spread).clamp(min=1.0).square()
        return Prediction(mean, self.doubt(features) * strange * self.score_scale)

    def fused(self) -> Forward:
        """Give all of ``predict`` in one compiled function; see :class:`Surrogate`."""
        least = 0.0 if self.members > 1 else 1.0
        doubt = torch.tensor([float(self.score_scale), least, float(self.usual_spread)], dtype=torch.float64)
        known = (self.coordinates.feature_rows(), self.coordinates.output_rows(), self.conservation.rows(), doubt)
        learned = torch.zeros(0, dtype=torch.float64) if self.doubt is None else self.doubt.weights
        arrays = [rows.cpu().numpy() for rows in (*known, learned)]
        n_in, n_out = len(self.signature.inputs), len(self.signature.outputs)
        return CompiledForward(_answer, n_in, n_out, pack(self.nets.layers()), *arrays)

    @torch.no_grad()
    def _learn_doubt(self, doubt: LearnedDoubt, taught: Taught) -> None:
        features, samples = taught.lesson.features, taught.samples
        mean = self.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt)).mean
        doubt.learn(features, torch.from_numpy(self.signature.error(mean.numpy(), samples.truth)))
        answers = self.nets(features[taught.division.judged].expand(self.members, -1, -1))
        spread = self._spread(answers, answers.mean(0))
        self.usual_spread.copy_(torch.quantile(spread, _USUAL).clamp(min=torch.finfo(torch.float32).tiny))

    def _spread(self, answers: Tensor, mean: Tensor) -> Tensor:
        """Give the largest disagreement of the members over the outputs, (n,) [tolerances]; 1 if there is one only."""
        # Written out, because torch's std over the first dimension takes half as long as the whole forward.
        variance = (answers - mean).square_().mean(0).double() * self.coordinates.increment_scale.square()
        return variance.amax(1).sqrt() if self.members > 1 else torch.ones_like(variance[:, 0])


@njit(nogil=True, cache=True)
def _answer(inputs, dt, mean, score, weights, plan, features, outputs, sums, scoring, learned):
    """Do what ``predict`` does, compiled: bundles of sixteen elements, from their inputs to mean and score."""
    net = workspace(plan)
    n_in, n_out = inputs.shape[1], mean.shape[1]
    columns, answers, doubt = np.empty((n_in, LANES)), np.empty((n_out, LANES)), np.empty(LANES)
    expected = np.empty(LANES)
    space = settling_space(sums)
    log_dt = np.log(dt)
    for start in range(0, len(inputs), LANES):
        count = min(LANES, len(inputs) - start)
        take_bundle(inputs, start, count, columns)
        settling_start(columns, sums, space)
        start_increments(columns, outputs, answers)
        put_features(columns, log_dt, features, net)
        doubt_lanes(net, learned, expected)
        answer_members(weights, plan, net)
        average, variance = summarize_members(plan, net)
        add_increments(net, average, outputs, answers)
        settle_lanes(answers, sums, space)
        put_bundle(answers, 0, start, count, mean)
        doubt[:] = scoring[_LEAST]
        for output in range(n_out):
            for lane in range(LANES):
                doubt[lane] = larger(doubt[lane], net[variance + output, lane] * outputs[SCALE, output] ** 2)
        for lane in range(count):
            found = np.sqrt(doubt[lane])
            if len(learned):
                found = np.exp(expected[lane]) * larger(found / scoring[_SPREAD], 1.0) ** 2
            score[start + lane] = found * scoring[_SCORE]
