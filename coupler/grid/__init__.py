"""The grid of a run, cut into blocks for MPI ranks, and the exchange of their halos."""

from coupler.grid.grid import Grid
from coupler.grid.waiting import wait

__all__ = ["Grid", "wait"]
