"""A team of ranks: they share trainings. The first one leads: it has samples and models, and calls the others."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from mpi4py import MPI

from coupler.coupling.nodes import guard_job, meet, part, together
from coupler.errors import FAILED, USER_MISTAKE, CouplerError
from coupler.learning.trainer import Fit
from coupler.operator import Signature
from coupler.surrogate import Samples, Surrogate
from coupler.team import Team

Value = TypeVar("Value")


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

    def average(self, tensors: Sequence[torch.Tensor], weight: float = 1.0) -> None:
        """Replace tensors by their means over the ranks, all in one message. Collective: yes."""
        reals = [torch.view_as_real(one) if one.is_complex() else one for one in tensors]
        flat = torch.cat([*(one.detach().reshape(-1).cpu() for one in reals), torch.ones(1)])
        flat *= weight
        summing = self._comm.Iallreduce(MPI.IN_PLACE, flat.numpy())
        while not summing.Test():  # a blocking call would hear of no signal
            time.sleep(0)
        *sums, weights = torch.split(flat, [*(one.numel() for one in reals), 1])
        for one, total in zip(reals, sums, strict=True):
            one.detach().copy_((total / weights).reshape(one.shape))


class _Call(NamedTuple):
    """A training that the leader calls the others to; its samples follow."""

    rows: int
    seed: int
    seconds: float | None
    weights: dict[str, torch.Tensor]


class _TrainingFailed(Exception):
    """A training that all ranks were at has failed on this one: what to say, and the code to end with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message, self.code = message, code


def team_size() -> int:
    """Give how many ranks there are to share trainings. Collective: no."""
    return MPI.COMM_WORLD.size


def in_team(work: Callable[[Fit], Value], candidates: Callable[[], Iterable[Surrogate]]) -> Value:
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
        On all ranks, if the first fails outside of a training.
    SystemExit
        Where a training fails on all ranks alike. If it does on one only, that one ends the others.

    Collective: yes, over all ranks of the world.
    """
    guard_job(None)
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
        call = _Call(len(alike), seed, seconds, dict(candidate.state_dict()))
        _say(comm, call)
        with _all_at_it():
            _train(comm, team, candidate, call, alike)

    try:
        result = work(fit)
    except _TrainingFailed as failed:  # by now what was made is cleared away
        part(failed.message, failed.code)
    except Exception:
        _say(comm, None)
        raise
    _say(comm, None)
    return result


def _help(comm: MPI.Intracomm, team: Team, candidates: Iterable[Surrogate]) -> None:
    coming = iter(candidates)
    try:
        while (call := _say(comm, None)) is not None:
            with _all_at_it():
                candidate = next(coming)
                _train(comm, team, candidate, call, _room(candidate.signature, call.rows))
    except _TrainingFailed as failed:
        part(failed.message, failed.code)


def _say(comm: MPI.Intracomm, call: _Call | None) -> _Call | None:
    """Let all ranks know what the first one says; the others, who listen, sleep until then."""
    meet(comm)
    return comm.bcast(call)  # type: ignore[no-any-return]


def _room(signature: Signature, rows: int) -> Samples:
    """Make room for so many samples."""
    return Samples(np.empty((rows, len(signature.inputs))), np.empty(rows), np.empty((rows, len(signature.outputs))))


def _train(comm: MPI.Intracomm, team: Team, candidate: Surrogate, call: _Call, samples: Samples) -> None:
    """Do a training: samples go from the first rank to the others, then all fit."""
    for column in (samples.inputs, samples.dt, samples.truth):
        comm.Bcast(column)
    candidate.load_state_dict(call.weights)
    torch.set_num_threads(1)  # the ranks have the cores
    candidate.fit_together(samples, team=team, seed=call.seed, seconds=call.seconds)


@contextmanager
def _all_at_it() -> Iterator[None]:
    """Make whatever goes wrong a failure of the training: the others wait in it, and must be ended."""
    try:
        yield
    except CouplerError as error:
        raise _TrainingFailed(f"coupler: {error}", USER_MISTAKE) from error
    except Exception as error:
        raise _TrainingFailed(traceback.format_exc(), FAILED) from error
