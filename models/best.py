"""The best weights seen during a training: what is kept when it ends."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


class BestWeights:
    """Remembers parameters at the lowest loss they were offered with.

    Parameters
    ----------
    parameters : iterable of Tensor
        What is trained; changed in place by the training, and by :meth:`restore`.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._loss, self._copy = math.inf, list[Tensor]()

    @torch.no_grad()
    def offer(self, loss: float) -> None:
        """Remember the present parameters if their loss is the lowest so far; one that is no number never is."""
        if loss < self._loss:
            self._loss, self._copy = loss, [item.detach().clone() for item in self._parameters]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best ones back; nothing happens if none were ever offered."""
        for item, best in zip(self._parameters, self._copy, strict=False):
            item.copy_(best)
