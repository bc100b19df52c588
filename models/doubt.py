"""Learned doubt: how wrong the answers have been, as a smooth function of where they were asked.

The logarithm of the error is fitted by a quadratic in the features, without products of two, by ridge regression. What
several networks disagree by says how much a network depends on its draw of weights and samples; where all of them were
trained too shortly they agree on the same mistake, and the least disagreement may stand for the largest errors. After
the "loss prediction" of Yoo & Kweon, Learning Loss for Active Learning, CVPR 2019, with a regression for their network.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from coupler.lanes import LANES

# Errors below that, in tolerances, are as good as none [tolerances]; features beyond that count as being there.
_LEAST_ERROR, _FARTHEST = 1e-3, 4.0
# Weight of the ridge, per sample; features have a deviation of 1.
_RIDGE = 1e-2


class LearnedDoubt(torch.nn.Module):
    """A regression of errors on features.

    Parameters
    ----------
    features : int
        How many there are.
    """

    weights: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(2 * features + 1, dtype=torch.float64))

    def learn(self, features: Tensor, error: Tensor) -> None:
        """Fit the doubt to errors (n,) [tolerances] that were made at features (n, n_features)."""
        terms, ridge = _terms(features), _RIDGE * len(features) * torch.eye(len(self.weights), dtype=torch.float64)
        finite = torch.nan_to_num(error, posinf=torch.finfo(torch.float32).max)
        right = terms.T @ torch.log(finite.clamp(min=_LEAST_ERROR))
        self.weights.copy_(torch.linalg.solve(terms.T @ terms + ridge, right))

    def forward(self, features: Tensor) -> Tensor:
        """Give the error expected at features (n, n_features), (n,) float64."""
        return torch.exp((_terms(features) * self.weights).sum(1))


def _terms(features: Tensor) -> Tensor:
    near = features.double().clamp(-_FARTHEST, _FARTHEST)
    return torch.cat([torch.ones_like(near[:, :1]), near, near.square()], dim=1)


@njit(nogil=True)
def doubt_lanes(net, weights, found):
    """See :meth:`LearnedDoubt.forward`: its logarithm, of the features in the first rows of ``net``."""
    count = len(weights) // 2
    found[:] = weights[0] if len(weights) else 0.0
    for feature in range(count):
        for lane in range(LANES):
            near = min(max(np.float64(net[feature, lane]), -_FARTHEST), _FARTHEST)
            found[lane] += weights[1 + feature] * near + weights[1 + count + feature] * near * near
