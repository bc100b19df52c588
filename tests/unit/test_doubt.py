"""Learned doubt: it finds where answers were wrong, says the same compiled, and doubts what it has not seen."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from coupler.models.doubt import LearnedDoubt
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Operator
from coupler.surrogate import Samples

OPERATOR = Operator(lambda inputs, dt: inputs, inputs=["a", "b"], outputs=["a", "b"], atol=1e-3, rtol=1e-3)


def _samples(count: int, *, upto: float = 1.0) -> Samples:
    inputs = np.random.default_rng(1).uniform(0.0, upto, (count, 2))
    # One half of the range is easy, the other is not.
    wild = np.where(inputs[:, :1] > 0.5, 0.05 * np.sin(80.0 * inputs), 0.01 * inputs)
    return Samples(inputs, np.ones(count), inputs + wild)


def _tensors(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt)


@pytest.fixture(scope="module")
def surrogate() -> MLPEnsemble:
    found = MLPEnsemble(OPERATOR.signature, members=2, width=16, epochs=10, doubt="learned")
    found.fit(_samples(2000), seed=1)
    return found


def test_a_doubt_follows_errors_that_grow_along_a_feature() -> None:
    features = torch.randn(1000, 3, generator=torch.Generator().manual_seed(1))
    doubt = LearnedDoubt(3)

    doubt.learn(features, torch.exp(2.0 * features[:, 1]).double())

    assert spearmanr(doubt(features).numpy(), features[:, 1].numpy())[0] > 0.99


def test_an_answer_that_is_not_finite_is_no_obstacle_to_learning_a_doubt() -> None:
    doubt = LearnedDoubt(1)

    doubt.learn(torch.randn(50, 1), torch.cat([torch.ones(49), torch.tensor([torch.inf])]).double())

    assert torch.isfinite(doubt.weights).all()


def test_answers_are_doubted_where_they_were_wrong(surrogate: MLPEnsemble) -> None:
    fresh = _samples(3000)

    mean, score = surrogate.predict(*_tensors(fresh))

    error = OPERATOR.signature.error(mean.detach().numpy(), fresh.truth)
    assert spearmanr(score.detach().numpy(), error)[0] > 0.5


def test_what_was_never_seen_is_doubted_more(surrogate: MLPEnsemble) -> None:
    easy, beyond = _samples(500), _samples(500)
    easy.inputs[:] *= 0.4  # none of them wild
    beyond.inputs[:] *= 0.4
    beyond.inputs[:, 1] += 5.0

    assert surrogate.predict(*_tensors(beyond)).score.median() > 3.0 * surrogate.predict(*_tensors(easy)).score.median()


def test_the_compiled_form_doubts_alike(surrogate: MLPEnsemble) -> None:
    asked = _samples(100)
    expected, mean, score = surrogate.predict(*_tensors(asked)), np.empty((100, 2)), np.empty(100)

    forward = surrogate.fused()
    forward(asked.inputs, 1.0, mean, score)

    np.testing.assert_allclose(score, expected.score.detach().numpy(), rtol=1e-3)


def test_a_doubt_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match='doubt = "guessed" is neither "spread" nor "learned"'):
        MLPEnsemble(OPERATOR.signature, doubt="guessed")
