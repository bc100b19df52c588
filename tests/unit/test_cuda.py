"""The GPU: recorded forwards answer as eager torch does, whatever the parts, from page-locked memory and from other."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coupler.exchange import Arena, ArenaLayout, SlotShape
from coupler.field import Field
from coupler.models.mlp_ensemble import MLPEnsemble
from coupler.operator import Signature
from coupler.records import Rows
from coupler.serving.cuda import PageLock
from coupler.serving.predictor import Predictor
from coupler.surrogate import Samples

pytestmark = pytest.mark.gpu

COLUMNS = (Field("u", bounds=(0.0, None)), Field("v", bounds=(0.0, None)))
SIGNATURE = Signature(COLUMNS, COLUMNS, (1e-6, 1e-6), (1e-3, 1e-3))
# From less than the smallest recording to more than two of the largest.
COUNTS = (1, 255, 256, 257, 5000, 70_000)


@pytest.fixture(scope="module")
def surrogate() -> MLPEnsemble:
    inputs = np.random.default_rng(0).random((2000, 2)) + 0.1
    surrogate = MLPEnsemble(SIGNATURE, members=3, width=16, depth=2, epochs=2)
    surrogate.fit(Samples(inputs, np.full(2000, 0.1), inputs * np.exp([-0.1, 0.1])), seed=1)
    return surrogate


def _parts(counts: tuple[int, ...], seed: int = 0) -> list[Rows]:
    random = np.random.default_rng(seed)
    return [
        Rows(random.random((count, 2)) + 0.1, 0.1 * (number + 1), np.full((count, 2), np.nan), np.full(count, np.nan))
        for number, count in enumerate(counts)
    ]


def _answered(surrogate: MLPEnsemble, form: str, parts: list[Rows]) -> NDArray[np.float64]:
    predictor = Predictor(2, 2, torch.device("cuda:0"), form=form)
    predictor.load(1, surrogate)
    predictor.predict(parts, 1)
    return np.concatenate([np.column_stack([part.mean, part.score]) for part in parts])


def test_a_recorded_forward_answers_as_eager_torch_does(surrogate: MLPEnsemble) -> None:
    recorded = _answered(surrogate, "graph", _parts(COUNTS))

    np.testing.assert_allclose(recorded, _answered(surrogate, "eager", _parts(COUNTS)), rtol=1e-4, atol=1e-5)


def test_an_answer_is_the_same_in_any_company(surrogate: MLPEnsemble) -> None:
    together = _parts(COUNTS)
    alone = _parts(COUNTS)
    predictor = Predictor(2, 2, torch.device("cuda:0"), form="graph")
    predictor.load(1, surrogate)

    predictor.predict(together, 1)
    for part in alone:
        predictor.predict([part], 1)

    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.mean, other.mean)
        np.testing.assert_array_equal(one.score, other.score)


def test_rows_of_a_page_locked_arena_are_read_and_written_in_place(surrogate: MLPEnsemble) -> None:
    arena = Arena.create(ArenaLayout((SlotShape(0, 5000, 2, 2),)))
    PageLock(torch.device("cuda:0")).take(arena.memory)
    slot, (part,) = arena.slots[0], _parts((5000,))
    slot.inputs[...] = part.inputs
    assert torch.from_numpy(slot.inputs).is_pinned()

    _answered(surrogate, "graph", [Rows(slot.inputs, part.dt, slot.mean, slot.score)])

    np.testing.assert_array_equal(
        np.column_stack([slot.mean, slot.score]), _answered(surrogate, "graph", _parts((5000,)))
    )
    arena.close()
