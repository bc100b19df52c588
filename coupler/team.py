"""A team: the processes that share a training, as each of them sees it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch

Value = TypeVar("Value")


class Team(ABC):
    """The processes that share a training, as each of them sees it.

    Parameters
    ----------
    rank, size : int
        Number of this process, and how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def share(self, count: int) -> range:
        """Give those of so many things that are this process's: as even as can be, in the order of the ranks."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def generator(self, common: torch.Generator) -> torch.Generator:
        """Give this process a generator of its own, from one that all have alike; alone that one itself."""
        if self.size == 1:
            return common
        seeds = torch.randint(2**62, (self.size,), generator=common)
        return torch.Generator().manual_seed(int(seeds[self.rank]))

    def deal(self, rows: torch.Tensor) -> torch.Tensor:
        """Give those of a batch's rows, numbered along the last dimension, that are this process's.

        All of them, where they are fewer than the processes. Some processes may have one more than others, so give
        :meth:`average` their number.
        """
        return rows if rows.shape[-1] < self.size else rows[..., self.rank :: self.size]

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """Give the values of all processes, by rank, to each of them. Who comes first waits for the others asleep.

        Collective: yes.
        """

    @abstractmethod
    def average(self, tensors: Sequence[torch.Tensor], weight: float = 1.0) -> None:
        """Replace tensors, as gradients, by their means over the processes, to the same bits on all.

        Parameters
        ----------
        tensors : sequence of Tensor
            float32 or complex64, of the same shapes everywhere, on whatever device.
        weight : float
            Of this process's in the means: how many rows its gradients are of.

        Collective: yes.
        """


class Alone(Team):
    """A team of one."""

    def __init__(self) -> None:
        super().__init__(rank=0, size=1)

    def gather(self, value: Value) -> list[Value]:
        """Give the only value there is. Collective: no."""
        return [value]

    def average(self, tensors: Sequence[torch.Tensor], weight: float = 1.0) -> None:
        """Leave the tensors as they are. Collective: no."""


ALONE = Alone()
