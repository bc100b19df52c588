"""What a loop of one's own puts into a checkpoint and finds there again: rows by global id, on any ranks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from coupler.checkpoint import Checkpoint, Plain
from coupler.errors import CouplerError


class Rows:
    """Rows of all ranks, put in the order of their ids on rank 0.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks.
    ids : ndarray (n,) of int64
        Global ids of this rank's rows.
    """

    def __init__(self, comm: MPI.Intracomm, ids: NDArray[np.int64]) -> None:
        self._comm, self._ids = comm, np.ascontiguousarray(ids, np.int64)
        self._order = np.empty(0, np.intp)

    def ids(self) -> NDArray[Any] | None:
        """Give all ids in order, on rank 0; comes before :meth:`gather`. Collective: yes."""
        everyone = self._comm.gather(self._ids)
        if everyone is None:
            return None
        ids = np.concatenate(everyone)
        self._order = np.argsort(ids, kind="stable")
        return ids[self._order]

    def gather(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """Give the rows of all ranks in the order of their ids, on rank 0. Collective: yes."""
        everyone = self._comm.gather(np.ascontiguousarray(array))
        return None if everyone is None else np.concatenate(everyone)[self._order]


class Resumed:
    """Where a run goes on from, for the loop around a coupling.

    Attributes
    ----------
    step : int
        Steps that were made: the loop goes on with the next one.
    loop : mapping
        What the loop had to keep, as plain data.

    Parameters
    ----------
    checkpoint : Checkpoint
        On a file system that every rank sees.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.step = checkpoint.step
        self.loop: Mapping[str, Plain] = checkpoint.facts["loop"]

    @property
    def numbers(self) -> Mapping[str, Any]:
        """What ``numbers=`` was when the checkpoint was written."""
        found: Mapping[str, Any] = self.loop.get("numbers", {})
        return found

    def rows(self, name: str, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Give the rows of some elements, whichever rank wrote them.

        Parameters
        ----------
        name : str
            As in ``arrays=`` when the checkpoint was written.
        ids : ndarray (n,) of int64
            Global ids, in the order in which the rows are wanted.

        Returns
        -------
        ndarray (n, ...)

        Raises
        ------
        CouplerError
            If there is no such array, or an id is not in it.

        Collective: no; each rank reads what it needs.
        """
        known = self._checkpoint.array("rows/ids")
        places = np.searchsorted(known, ids)
        missing = places >= len(known)
        missing[~missing] = known[places[~missing]] != np.asarray(ids)[~missing]
        if missing.any():
            raise CouplerError(
                f"The checkpoint {self._checkpoint.path} has no row of the id {np.asarray(ids)[missing][0]}: ask for "
                "the ids that were given to coupling.checkpoint."
            )
        if not len(places):
            return self._checkpoint.array(f"rows/{name}", slice(0, 0))
        first, last = int(places.min()), int(places.max()) + 1
        return self._checkpoint.array(f"rows/{name}", slice(first, last))[places - first]

    def array(self, name: str, region: Any = ()) -> NDArray[Any]:
        """Give a whole array, or a region of it, as ``(slice, slice)``. Collective: no."""
        return self._checkpoint.array(name, region)
