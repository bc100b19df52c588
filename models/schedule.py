"""How a training goes in time: the size of its steps, and how a spread becomes a score."""

import math

import torch
from torch import Tensor

_RAMP = 0.1


def learning_rate_share(progress: float) -> float:
    """Share of the largest step size at a progress from 0 to 1: a short ramp up, then a cosine down."""
    ramp = min(progress / _RAMP, 1.0)
    return max(ramp, 0.01) * (0.5 + 0.5 * math.cos(math.pi * max(0.0, (progress - _RAMP) / (1 - _RAMP)))) + 1e-4


def score_scale(error: Tensor, spread: Tensor, covers: float) -> Tensor:
    """Give what a spread is multiplied by, so that a share ``covers`` of the errors is below the score it becomes.

    Parameters
    ----------
    error : Tensor (n,)
        Errors [tolerances].
    spread : Tensor (n,)
        What the members disagree by.
    covers : float
        The share.
    """
    ratio = error / spread.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.quantile(ratio, covers, interpolation="lower")
