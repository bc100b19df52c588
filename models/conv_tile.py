"""Convolutional networks over tiles, several of them: the default surrogate for operators over tiles.

Convolutions are *valid*: every layer leaves out the cells whose neighbours it does not see, so that nothing is made up
at the edge, and what goes in is cut to the cells that can reach the answer. The networks predict increments in
tolerance coordinates (``coupler.models.tolerance``), each output field starting from the input field of its name.
"""

import math
import time
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from coupler.errors import PluginError
from coupler.models.best import BestWeights
from coupler.models.calibration import calibrate
from coupler.models.schedule import WARM_LEARNING_RATE, learning_rate_share
from coupler.models.tolerance import LEAST_RTOL, decode, encode
from coupler.operator import Signature
from coupler.surrogate import Prediction, Samples, Surrogate
from coupler.team import ALONE, Team
from coupler.tile import Tiled

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
# Cells per dimension of a tile that a step of the training looks at, at most.
_WINDOW = 16
_HELD_BACK, _HELD_BACK_MOST = 0.1, 200
_TRIED_FROM, _TRIALS = 0.5, 5


class ConvTile(Surrogate):
    """Predict the new values of a tile from its cells and their halo, in 1, 2 or 3 dimensions.

    Parameters
    ----------
    signature : Signature
        Of an operator over tiles.
    members : int
        Networks; their spread is the score.
    width : int
        Channels of a hidden layer.
    dilations : sequence of int
        One convolution each, with so many cells from one of its three points to the next. Their sum is how far the
        network sees, at most the tile's halo.
    learning_rate : float
        Largest step size of Adam; a third of it when a trained model is trained further.
    epochs : int
        Passes over the samples when no time is given.
    batch : int
        Tiles per step and member.

    Raises
    ------
    PluginError
        If the operator's elements are no tiles, or the network would see beyond their halo.
    """

    rtol: Tensor
    knee: Tensor
    lower: Tensor
    upper: Tensor
    has_source: Tensor
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
        members: int = 2,
        width: int = 16,
        dilations: Sequence[int] = (1, 1, 1, 1),
        learning_rate: float = 1e-2,
        epochs: int = 30,
        batch: int = 16,
    ) -> None:
        super().__init__(signature)
        if min(members, width, epochs, batch) < 1 or learning_rate <= 0:
            raise ValueError("members, width, epochs, batch and learning_rate must be positive")
        self.tiled = _tiled(signature)
        self.dilations = tuple(dilations)
        self.reach = sum(self.dilations)
        _check_reach(self.dilations, self.reach, self.tiled.tile.halo)
        self.members, self.learning_rate, self.epochs, self.batch = members, learning_rate, epochs, batch
        fields, ndim = len(self.tiled.inputs), self.tiled.tile.ndim
        sizes = [fields + 1, *[width] * len(self.dilations)]
        shapes = [(after, before, *(3,) * ndim) for before, after in pairwise(sizes)]
        shapes.append((len(self.tiled.outputs), width, *(1,) * ndim))
        self.weights = torch.nn.ParameterList(torch.zeros(shape) for _ in range(members) for shape in shapes)
        self.biases = torch.nn.ParameterList(torch.zeros(shape[0]) for _ in range(members) for shape in shapes)
        self._register_fields()
        for name, size in (("feature", fields + 1), ("increment", len(self.tiled.outputs))):
            self.register_buffer(f"{name}_mean", self._per_field(torch.zeros(size, dtype=torch.float64)))
            self.register_buffer(f"{name}_scale", self._per_field(torch.ones(size, dtype=torch.float64)))
        self.register_buffer("score_scale", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))
        self._draw_weights(torch.Generator().manual_seed(0))

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Train all members, in float32, each with its own order of the samples; see :class:`Surrogate`.

        Whenever the training ends, the weights stay that did best on a tenth of the samples the members do not see.
        """
        self.fit_together(samples, team=ALONE, seed=seed, seconds=seconds)

    @property
    def most_trainers(self) -> int:
        """One process per member."""
        return self.members

    def fit_together(self, samples: Samples, *, team: Team, seed: int, seconds: float | None = None) -> None:
        """Train some of the members in each process; see :class:`Surrogate`."""
        stop = None if seconds is None else time.thread_time() + seconds
        generator = torch.Generator().manual_seed(seed)
        inputs, dt = self._blocks(torch.from_numpy(samples.inputs)), torch.from_numpy(samples.dt)
        truth = torch.from_numpy(samples.truth).reshape(len(samples), *self.tiled.output_shape)
        target = encode(truth, self.knee, self.rtol) - self._base(inputs)
        rate = self.learning_rate
        if self.fitted:
            rate *= WARM_LEARNING_RATE
        else:
            self._set_scales(inputs, dt, target)
            self._draw_weights(generator)
        order = torch.randperm(len(samples), generator=generator)
        held_back = min(_HELD_BACK_MOST, int(_HELD_BACK * len(samples)))
        features = self._features(inputs, dt)
        increments = ((target - self.increment_mean) / self.increment_scale).float()
        seen, unseen = (_Lesson(features[rows], increments[rows]) for rows in (order[held_back:], order[:held_back]))
        mine = team.share(self.members)
        self._train(mine, seen, unseen, rate, team.generator(generator), stop)
        self._take_over(team.gather([parameter.detach().numpy() for parameter in self._weights_of(mine)]))
        self.fitted.fill_(True)
        calibrate(self, self.score_scale, samples.take((order[:held_back] if held_back else order).numpy()))

    @torch.no_grad()
    def predict(self, inputs: Tensor, dt: Tensor) -> Prediction:
        """Answer tile by tile; see :class:`Surrogate`."""
        if inputs.device.type != "cpu" or len(inputs) == 0:
            return self._answer(inputs, dt)
        # One by one: whatever is in a batch, and where a tile stands in it, rounds some of its numbers another way.
        parts = [self._answer(inputs[row : row + 1], dt[row : row + 1]) for row in range(len(inputs))]
        mean, score = (torch.cat(values) for values in zip(*parts, strict=True))
        return Prediction(mean, score)

    def _answer(self, inputs: Tensor, dt: Tensor) -> Prediction:
        blocks = self._blocks(inputs)
        features = self._features(blocks, dt)
        answers = torch.stack([self._forward(member, features) for member in range(self.members)])
        answer = answers.mean(0)
        coordinates = self._base(blocks) + answer.double() * self.increment_scale + self.increment_mean
        mean = torch.clamp(decode(coordinates, self.knee, self.rtol), self.lower, self.upper)
        variance = (answers - answer).square_().mean(0).double() * self.increment_scale.square()
        spread = variance.flatten(1).amax(1).sqrt() if self.members > 1 else torch.ones_like(dt)
        return Prediction(mean.flatten(1), spread * self.score_scale)

    def _forward(self, member: int, features: Tensor) -> Tensor:
        """Give a member's increments, in its own units: (n, fields, *shape)."""
        convolution = _CONVOLUTIONS[self.tiled.tile.ndim]
        first, count = member * (len(self.dilations) + 1), len(self.dilations)
        hidden = features
        for layer, dilation in enumerate(self.dilations, first):
            change = functional.silu(convolution(hidden, self.weights[layer], self.biases[layer], dilation=dilation))
            hidden = change if layer == first else change + self._cut(hidden, dilation)
        return convolution(hidden, self.weights[first + count], self.biases[first + count])

    def _weights_of(self, members: range) -> list[Tensor]:
        """Give all weights and biases of some members."""
        count = len(self.dilations) + 1
        places = range(members.start * count, members.stop * count)
        return [each[place] for place in places for each in (self.weights, self.biases)]

    @torch.no_grad()
    def _take_over(self, taught: Sequence[Sequence[NDArray[np.float32]]]) -> None:
        """Take the weights that the processes of a team have taught, by rank."""
        found = chain.from_iterable(taught)
        for parameter, values in zip(self._weights_of(range(self.members)), found, strict=True):
            parameter.copy_(torch.from_numpy(values))

    def _train(
        self,
        members: range,
        seen: "_Lesson",
        unseen: "_Lesson",
        rate: float,
        generator: torch.Generator,
        stop: float | None,
    ) -> None:
        count = len(seen.features)
        batch = min(self.batch, math.ceil(count / 8))
        total = self.epochs * (count // batch)
        weights = self._weights_of(members)
        optimizer, best = torch.optim.Adam(weights, lr=rate), BestWeights(weights)
        start, next_trial = time.thread_time(), _TRIED_FROM
        for step, rows in enumerate(_batches(len(members), count, batch, generator)):
            progress = step / total if stop is None else (time.thread_time() - start) / max(stop - start, 1e-9)
            if progress >= next_trial:
                best.offer(self._loss_on(unseen, members))
                next_trial = progress + (1 - _TRIED_FROM) / _TRIALS
            if progress >= 1:
                break
            optimizer.param_groups[0]["lr"] = rate * learning_rate_share(progress)
            optimizer.zero_grad()
            for member, mine in zip(
                members, rows, strict=True
            ):  # one after the other: they share nothing but the cache
                self._loss(member, *self._part(seen, mine, generator)).backward()
            optimizer.step()
        optimizer.zero_grad()
        best.offer(self._loss_on(unseen, members))
        best.restore()

    def _part(self, seen: "_Lesson", rows: Tensor, generator: torch.Generator) -> "_Lesson":
        """Give a random window of some tiles: many steps on little teach more than few on much."""
        features, increments = seen.features[rows], seen.increments[rows]
        for axis, side in enumerate(self.tiled.tile.shape, 2):
            width = min(side, _WINDOW)
            start = int(torch.randint(side - width + 1, (), generator=generator))
            features = features.narrow(axis, start, width + 2 * self.reach)
            increments = increments.narrow(axis, start, width)
        return _Lesson(features, increments)

    def _loss(self, member: int, features: Tensor, increments: Tensor) -> Tensor:
        """Pseudo-Huber: quadratic below one tolerance, where it is good enough, linear above."""
        error = (self._forward(member, features) - increments) * self.increment_scale.float()
        return torch.sqrt(1 + error.square()).mean()

    @torch.no_grad()
    def _loss_on(self, unseen: "_Lesson", members: range) -> float:
        """Give the mean loss of members on what they do not see; no number if there is nothing."""
        losses = [self._loss(member, unseen.features, unseen.increments) for member in members]
        return float(torch.stack(losses).mean())

    def _set_scales(self, inputs: Tensor, dt: Tensor, target: Tensor) -> None:
        """Take all scales from the first samples, one per field; later ones keep them."""
        # A field that does not vary (a fixed time step) becomes zero, not rounding noise blown up.
        for name, values in (("feature", self._raw_features(inputs, dt)), ("increment", target)):
            over = [0, *range(2, values.ndim)]
            scale = values.std(over, correction=0, keepdim=True)[0]
            varies = scale > 1e-9 * (1 + values.abs().amax(over, keepdim=True)[0])
            self.get_buffer(f"{name}_mean").copy_(values.mean(over, keepdim=True)[0])
            self.get_buffer(f"{name}_scale").copy_(torch.where(varies, scale, torch.ones_like(scale)))

    def _draw_weights(self, generator: torch.Generator) -> None:
        count = len(self.dilations) + 1
        with torch.no_grad():
            for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                weight.normal_(generator=generator).div_(math.sqrt(weight[0].numel()))
                bias.zero_()
                if layer % count == count - 1:
                    weight.mul_(0.1)  # start near the mean increment

    def _register_fields(self) -> None:
        """Put what the signature says into buffers, so that it follows the module to its device; it is not saved."""
        outputs, names = self.tiled.outputs, [field.name for field in self.tiled.inputs]
        rtol = torch.tensor(self.signature.field_rtol, dtype=torch.float64).clamp(min=LEAST_RTOL)
        self.sources = [names.index(field.name) if field.name in names else 0 for field in outputs]
        values = {
            "rtol": rtol,
            "knee": torch.tensor(self.signature.field_atol, dtype=torch.float64) / rtol,
            "lower": torch.tensor([field.lower for field in outputs], dtype=torch.float64),
            "upper": torch.tensor([field.upper for field in outputs], dtype=torch.float64),
            "has_source": torch.tensor([field.name in names for field in outputs], dtype=torch.float64),
        }
        for name, value in values.items():
            self.register_buffer(name, self._per_field(value), persistent=False)

    def _per_field(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *(1,) * self.tiled.tile.ndim)

    def _blocks(self, rows: Tensor) -> Tensor:
        """Lay rows out as blocks and cut off what of the halo is not in reach."""
        return self._cut(rows.reshape(len(rows), *self.tiled.input_shape), self.tiled.tile.halo - self.reach)

    def _base(self, blocks: Tensor) -> Tensor:
        """Where increments start: the coordinate of the input field of the same name, zero if there is none."""
        return encode(self._cut(blocks[:, self.sources], self.reach), self.knee, self.rtol) * self.has_source

    def _cut(self, blocks: Tensor, width: int) -> Tensor:
        """Leave out so many cells at every edge."""
        for axis in range(2, blocks.ndim):
            blocks = blocks.narrow(axis, width, blocks.shape[axis] - 2 * width)
        return blocks

    def _raw_features(self, blocks: Tensor, dt: Tensor) -> Tensor:
        times = self._per_field(torch.log(dt)).unsqueeze(1).expand(-1, 1, *blocks.shape[2:])
        return torch.cat([blocks, times], dim=1)

    def _features(self, blocks: Tensor, dt: Tensor) -> Tensor:
        return ((self._raw_features(blocks, dt) - self.feature_mean) / self.feature_scale).float()


class _Lesson(NamedTuple):
    """Features and wanted increments of some tiles, in the units of the networks."""

    features: Tensor
    increments: Tensor


def _batches(members: int, count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers (members, batch) without end; every member goes through the samples in its own order."""
    while True:
        orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(members)])
        for start in range(0, count - batch + 1, batch):
            yield orders[:, start : start + batch]


def _tiled(signature: Signature) -> Tiled:
    if signature.tiled is None:
        raise PluginError(
            "ConvTile is for operators over tiles, and this one's elements are none: give the operator a tile "
            '(tile=Tile((16, 16), halo=8)), or set surrogate.name = "coupler.models.mlp_ensemble:MLPEnsemble".'
        )
    return signature.tiled


def _check_reach(dilations: Sequence[int], reach: int, halo: int) -> None:
    if not dilations or min(dilations) < 1:
        raise PluginError(f"dilations = {list(dilations)} are no layers: give whole numbers, 1 or more each.")
    if reach > halo:
        raise PluginError(
            f"A network with dilations = {list(dilations)} sees {reach} cells far, and the halo of the operator's "
            f"tiles is {halo}: what it needs is not there. Give dilations that add up to {halo} at most, for example "
            f"dilations = {[1] * min(halo, 4)}."
        )
