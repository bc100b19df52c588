"""The best weights of a training."""

import math

import torch

from coupler.models.best import BestWeights


def test_the_weights_of_the_lowest_loss_come_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    best = BestWeights([weight])

    for value, loss in ((1.0, 0.5), (2.0, 0.2), (3.0, 0.3)):
        weight.data.fill_(value)
        best.offer(loss)
    best.restore()

    assert weight.tolist() == [2.0] * 3


def test_weights_that_are_no_numbers_are_never_the_best() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    best = BestWeights([weight])
    best.offer(7.0)

    weight.data.fill_(math.nan)
    best.offer(math.nan)
    best.restore()

    assert weight.tolist() == [1.0] * 3


def test_without_an_offer_the_weights_stay_as_they_are() -> None:
    weight = torch.nn.Parameter(torch.full((3,), 4.0))

    BestWeights([weight]).restore()

    assert weight.tolist() == [4.0] * 3
