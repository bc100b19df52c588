"""Data for others: ledger, tapes, samples and fields of a run in pandas, xarray and torch, one call each."""

from coupler.data.frames import field_arrays, ledger_frame, sample_frame, tape_frame
from coupler.data.read import read_samples
from coupler.data.sets import sample_dataset, tape_dataset

__all__ = [
    "field_arrays",
    "ledger_frame",
    "read_samples",
    "sample_dataset",
    "sample_frame",
    "tape_dataset",
    "tape_frame",
]
