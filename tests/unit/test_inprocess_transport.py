"""The model inside the rank answers as a server would, nonsense included."""

import numpy as np

from coupler.exchange import InProcessTransport, SlotShape
from coupler.records import Reason


def test_a_model_that_raises_gives_an_answer_that_no_gate_takes() -> None:
    def predict(*_: object) -> None:
        raise ArithmeticError("where am I?")

    transport = InProcessTransport(SlotShape(0, 8, 2, 1), predict, lambda version: None)
    transport.inputs(3)[...] = 1.0
    transport.ask(3, 0.1, 1)

    answer = transport.answer(5.0)

    assert answer.reason is Reason.ACCEPTED
    assert answer.mean.shape == (3, 1)
    assert np.isnan(answer.mean).all()
    assert np.isnan(answer.score).all()
