"""A torch data set of elements with their truth."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from coupler.learning.samples import SampleBatch


class TruthItem(NamedTuple):
    """One element, or a batch of them.

    Attributes
    ----------
    inputs : Tensor (..., n_in)
        Operator inputs, float64, units as the operator declares them.
    dt : Tensor (...)
        Time step.
    truth : Tensor (..., n_out)
        What the operator gave.
    """

    inputs: torch.Tensor
    dt: torch.Tensor
    truth: torch.Tensor


class TruthDataset(Dataset[TruthItem]):
    """Elements with their truth; a ``DataLoader`` makes batches of it.

    Parameters
    ----------
    batch : SampleBatch
        The elements; the tensors share its memory.
    input_names, output_names : sequence of str
        Names of the columns.
    """

    def __init__(self, batch: SampleBatch, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        self.batch = batch
        self.input_names, self.output_names = tuple(input_names), tuple(output_names)
        self._inputs, self._truth = torch.from_numpy(batch.inputs), torch.from_numpy(batch.truth)
        self._dt = torch.from_numpy(batch.dt)

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, place: int) -> TruthItem:
        return TruthItem(self._inputs[place], self._dt[place], self._truth[place])
