"""Residual multilayer perceptrons, several at once, and their training in a given time."""

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from coupler.fused import Activation, DenseLayer
from coupler.models.best import BestWeights
from coupler.models.coordinates import Coordinates
from coupler.models.schedule import WARM_LEARNING_RATE, learning_rate_share
from coupler.models.soap import StackedSoap
from coupler.surrogate import Samples
from coupler.team import ALONE, Team

# Share of the samples the nets do not see, to compare their doubt with their error; never more than needed.
_HELD_BACK, _HELD_BACK_MOST = 0.1, 2000
# From the middle of a training on, where large steps are over, the nets are tried so many times on what they do not
# see. Not before: a net that is trained further has seen all of that, and would be flattered by it.
_TRIED_FROM, _TRIALS = 0.5, 10
# The smallest jolts, as a share of the largest; in between they are spread evenly by the logarithm.
_LEAST_JOLT = 0.01


class Lesson(NamedTuple):
    """Features and wanted answers of some samples, in the units of the nets."""

    features: Tensor
    answers: Tensor

    def take(self, rows: Tensor) -> "Lesson":
        """Give the lesson of these samples, or of several batches of them, in this order."""
        return Lesson(self.features[rows], self.answers[rows])


class Division(NamedTuple):
    """Row numbers of the samples that are seen in a training, and of those held back."""

    seen: Tensor
    unseen: Tensor

    @staticmethod
    def of(count: int, generator: torch.Generator) -> "Division":
        """Draw which of so many samples are held back."""
        order = torch.randperm(count, generator=generator)
        held_back = min(_HELD_BACK_MOST, int(_HELD_BACK * count))
        return Division(order[held_back:], order[:held_back])

    @property
    def judged(self) -> Tensor:
        """Rows to compare doubt and error on: unseen ones if there are any."""
        return self.unseen if len(self.unseen) else self.seen


class Training(NamedTuple):
    """How long to train, and with what steps.

    Attributes
    ----------
    rate : float
        Largest step size of SOAP.
    epochs : int
        Passes over the samples when no time is given.
    batch : int
        Samples per step and net.
    seconds : float or None
        Processor time.
    jolt : float
        Deviation, in tolerances, by which every other sample's inputs are moved at most; the increments stay.
    """

    rate: float
    epochs: int
    batch: int
    seconds: float | None
    jolt: float = 0.0


class ResidualNets(torch.nn.Module):
    """A dense layer, residual layers and a linear one, in float32, with SiLU between them; several nets in one stack.

    Parameters
    ----------
    members : int
        Nets.
    n_in, width, depth, n_out : int
        Features, units per layer, residual layers, answers.
    """

    def __init__(self, members: int, n_in: int, width: int, depth: int, n_out: int) -> None:
        super().__init__()
        self.members = members
        sizes = [n_in, *[width] * (depth + 1), n_out]
        self.weights = torch.nn.ParameterList(torch.zeros(members, *pair) for pair in pairwise(sizes))
        self.biases = torch.nn.ParameterList(torch.zeros(members, 1, size) for size in sizes[1:])
        self.draw(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw new weights."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            weight.normal_(generator=generator).div_(math.sqrt(weight.shape[1]))
            bias.zero_()
        self.weights[-1].mul_(0.1)  # start near the mean answer

    def hidden(self, features: Tensor) -> Tensor:
        """Give what the last layer sees, (members, n, width), of features (members, n, n_in).

        Stacked products: faster than torch.func.vmap over modules. In place where no gradient is wanted, because fresh
        activations cost more than the products: the allocator returns them to the system, page by page.
        """
        in_place = not torch.is_grad_enabled()
        hidden = functional.silu(torch.baddbmm(self.biases[0], features, self.weights[0]), inplace=in_place)
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            change = functional.silu(torch.baddbmm(bias, hidden, weight), inplace=in_place)
            hidden = change.add_(hidden) if in_place else change + hidden
        return hidden

    def forward(self, features: Tensor) -> Tensor:
        """Answer (members, n, n_out)."""
        return torch.baddbmm(self.biases[-1], self.hidden(features), self.weights[-1])

    def layers(self) -> list[DenseLayer]:
        """Give the layers as the fused form takes them."""
        last = len(self.weights) - 1
        return [
            DenseLayer(
                weight.detach().cpu().numpy(),
                bias.detach().cpu().numpy()[:, 0],
                Activation.IDENTITY if number == last else Activation.SILU,
                residual=0 < number < last,
            )
            for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True))
        ]

    def train_on(
        self, lesson: Lesson, division: Division, scale: Tensor, plan: Training, generator: torch.Generator
    ) -> None:
        """Train all nets at once, each with its own order of the samples.

        Whenever the training ends, the weights stay that did best on the samples the nets do not see.

        Parameters
        ----------
        lesson : Lesson
            Features (n, n_in) and wanted answers (n, n_out).
        division : Division
            What of them is seen.
        scale : Tensor (n_out,)
            Tolerances per unit of an answer.
        plan : Training
            How long, and with what steps.
        generator : torch.Generator
            Draws the orders.
        """
        seen, unseen = lesson.take(division.seen), lesson.take(division.unseen)
        count = len(seen.features)
        batch = min(plan.batch, math.ceil(count / 8))
        total = plan.epochs * (count // batch)
        optimizer, best = StackedSoap(self.parameters(), lr=plan.rate), BestWeights(self.parameters())
        start, next_trial = time.thread_time(), _TRIED_FROM
        for step, rows in enumerate(self._batches(count, batch, generator)):
            progress = _progress(step / total, time.thread_time() - start, plan.seconds)
            if progress >= next_trial:
                best.offer(self._loss_on(unseen, scale))
                next_trial = progress + (1 - _TRIED_FROM) / _TRIALS
            if progress >= 1:
                break
            optimizer.lr = plan.rate * learning_rate_share(progress)
            loss = self._loss(seen.take(rows), scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        best.offer(self._loss_on(unseen, scale))
        best.restore()

    @torch.no_grad()
    def train_apart(
        self,
        lesson: Lesson,
        division: Division,
        scale: Tensor,
        plan: Training,
        generator: torch.Generator,
        team: Team,
    ) -> None:
        """Train some of the nets in each process of a team, as :meth:`train_on` does; all processes get all of them.

        Not a part of every batch each: most of a step is the optimizer's, which every process would have to do.

        Parameters
        ----------
        lesson, division, scale, plan, generator
            As there.
        team : Team
            No more processes than there are nets.

        Collective: yes, over the team.
        """
        mine = self._part(team.share(self.members))
        with torch.enable_grad():
            mine.train_on(lesson, division, scale, plan, team.generator(generator))
        taught = team.gather([parameter.detach().numpy() for parameter in mine.parameters()])
        for parameter, *parts in zip(self.parameters(), *taught, strict=True):
            parameter.copy_(torch.from_numpy(np.concatenate(parts)))

    def _part(self, members: range) -> "ResidualNets":
        """Give copies of some of the nets."""
        width, depth = self.weights[0].shape[2], len(self.weights) - 2
        part = ResidualNets(len(members), self.weights[0].shape[1], width, depth, self.weights[-1].shape[2])
        for copy, parameter in zip(part.parameters(), self.parameters(), strict=True):
            copy.copy_(parameter[members.start : members.stop])
        return part

    def _loss(self, lesson: Lesson, scale: Tensor) -> Tensor:
        """Pseudo-Huber: quadratic below one tolerance, where it is good enough, linear above."""
        error = (self(lesson.features) - lesson.answers) * scale
        return torch.sqrt(1 + error.square()).mean()

    @torch.no_grad()
    def _loss_on(self, unseen: Lesson, scale: Tensor) -> float:
        """Give the loss on what the nets do not see; no number if there is nothing."""
        return float(self._loss(Lesson(unseen.features.expand(self.members, -1, -1), unseen.answers), scale))

    def _batches(self, count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Row numbers (members, batch) without end; every net goes through the samples in its own order."""
        while True:
            orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(self.members)])
            for start in range(0, count - batch + 1, batch):
                yield orders[:, start : start + batch]


def _progress(share_of_steps: float, spent: float, seconds: float | None) -> float:
    return share_of_steps if seconds is None else spent / max(seconds, 1e-9)


class Taught(NamedTuple):
    """What nets were trained on: the samples, jolted where they were, what that is to the nets, and who saw what."""

    samples: Samples
    lesson: Lesson
    division: Division


def teach(
    nets: ResidualNets,
    coordinates: Coordinates,
    samples: Samples,
    plan: Training,
    *,
    seed: int,
    known: bool,
    team: Team = ALONE,
) -> Taught:
    """Train nets on the increments of samples, further from what they know, or anew where the scales are outgrown.

    Parameters
    ----------
    nets : ResidualNets
        Are trained.
    coordinates : Coordinates
        In which the nets read and answer; take new scales where the nets start anew.
    samples : Samples
        What to learn from.
    plan : Training
        How long, and with what steps at most.
    seed : int
        Of all draws.
    known : bool
        Whether the nets have been trained before.
    team : Team, optional
        Processes that train some of the nets each.
    """
    start = time.thread_time()
    generator = torch.Generator().manual_seed(seed)
    inputs, dt, truth = (torch.from_numpy(part) for part in (samples.inputs, samples.dt, samples.truth))
    rate = plan.rate
    if known and not coordinates.outgrown(inputs, dt, truth):
        rate *= WARM_LEARNING_RATE
    else:
        coordinates.take_scales(inputs, dt, truth)
        nets.draw(generator)
    division = Division.of(len(samples), generator)
    if plan.jolt > 0:
        inputs, truth = _jolted(coordinates, inputs, truth, division.seen[::2], plan.jolt, generator)
    lesson = Lesson(coordinates.read(inputs, dt), coordinates.wanted(inputs, truth))
    left = None if plan.seconds is None else plan.seconds - (time.thread_time() - start)
    rest = plan._replace(rate=rate, seconds=left)
    scale = coordinates.increment_scale.float()
    if team.size > 1:
        nets.train_apart(lesson, division, scale, rest, generator, team)
    else:
        nets.train_on(lesson, division, scale, rest, generator)
    return Taught(Samples(inputs.numpy(), samples.dt, truth.numpy()), lesson, division)


def _jolted(
    coordinates: Coordinates, inputs: Tensor, truth: Tensor, rows: Tensor, most: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Move some samples, as the answers of a model would have moved them in the steps before.

    A run is fed with what it accepted, which lies beside all that was ever solved: where fresh gas held none of a
    radical, it now holds a thousandth of a tolerance. Nets that have never seen such are far off there (for learned
    simulators: Sanchez-Gonzalez et al., ICML 2020, section 4.4).
    """
    sizes = most * _LEAST_JOLT ** torch.rand(len(rows), 1, generator=generator, dtype=torch.float64)
    jolts = sizes * torch.randn((len(rows), coordinates.answers), generator=generator, dtype=torch.float64)
    moved, after = coordinates.jolted(inputs[rows], truth[rows], jolts)
    return inputs.index_copy(0, rows, moved), truth.index_copy(0, rows, after)
