"""The rehearsal: everything a first answer needs is compiled before the run, and the user's truth is left alone."""

import numpy as np

from coupler.coupling.rehearsal import rehearse
from coupler.field import Field
from coupler.operator import Operator


def test_a_rehearsal_does_not_call_the_truth() -> None:
    called: list[int] = []

    def truth(inputs: np.ndarray, dt: float) -> np.ndarray:
        called.append(len(inputs))
        return inputs

    operator = Operator(
        truth, inputs=["a", "b"], outputs=["a", "b"], atol=1.0, rtol=0.0, conserved={"sum": {"a": 1, "b": 1}}
    )
    rehearse(operator.signature)

    assert not called


def test_fields_that_cannot_be_zero_do_not_disturb_a_rehearsal() -> None:
    columns = [Field("temperature", unit="K", bounds=(200.0, 4000.0))]

    rehearse(Operator(lambda inputs, dt: inputs, inputs=columns, outputs=columns, atol=1.0, rtol=0.0).signature)
