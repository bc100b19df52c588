"""A Gaussian process: for few samples and smooth maps, with a doubt that grows with the distance to what was seen.

Exact regression (Rasmussen and Williams, 2006, algorithm 2.1) on a bounded choice of the samples, in tolerance
coordinates (models/coordinates.py): all outputs share one Matérn 5/2 kernel with a length scale per feature, and each
has its own deviation. Kernel, likelihood and the fit of their parameters are gpytorch's (Gardner et al., 2018,
arXiv:1809.11165); what an answer needs of it, K^-1 y and the inverse Cholesky factor of K, is kept in float64.
"""

import math
import time

import torch
from torch import Tensor

from coupler.models.calibration import calibrate
from coupler.models.conservation import Conservation
from coupler.models.coordinates import Coordinates
from coupler.operator import Signature
from coupler.surrogate import Prediction, Samples, Surrogate

try:
    import gpytorch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'The Gaussian process is built with gpytorch, which is not installed: pip install "coupler[gp]".',
        name="gpytorch",
    ) from error

_LEARNING_RATE = 0.1
# Of the variance of an output: keeps the matrix well conditioned in float64.
_LEAST_NOISE = 1e-6
# The parameters of the kernel are found on fewer points than the answers are: the time grows with their cube.
_POINTS_FOR_KERNEL = 256
_MOST_JUDGED = 1000


class GP(Surrogate):
    """Predict increments in tolerance coordinates by exact Gaussian process regression; its deviation is the score.

    Parameters
    ----------
    signature : Signature
        Names, bounds, tolerances and conserved sums of the operator.
    points : int
        Samples it remembers; cost and memory of an answer grow with their square.
    steps : int
        Steps of Adam on the marginal likelihood when no time is given.
    """

    places: Tensor
    values: Tensor
    known: Tensor
    whitening: Tensor
    coefficients: Tensor
    score_scale: Tensor
    fitted: Tensor

    def __init__(self, signature: Signature, *, points: int = 512, steps: int = 60) -> None:
        super().__init__(signature)
        if min(points, steps) < 1:
            raise ValueError("points and steps must be positive")
        self.points, self.steps = points, steps
        self.coordinates, self.conservation = Coordinates(signature), Conservation(signature)
        n_in, n_out = self.coordinates.features, self.coordinates.answers
        self.kernel = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=n_in).double()
        constraint = gpytorch.constraints.GreaterThan(_LEAST_NOISE)
        self.likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=constraint).double()
        for name, shape in (
            ("places", (points, n_in)),
            ("values", (points, n_out)),
            ("known", (points,)),
            ("whitening", (points, points)),
            ("coefficients", (points, n_out)),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("score_scale", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Choose points among the samples and those already known, and fit the kernel; see :class:`Surrogate`.

        A model whose scales the samples have outgrown starts anew.
        """
        stop = None if seconds is None else time.thread_time() + seconds
        generator = torch.Generator().manual_seed(seed)
        inputs, dt, truth = (torch.from_numpy(part) for part in (samples.inputs, samples.dt, samples.truth))
        if not self.fitted or self.coordinates.outgrown(inputs, dt, truth):
            self.coordinates.take_scales(inputs, dt, truth)
            self.known.zero_()
        places, values = self.coordinates.read(inputs, dt).double(), self.coordinates.wanted(inputs, truth).double()
        order = torch.randperm(len(places), generator=generator)
        judged = order[self.points :][:_MOST_JUDGED] if len(order) > self.points else order
        self._choose(places[order[: self.points]], values[order[: self.points]], generator)
        self._fit_kernel(stop)
        self._solve()
        self.fitted.fill_(True)
        calibrate(self, self.score_scale, samples.take(judged.numpy()))

    @torch.no_grad()
    def predict(self, inputs: Tensor, dt: Tensor) -> Prediction:
        """Answer row by row; see :class:`Surrogate`."""
        near = self._near(self.coordinates.read(inputs, dt).double())
        # Output by output: a product with few columns rounds a row by where it stands.
        answer = torch.stack([(near * column).sum(1) for column in self.coefficients.T.contiguous()], dim=1)
        mean = self.coordinates.write(inputs, answer)
        explained = (near @ self.whitening).square().sum(1)
        deviation = (1.0 - explained).clamp(min=0.0).sqrt() * self.coordinates.increment_scale.amax()
        return Prediction(self.conservation.settle(inputs, mean), deviation * self.score_scale)

    def _near(self, places: Tensor) -> Tensor:
        """Give the kernel between new places and the points, (n, points).

        Written out, feature by feature: gpytorch multiplies matrices here, and a row then depends on where it stands.
        """
        square = places.new_zeros(len(places), self.points)
        lengths = self.kernel.lengthscale.detach()[0]
        for feature in range(places.shape[1]):
            square += ((places[:, feature, None] - self.places[:, feature]) / lengths[feature]).square_()
        distance = (5.0 * square).sqrt_()
        return (1.0 + distance + 5.0 / 3.0 * square) * torch.exp(-distance) * self.known

    def _choose(self, places: Tensor, values: Tensor, generator: torch.Generator) -> None:
        """Take new points, and among the old ones as many as there is room for, at least half of it."""
        old = torch.nonzero(self.known)[:, 0]
        kept = max(self.points - len(places), self.points // 2)
        old = old[torch.randperm(len(old), generator=generator)[:kept]]
        places = torch.cat([self.places[old], places])[: self.points]
        values = torch.cat([self.values[old], values])[: self.points]
        for name, rows in (("places", places), ("values", values), ("known", torch.ones(len(places)))):
            buffer = self.get_buffer(name)
            buffer.zero_()
            buffer[: len(rows)] = rows

    def _fit_kernel(self, stop: float | None) -> None:
        count = min(int(self.known.sum()), _POINTS_FOR_KERNEL)
        last = torch.arange(int(self.known.sum()))[-count:]  # new points are behind the old ones
        places, values = self.places[last], self.values[last]
        optimizer = torch.optim.Adam([*self.kernel.parameters(), *self.likelihood.parameters()], lr=_LEARNING_RATE)
        for _ in range(self.steps if stop is None else 10 * self.steps):
            if stop is not None and time.thread_time() >= stop:
                break
            optimizer.zero_grad()
            self._unlikelihood(places, values).backward()
            optimizer.step()
        optimizer.zero_grad()

    def _unlikelihood(self, places: Tensor, values: Tensor) -> Tensor:
        """Negative log marginal likelihood per point and output; every output has a deviation of its own."""
        factor = torch.linalg.cholesky(self._matrix(places))
        white = torch.linalg.solve_triangular(factor, values, upper=False)
        spread = white.square().mean(0).clamp(min=torch.finfo(torch.float64).tiny)
        return 0.5 * spread.log().mean() + factor.diagonal().log().mean()

    def _matrix(self, places: Tensor) -> Tensor:
        return self.kernel(places).to_dense() + self.likelihood.noise * torch.eye(len(places), dtype=torch.float64)

    @torch.no_grad()
    def _solve(self) -> None:
        count = int(self.known.sum())
        factor = torch.linalg.cholesky(self._matrix(self.places[:count]))
        # Not solved for anew with every question: a triangular solve treats the columns of a batch differently.
        unit = torch.eye(count, dtype=torch.float64)
        self.whitening.zero_()
        self.whitening[:count, :count] = torch.linalg.solve_triangular(factor, unit, upper=False).T
        self.coefficients.zero_()
        self.coefficients[:count] = torch.cholesky_solve(self.values[:count], factor)
