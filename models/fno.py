"""A Fourier neural operator: whole fields or tiles are the elements, and every cell sees all others.

The network is that of the neuraloperator package (Li et al., 2021, arXiv:2010.08895; Kossaifi et al., 2024,
arXiv:2412.10354). It reads and answers in tolerance coordinates (models/coordinates.py), with the scales of a field
shared by its cells, and its answers keep the conserved sums (models/conservation.py).
"""

import math
import time

import torch
from torch import Tensor
from torch.nn import functional

from coupler.errors import PluginError
from coupler.models.best import BestWeights
from coupler.models.calibration import calibrate
from coupler.models.conservation import Conservation
from coupler.models.coordinates import Coordinates
from coupler.models.residual_nets import Division
from coupler.models.schedule import WARM_LEARNING_RATE, learning_rate_share
from coupler.operator import Signature
from coupler.surrogate import Prediction, Samples, Surrogate
from coupler.team import ALONE, Team

try:
    from neuralop.models import FNO as _Package  # noqa: N811
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'The Fourier neural operator is that of neuraloperator, which is not installed: pip install "coupler[fno]".',
        name="neuralop",
    ) from error

# Rows that are answered at once, always so many: the products round differently in batches of another size.
_ROWS = 64
_TRIED_FROM, _TRIALS = 0.5, 10


class _Network(_Package):
    """Saves its weights and nothing else: neuraloperator's own puts its arguments among them."""

    def state_dict(self, *args, **kwargs):
        return torch.nn.Module.state_dict(self, *args, **kwargs)

    def load_state_dict(self, state, strict=True, assign=False):
        return torch.nn.Module.load_state_dict(self, state, strict, assign)


class FNO(Surrogate):
    """Predict increments of whole fields; the largest increment, which goes with the error, is the score.

    Parameters
    ----------
    signature : Signature
        Its columns are the cells of the fields, field after field, each in C order.
    shape : sequence of int, optional
        Cells of every output field per dimension; without it the outputs are one row of cells, an input of the same
        name belongs to its cell, and any other input is the same everywhere.
    halo : int
        Cells of every input field beyond them on each side.
    modes : int
        Fourier modes per dimension, at most.
    channels, layers : int
        Width of the network, Fourier layers.
    learning_rate : float
        Largest step size of Adam; a third of it when a trained model is trained further.
    epochs : int
        Passes over the samples when no time is given.
    batch : int
        Samples per step.
    """

    score_scale: Tensor
    fitted: Tensor

    def __init__(
        self,
        signature: Signature,
        *,
        shape: tuple[int, ...] | None = None,
        halo: int = 0,
        modes: int = 12,
        channels: int = 24,
        layers: int = 3,
        learning_rate: float = 5e-3,
        epochs: int = 40,
        batch: int = 32,
    ) -> None:
        super().__init__(signature)
        if min(modes, channels, layers, epochs, batch) < 1 or learning_rate <= 0 or halo < 0:
            raise ValueError(
                "modes, channels, layers, epochs, batch and learning_rate must be positive, halo not negative"
            )
        self.learning_rate, self.epochs, self.batch = learning_rate, epochs, batch
        self.coordinates, self.conservation = Coordinates(signature), Conservation(signature)
        self.layout = Layout(signature, shape, halo)
        n_modes = tuple(min(modes, side) for side in self.layout.padded)
        self._make = {"n_modes": n_modes, "hidden_channels": channels, "n_layers": layers}
        self.network = self._drawn(0)
        self.register_buffer("score_scale", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Train with Adam; the weights stay that did best on samples held back; see :class:`Surrogate`.

        A model whose scales the samples have outgrown starts anew.
        """
        self.fit_together(samples, team=ALONE, seed=seed, seconds=seconds)

    @property
    def most_trainers(self) -> int:
        """One process per sample of a batch."""
        return self.batch

    def fit_together(self, samples: Samples, *, team: Team, seed: int, seconds: float | None = None) -> None:
        """Train the network on a part of every batch in each process; see :class:`Surrogate`."""
        start = time.thread_time()
        generator = torch.Generator().manual_seed(seed)
        inputs, dt, truth = (torch.from_numpy(part) for part in (samples.inputs, samples.dt, samples.truth))
        rate = self.learning_rate
        if self.fitted and not self.coordinates.outgrown(inputs, dt, truth):
            rate *= WARM_LEARNING_RATE
        else:
            self.coordinates.take_scales(inputs, dt, truth)
            self.layout.share_scales(self.coordinates)
            self.network.load_state_dict(self._drawn(seed).state_dict())
        division = Division.of(len(samples), generator)
        blocks = self.layout.blocks(self.coordinates.read(inputs, dt))
        wanted = self.coordinates.wanted(inputs, truth)
        left = math.inf if seconds is None else seconds - (time.thread_time() - start)
        self._train(blocks, wanted, division, rate, left, generator, team)
        self.fitted.fill_(True)
        calibrate(self, self.score_scale, samples.take(division.judged.numpy()))

    @torch.no_grad()
    def predict(self, inputs: Tensor, dt: Tensor) -> Prediction:
        """Answer row by row; see :class:`Surrogate`."""
        blocks = self.layout.blocks(self.coordinates.read(inputs, dt))
        parts = [self._answer_rows(blocks[at : at + _ROWS]) for at in range(0, len(blocks), _ROWS)]
        answer = torch.cat(parts) if parts else blocks.new_zeros(0, self.coordinates.answers)
        mean = self.conservation.settle(inputs, self.coordinates.write(inputs, answer))
        change = (answer.double() * self.coordinates.increment_scale).abs().amax(1)
        return Prediction(mean, change * self.score_scale)

    def _answer_rows(self, blocks: Tensor) -> Tensor:
        missing = _ROWS - len(blocks)
        full = torch.cat([blocks, blocks[:1].expand(missing, *blocks.shape[1:])]) if missing else blocks
        return self.layout.columns(self.network(full))[: len(blocks)]

    def _drawn(self, seed: int) -> torch.nn.Module:
        """Make a network with weights of its own, and leave torch's generator as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _Network(in_channels=self.layout.channels, out_channels=self.layout.fields, **self._make)

    def _train(
        self,
        blocks: Tensor,
        wanted: Tensor,
        division: Division,
        rate: float,
        seconds: float,
        generator: torch.Generator,
        team: Team,
    ) -> None:
        seen, unseen = division.seen, division.judged
        batch = max(1, min(self.batch, len(seen) // 4))
        total = self.epochs * math.ceil(len(seen) / batch)
        optimizer, best = torch.optim.Adam(self.network.parameters(), lr=rate), BestWeights(self.network.parameters())
        start, progress, next_trial, step, spent = time.thread_time(), 0.0, _TRIED_FROM, 0, torch.zeros(1)
        while progress < 1:
            for rows in torch.randperm(len(seen), generator=generator).split(batch):
                if progress >= 1:
                    break
                optimizer.param_groups[0]["lr"] = rate * learning_rate_share(progress)
                optimizer.zero_grad()
                mine = seen[team.deal(rows)]
                self._loss(blocks[mine], wanted[mine]).backward()
                spent[0] = (time.thread_time() - start) / max(seconds, 1e-9)
                # What is spent of the time, too: all end at the same step.
                team.average(
                    [*(each.grad for each in self.network.parameters() if each.grad is not None), spent], len(mine)
                )
                optimizer.step()
                step += 1
                progress = step / total if seconds == math.inf else float(spent)
                if progress >= next_trial:
                    best.offer(self._loss_without_gradient(blocks[unseen], wanted[unseen]))
                    next_trial = progress + (1 - _TRIED_FROM) / _TRIALS
        optimizer.zero_grad()
        best.restore()

    def _loss(self, blocks: Tensor, wanted: Tensor) -> Tensor:
        """Pseudo-Huber: quadratic below one tolerance, where it is good enough, linear above."""
        error = (self.layout.columns(self.network(blocks)) - wanted) * self.coordinates.increment_scale.float()
        return torch.sqrt(1 + error.square()).mean()

    @torch.no_grad()
    def _loss_without_gradient(self, blocks: Tensor, wanted: Tensor) -> float:
        parts = zip(blocks.split(_ROWS), wanted.split(_ROWS), strict=True)
        return sum(float(self._loss(block, part)) * len(part) for block, part in parts) / len(wanted)


class Layout:
    """How columns are cells of fields.

    Parameters
    ----------
    signature : Signature
        With the columns.
    shape : sequence of int or None
        Cells per dimension of an output field; None: one row of all outputs.
    halo : int
        Cells beyond them on each side of an input field.

    Raises
    ------
    PluginError
        If the columns are not as many as the cells of whole fields.
    """

    def __init__(self, signature: Signature, shape: tuple[int, ...] | None, halo: int) -> None:
        n_in, n_out = len(signature.inputs), len(signature.outputs)
        self.named = shape is None
        self.shape, self.halo = (n_out,) if shape is None else tuple(shape), halo
        self.padded = self.shape if shape is None else tuple(side + 2 * halo for side in self.shape)
        self.fields = n_out // math.prod(self.shape)
        self._sources = [max(source, 0) for source in signature.increments]
        self._present = torch.tensor([float(source >= 0) for source in signature.increments])
        self._everywhere = [column for column in range(n_in + 1) if column not in signature.increments]
        self.channels = 1 + len(self._everywhere) if self.named else n_in // math.prod(self.padded) + 1
        if not self.named and (n_out % math.prod(self.shape) or n_in % math.prod(self.padded) or not self.fields):
            raise PluginError(
                f"Fields of {self.shape} cells with a halo of {halo} do not fit an operator with {n_in} inputs and "
                f"{n_out} outputs: give surrogate.params.shape and halo as the operator's columns are made."
            )

    def blocks(self, features: Tensor) -> Tensor:
        """Lay features (n, n_in + 1) out as (n, channels, *padded); the time step is a channel of its own."""
        count, dt = len(features), features[:, -1:]
        if self.named:
            cells = (features[:, self._sources] * self._present)[:, None]
            same = features[:, self._everywhere][:, :, None].expand(-1, -1, *self.padded)
            return torch.cat([cells, same], dim=1)
        same = dt.reshape(count, 1, *[1] * len(self.padded)).expand(-1, -1, *self.padded)
        return torch.cat([features[:, :-1].reshape(count, -1, *self.padded), same], dim=1)

    def columns(self, blocks: Tensor) -> Tensor:
        """Lay answers (n, fields, *padded) out as columns, without the halo."""
        inside = functional.pad(blocks, [0 if self.named else -self.halo] * (2 * len(self.padded)))
        return inside.reshape(len(blocks), -1)

    def share_scales(self, coordinates: Coordinates) -> None:
        """Give all cells of a field one scale, as what they do does not depend on where they are."""
        if self.named:
            return
        for buffer, cells in (
            (coordinates.floor, math.prod(self.padded)),
            (coordinates.feature_mean[:-1], math.prod(self.padded)),
            (coordinates.feature_scale[:-1], math.prod(self.padded)),
            (coordinates.increment_mean, math.prod(self.shape)),
            (coordinates.increment_scale, math.prod(self.shape)),
        ):
            by_field = buffer.reshape(-1, cells)
            by_field.copy_(by_field.mean(1, keepdim=True).expand_as(by_field).clone())
