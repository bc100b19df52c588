"""Convolutional networks over tiles: what they see, that they learn, and that company makes no difference."""

import numpy as np
import pytest
import torch

from coupler.errors import PluginError
from coupler.field import Field
from coupler.models.conv_tile import ConvTile
from coupler.operator import Signature
from coupler.surrogate import Samples
from coupler.tile import Tile

FIELDS = (Field("u", bounds=(0, 2)), Field("v"))


def _signature(tile: Tile) -> Signature:
    return Signature.of(FIELDS, FIELDS[:1], atol=0.02, rtol=0.0, conserved={}, tile=tile)


def _samples(signature: Signature, count: int, seed: int) -> Samples:
    """Every cell of u goes towards the mean of its neighbours along the first axis, the faster the larger v."""
    tiled, random = signature.tiled, np.random.default_rng(seed)
    assert tiled is not None
    blocks, halo = random.random((count, *tiled.input_shape)), tiled.tile.halo
    u, v = blocks[:, 0], blocks[:, 1]
    after = u + 0.5 * v * (0.5 * (np.roll(u, 1, 1) + np.roll(u, -1, 1)) - u)
    own = (slice(None), *(slice(halo, -halo),) * tiled.tile.ndim)
    return Samples(blocks.reshape(count, -1), np.ones(count), after[own].reshape(count, -1))


def _predict(model: ConvTile, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        mean, score = model.predict(torch.from_numpy(inputs), torch.ones(len(inputs), dtype=torch.float64))
    return mean.numpy(), score.numpy()


@pytest.mark.parametrize("tile", [Tile((24,), 3), Tile((6, 5), 3), Tile((4, 3, 5), 2)], ids=["1-D", "2-D", "3-D"])
def test_it_learns_better_than_nothing_changes_in_any_number_of_dimensions(tile: Tile) -> None:
    signature = _signature(tile)
    model = ConvTile(signature, width=8, dilations=(1, 1), epochs=60)
    samples, unseen = _samples(signature, 160, seed=1), _samples(signature, 50, seed=2)

    model.fit(samples, seed=3)

    mean, score = _predict(model.eval(), unseen.inputs)
    nothing = signature.error(unseen.inputs[:, signature.increments], unseen.truth)
    assert np.median(signature.error(mean, unseen.truth)) < 0.4 * np.median(nothing)
    assert (score > 0).all() and mean.min() >= 0.0 and mean.max() <= 2.0


def test_an_answer_does_not_depend_on_company() -> None:
    signature = _signature(Tile((6, 5), 3))
    model = ConvTile(signature, width=8, dilations=(1, 2), epochs=2)
    samples = _samples(signature, 90, seed=1)
    model.fit(samples, seed=3)

    mean, score = _predict(model.eval(), samples.inputs)

    for rows in ([17], [3, 17, 2, 89], [*range(80, 90), 17, *range(20)]):
        alone, doubt = _predict(model, samples.inputs[rows])
        np.testing.assert_array_equal(alone, mean[rows])
        np.testing.assert_array_equal(doubt, score[rows])


def test_it_sees_as_far_as_its_dilations_and_no_farther() -> None:
    signature = _signature(Tile((9,), 5))
    model = ConvTile(signature, width=8, dilations=(1, 2), epochs=2)
    samples = _samples(signature, 40, seed=1)
    model.fit(samples, seed=3)
    changed = np.repeat(samples.inputs[:1], 19, axis=0)
    changed[np.arange(19), np.arange(19)] += 0.5

    mean, _ = _predict(model.eval(), changed)

    seen = (mean != np.median(mean, axis=0)).T  # (9 cells, 19 places)
    for cell in range(9):
        assert np.flatnonzero(seen[cell]).min() >= cell + 5 - 3
        assert np.flatnonzero(seen[cell]).max() <= cell + 5 + 3
    assert model.reach == 3


def test_what_is_not_finite_is_answered_with_what_is_not_finite() -> None:
    signature = _signature(Tile((9,), 5))
    model = ConvTile(signature, width=4, epochs=1)
    samples = _samples(signature, 40, seed=1)
    model.fit(samples, seed=3)
    broken = samples.inputs[:3].copy()
    broken[1, 9] = np.nan

    mean, score = _predict(model.eval(), broken)

    assert np.isnan(mean[1]).any() and np.isfinite(mean[[0, 2]]).all()
    assert not np.isfinite(score[1]) and np.isfinite(score[[0, 2]]).all()


def test_cells_are_refused() -> None:
    with pytest.raises(PluginError, match="give the operator a tile"):
        ConvTile(Signature(FIELDS, FIELDS[:1], (1.0,), (0.0,)))


@pytest.mark.parametrize(
    ("dilations", "said"),
    [((1, 1, 2), "sees 4 cells far.*is 3"), ((), "are no layers"), ((0, 1), "are no layers")],
)
def test_a_network_that_sees_beyond_the_halo_is_refused(dilations: tuple[int, ...], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        ConvTile(_signature(Tile((8,), 3)), dilations=dilations)


def test_nobody_asked_gets_no_answer() -> None:
    model = ConvTile(_signature(Tile((8,), 4)))

    mean, score = _predict(model, np.empty((0, 32)))

    assert mean.shape == (0, 8) and score.shape == (0,)
