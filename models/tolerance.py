"""Tolerance coordinates: u(y) = sign(y) ln(1 + rtol |y| / atol) / rtol, where a distance of 1 is one tolerance of y."""

import torch
from torch import Tensor

# With rtol = 0 the coordinate is linear; this keeps the formula and is linear to 1e-6 of the tolerance's own range.
LEAST_RTOL = 1e-6


def encode(values: Tensor, knee: Tensor, rtol: Tensor) -> Tensor:
    """Give the coordinates of values; ``knee`` is atol / rtol, and both fit the values by broadcasting."""
    return torch.sign(values) * torch.log1p(values.abs() / knee) / rtol


def decode(coordinates: Tensor, knee: Tensor, rtol: Tensor) -> Tensor:
    """Give the values back; see :func:`encode`."""
    return torch.sign(coordinates) * torch.expm1(coordinates.abs() * rtol) * knee
