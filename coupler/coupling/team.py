"""A team of ranks: they share trainings. The first one leads: it has samples and models, and calls the others."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from mpi4py import MPI

from coupler.coupling.nodes import guard_job, meet, part, together
from coupler.errors import CouplerError
from coupler.learning.trainer import Fit
from coupler.surrogate import Samples, Surrogate, Team

Value = TypeVar("Value")
# What a program says at its end: it met a mistake of its user's, or of its own.
_USER_MISTAKE, _FAILED = 2, 1


class RankTeam(Team):
    """The ranks of a communicator as a team.

    Parameters
    ----------
    comm : MPI.Intracomm
        The ranks.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        super().__init__(comm.rank, comm.size)
        self._comm = comm

    def gather(self, value: Value) -> list[Value]:
        """Give the values of all ranks to each of them. Collective: yes."""
        meet(self._comm)
        return self._comm.allgather(value)

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their means over the ranks, all in one message. Collective: yes."""
        reals = [torch.view_as_real(one) if one.is_complex() else one for one in tensors]
        flat = torch.cat([one.detach().reshape(-1) for one in reals])
        self._comm.Allreduce(MPI.IN_PLACE, flat.numpy())
        flat /= self.size
        for one, mean in zip(reals, torch.split(flat, [one.numel() for one in reals]), strict=True):
            one.detach().copy_(mean.reshape(one.shape))


class _Call(NamedTuple):
    """A training that the leader calls the others to; its samples follow."""

    rows: int
    seed: int
    seconds: float | None
    weights: dict[str, torch.Tensor]


def assemble() -> int:
    """Give how many ranks there are to share trainings; what they leave behind if they are killed is seen to.

    Collective: yes, over all ranks of the world.
    """
    guard_job(None)
    return MPI.COMM_WORLD.size


def share(work: Callable[[Fit], Value], candidates: Callable[[], Iterable[Surrogate]]) -> Value:
    """Do something on the first rank that fits surrogates, with the help of all ranks there are.

    Parameters
    ----------
    work : callable
        Is given a way of fitting that all ranks share, and gives the result; called on the first rank.
    candidates : callable
        Gives the surrogates that it has fitted, in its order, as they are built; called on the other ranks.

    Returns
    -------
    object
        The result, on all ranks.

    Raises
    ------
    CouplerError
        On all ranks, if the first fails outside of a fit. One that fails in a fit ends them all.

    Collective: yes, over all ranks of the world.
    """
    comm = MPI.COMM_WORLD.Dup()
    team = RankTeam(comm)
    done = together(comm, lambda: _lead(comm, team, work) if team.rank == 0 else _help(comm, team, candidates()))
    result: Value = comm.bcast(done)
    comm.Free()
    return result


def _lead(comm: MPI.Intracomm, team: Team, work: Callable[[Fit], Value]) -> Value:
    def fit(candidate: Surrogate, samples: Samples, *, seed: int, seconds: float | None) -> None:
        # In the order of memory that the others have them in, or sums would round differently here.
        alike = Samples(*map(np.ascontiguousarray, (samples.inputs, samples.dt, samples.truth)))
        _say(comm, _Call(len(alike), seed, seconds, dict(candidate.state_dict())))
        for column in (alike.inputs, alike.dt, alike.truth):
            comm.Bcast(column)
        _fit_together(candidate, alike, team, seed, seconds)

    try:
        result = work(fit)
    except Exception:
        _say(comm, None)
        raise
    _say(comm, None)
    return result


def _help(comm: MPI.Intracomm, team: Team, candidates: Iterable[Surrogate]) -> None:
    coming = iter(candidates)
    while (call := _say(comm, None)) is not None:
        candidate = next(coming)
        candidate.load_state_dict(call.weights)
        columns = len(candidate.signature.inputs), len(candidate.signature.outputs)
        samples = Samples(np.empty((call.rows, columns[0])), np.empty(call.rows), np.empty((call.rows, columns[1])))
        for column in (samples.inputs, samples.dt, samples.truth):
            comm.Bcast(column)
        _fit_together(candidate, samples, team, call.seed, call.seconds)


def _say(comm: MPI.Intracomm, call: _Call | None) -> _Call | None:
    """Let all ranks know what the first one says; the others, who listen, sleep until then."""
    meet(comm)
    return comm.bcast(call)  # type: ignore[no-any-return]


def _fit_together(candidate: Surrogate, samples: Samples, team: Team, seed: int, seconds: float | None) -> None:
    """Fit, and end with all others if that fails: they fail alike, or they wait for this one for ever."""
    try:
        candidate.fit_together(samples, team=team, seed=seed, seconds=seconds)
    except CouplerError as error:
        part(f"coupler: {error}", _USER_MISTAKE)
    except Exception:  # noqa: BLE001, a user's model may raise anything
        part(traceback.format_exc(), _FAILED)
