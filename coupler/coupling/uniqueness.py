"""Ids are unique: two elements of one call with the same id would share an audit coin, and break the certificate."""

from functools import partial

import numpy as np
from mpi4py import MPI
from numba import njit
from numpy.typing import NDArray

from coupler.coupling.nodes import on_first
from coupler.errors import FieldMismatch

Ids = NDArray[np.int64]
NUMBER_GLOBALLY = "number the elements globally, for example comm.rank * n + numpy.arange(n)."
"""What whoever shares an id is told to do."""


class IdWatch:
    """Looks at the ids of calls: on its own rank at all of them, over all ranks at those of some steps.

    These are the first, the second, the fourth, the eighth step and so on, counted from where this process began: who
    numbers elements wrongly is found out soon, and a run of a million steps gathers ids twenty times.

    Parameters
    ----------
    comm : MPI.Intracomm
        All ranks.
    began : int
        The last step that was made before.
    """

    def __init__(self, comm: MPI.Intracomm, began: int) -> None:
        self._comm, self._began = comm, began
        self._known = np.empty(0, np.int64)
        self._noting = True
        self._noted: list[Ids] = []

    def look(self, ids: Ids) -> None:
        """Look at the ids of the next call.

        Parameters
        ----------
        ids : ndarray (n,) of int64
            Of its elements; nothing is kept of the array itself.

        Raises
        ------
        FieldMismatch
            If one comes twice.

        Collective: no.
        """
        if not _ascending(ids) and not np.array_equal(ids, self._known):
            if shared_id(np.sort(ids)) is not None:
                raise FieldMismatch(
                    "The ids of this call are not unique: the audit coins hang on them, so every element needs a "
                    "number of its own, unique over all ranks."
                )
            self._known = ids.copy()
        if self._noting:
            same = bool(self._noted) and np.array_equal(ids, self._noted[-1])
            self._noted.append(self._noted[-1] if same else ids.copy())

    def end_step(self, step: int) -> None:
        """Look at the calls of a step over all ranks, if it is one of those.

        Parameters
        ----------
        step : int
            The step that ends.

        Raises
        ------
        FieldMismatch
            If two ranks gave the same id in calls of the same number, on every rank.

        Collective: yes.
        """
        made = step - self._began
        if self._noting:
            self._compare(step)
            self._noted.clear()
        self._noting = (made + 1) & made == 0  # a power of two is next

    def _compare(self, step: int) -> None:
        most = self._comm.allreduce(len(self._noted), MPI.MAX)
        calls = [*self._noted, *[np.empty(0, np.int64)] * (most - len(self._noted))]
        fresh = np.array([not call or ids is not calls[call - 1] for call, ids in enumerate(calls)], np.int64)
        self._comm.Allreduce(MPI.IN_PLACE, fresh)
        for ids, looked_at in zip(calls, fresh, strict=True):
            if looked_at:  # of calls in which every rank has the ids of the one before, one is enough
                everyone = self._comm.gather(ids) or []
                on_first(self._comm, partial(_check, step, everyone))


def shared_id(ids: Ids) -> int | None:
    """Give the first id that comes twice among ascending ones, if one does. Collective: no."""
    twice = ids[:-1][ids[1:] == ids[:-1]]
    return int(twice[0]) if len(twice) else None


def _check(step: int, everyone: list[Ids]) -> None:
    twice = shared_id(np.sort(np.concatenate(everyone)))
    if twice is not None:
        raise FieldMismatch(
            f"step {step}: the id {twice} was given to several elements. Ids must be unique over all ranks, "
            f"because the audit coins hang on them: {NUMBER_GLOBALLY}"
        )


@njit(cache=True, nogil=True)
def _ascending(ids: Ids) -> bool:
    """Whether every id is above the one before, as most people number their elements: then none comes twice."""
    descents = 0
    for i in range(ids.size - 1):
        descents += ids[i] >= ids[i + 1]
    return descents == 0
