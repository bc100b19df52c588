"""Trainings that ranks share: who is called, what they average and gather, and that all have the same model then."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mpi4py import MPI

from coupler.coupling.team import RankTeam, in_team
from coupler.errors import CouplerError, PluginError
from coupler.field import Field
from coupler.learning.trainer import Fit
from coupler.models.conv_tile import ConvTile
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.models.mlp_laplace import MLPLaplace
from coupler.operator import Signature
from coupler.surrogate import Samples, Surrogate
from coupler.tile import Tile
from tests.contract.optional import MISSING

pytestmark = pytest.mark.mpi

RANK, RANKS = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
FIELDS = (Field("a"), Field("b"))
CELLS = Signature(FIELDS, FIELDS, (1e-2, 1e-2), (0.0, 0.0))
TILES = Signature.of(FIELDS, FIELDS, atol=1e-2, rtol=0.0, conserved={}, tile=Tile((6, 6), 2))


@pytest.fixture
def team() -> RankTeam:
    return RankTeam(MPI.COMM_WORLD)


def samples(signature: Signature, count: int) -> Samples:
    random = np.random.default_rng(5)
    inputs = random.random((count, len(signature.inputs)))
    return Samples(inputs, np.full(count, 0.5), 0.5 + 0.3 * inputs[:, list(signature.increments)])


def ensemble() -> MLPEnsemble:
    return MLPEnsemble(CELLS, members=5, width=8, depth=1, epochs=4)


def tiles() -> ConvTile:
    return ConvTile(TILES, members=5, width=4, dilations=(1, 1), epochs=3)


def fourier() -> Surrogate:
    from coupler.models.fno import FNO

    return FNO(TILES, modes=3, channels=4, layers=1, epochs=3, batch=8)


def shared(build, signature: Signature, *, seed: int = 3, seconds: float | None = None) -> dict[str, torch.Tensor]:
    """Train one on all ranks together; give its weights, which are the same on all of them."""
    candidate, others = build(), [build()]

    def work(fit: Fit) -> dict[str, torch.Tensor]:
        fit(candidate, samples(signature, 200), seed=seed, seconds=seconds)
        return dict(candidate.state_dict())

    weights = in_team(work, lambda: others)
    own = (candidate if RANK == 0 else others[0]).state_dict()
    assert [name for name, value in weights.items() if not torch.equal(value, own[name])] == []
    return weights


def test_means_are_the_same_bits_on_all_ranks_and_complex_ones_keep_their_parts(team):
    real, whole = torch.full((3, 2), RANK + 0.1), torch.full((2,), complex(RANK, -RANK))

    team.average([real, whole])

    mean = (RANKS - 1) / 2
    torch.testing.assert_close(real, torch.full((3, 2), mean + 0.1))
    torch.testing.assert_close(whole, torch.full((2,), complex(mean, -mean)))
    assert len(set(team.gather(real.numpy().tobytes()))) == 1


def test_a_mean_over_uneven_shares_is_that_of_the_whole_batch(team):
    batch = torch.arange(RANKS + 1, dtype=torch.float32) ** 2
    own = batch[team.deal(torch.arange(len(batch)))]
    mean = own.mean().reshape(1)

    team.average([mean], len(own))

    torch.testing.assert_close(mean[0], batch.mean())


def test_everything_is_somebodys_share_once(team):
    for count in (0, 1, RANKS, 3 * RANKS + 1):
        rows = torch.arange(count)
        assert [number for share in team.gather(list(team.share(count))) for number in share] == list(range(count))
        dealt = torch.cat(team.gather(team.deal(rows)))
        assert sorted(dealt.tolist()) == (rows.tolist() if count >= RANKS else sorted(rows.tolist() * RANKS))


KINDS = pytest.mark.parametrize(
    ("build", "signature"),
    [
        (ensemble, CELLS),
        (tiles, TILES),
        pytest.param(
            fourier, TILES, marks=pytest.mark.skipif("fno" in MISSING, reason="neuraloperator is not installed")
        ),
    ],
    ids=["mlp_ensemble", "conv_tile", "fno"],
)


@KINDS
def test_a_model_that_ranks_train_together_is_the_same_on_all_and_every_time(build, signature):
    first, again, other = (shared(build, signature, seed=seed) for seed in (3, 3, 4))

    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    assert all(torch.isfinite(torch.view_as_real(v) if v.is_complex() else v).all() for v in first.values())
    untrained = build().state_dict()
    moved = [name for name, value in first.items() if not torch.equal(value, untrained[name])]
    assert {name for name in moved if "weight" in name} == {name for name in first if "weight" in name}


@KINDS
def test_a_model_that_ranks_train_for_a_time_is_the_same_on_all(build, signature):
    assert shared(build, signature, seconds=0.3)


def test_no_two_members_of_an_ensemble_are_alike_whoever_trained_them():
    weights = shared(ensemble, CELLS)["nets.weights.0"]

    assert len({member.numpy().tobytes() for member in weights}) == len(weights) == 5


def test_several_trainings_come_in_their_order_and_some_may_not_come():
    def built() -> Iterator[Surrogate]:
        yield from (ensemble(), tiles(), ensemble())

    def work(fit: Fit) -> str:
        first, second, _ = built()
        fit(first, samples(CELLS, 100), seed=1, seconds=None)
        fit(second, samples(TILES, 40), seed=2, seconds=None)
        return "two"

    assert in_team(work, built) == "two"


def test_what_the_first_rank_cannot_do_is_said_on_all_of_them():
    def work(fit: Fit) -> None:
        raise CouplerError("there is no truth")

    with pytest.raises(CouplerError, match="there is no truth"):
        in_team(work, lambda: [ensemble()])


def test_a_surrogate_of_one_process_says_so(team):
    laplace = MLPLaplace(CELLS)

    assert laplace.most_trainers == 1
    with pytest.raises(PluginError, match="MLPLaplace is trained by one process"):
        laplace.fit_together(samples(CELLS, 50), team=team, seed=1)
