"""Scales of the stock surrogates, and when they are outgrown."""

import numpy as np
import torch

from coupler.field import Field
from coupler.models.coordinates import Coordinates
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Signature
from coupler.surrogate import Samples

A = (Field("a", bounds=(0, None)),)
SIGNATURE = Signature(A, A, (1e-3,), (1e-3,))


def _samples(growth: float) -> Samples:
    inputs = np.random.default_rng(1).uniform(1, 2, (400, 1))
    return Samples(inputs, np.full(400, 0.1), inputs * (1 + growth * inputs))


def _tensors(samples: Samples) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(part) for part in (samples.inputs, samples.dt, samples.truth))


def test_samples_that_change_far_more_have_outgrown_the_scales() -> None:
    coordinates = Coordinates(SIGNATURE)
    coordinates.take_scales(*_tensors(_samples(0.01)))

    assert not coordinates.outgrown(*_tensors(_samples(0.012)))
    assert coordinates.outgrown(*_tensors(_samples(1.0)))


def test_a_model_that_is_outgrown_starts_anew() -> None:
    fresh, trained = (MLPEnsemble(SIGNATURE, members=1, width=8, depth=1, epochs=1) for _ in range(2))
    trained.fit(_samples(0.01), seed=0)

    trained.fit(_samples(1.0), seed=0)

    fresh.fit(_samples(1.0), seed=0)
    assert all(torch.equal(one, other) for one, other in zip(trained.parameters(), fresh.parameters(), strict=True))


def test_what_is_written_of_the_wanted_answer_is_the_truth() -> None:
    coordinates, samples = Coordinates(SIGNATURE), _samples(0.5)
    inputs, dt, truth = _tensors(samples)
    coordinates.take_scales(inputs, dt, truth)

    # The answer is in single precision: 1e-7 of increments of several hundred tolerances of 1e-3.
    torch.testing.assert_close(coordinates.write(inputs, coordinates.wanted(inputs, truth)), truth, rtol=1e-6, atol=0)
