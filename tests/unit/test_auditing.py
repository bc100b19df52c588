"""The audit rate that is chosen for a run: shorter runs audit more, and what is chosen leaves room for answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupler.config import case_from
from coupler.controller import UNIT, AuditedSums, Certificate
from coupler.controller.auditing import chosen_audit_rate
from coupler.coupling import Coupling
from coupler.errors import ConfigError
from coupler.operator import Operator

OPERATOR = Operator(lambda inputs, dt: inputs, inputs=["a"], outputs=["a"], atol=1.0, rtol=0.0)


def test_the_longer_a_run_the_fewer_of_its_decisions_are_audited() -> None:
    rates = [chosen_audit_rate(decisions, 0.02, 0.05) for decisions in (10**4, 10**5, 10**6, 10**7, 10**8)]

    assert rates == sorted(rates, reverse=True)
    # Tiles and members, with some ten thousand decisions, need several per cent; cells, with tens of millions, below 1.
    assert rates[0] >= 0.05
    assert rates[-1] <= 0.01


@pytest.mark.parametrize("decisions", [10**6, 10**7, 10**8])
def test_a_run_that_spends_nine_tenths_of_what_is_usable_is_certified(decisions: int) -> None:
    target, delta = 0.02, 0.05
    rate = chosen_audit_rate(decisions, target, delta)
    certificate = Certificate(delta, 5.0, rate)
    # Losses of 0.2, at 70 % of the target, and just as many audited as there should be.
    audited = int(0.7 * target * decisions * rate)
    sums = AuditedSums(rate, decisions, int(rate * decisions), decisions, audited * UNIT)

    assert certificate.loss_bound(certificate.add(certificate.start(), sums)) <= target


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**12), st.floats(1e-4, 0.5), st.floats(1e-6, 0.5))
def test_the_rate_is_always_one(decisions: int, target: float, delta: float) -> None:
    assert 0.001 <= chosen_audit_rate(decisions, target, delta) <= 0.2


def test_where_nobody_knows_the_number_of_decisions_a_number_is_asked_for(tmp_path) -> None:
    case = case_from({"controller": {"audit_rate": "auto"}}, folder=tmp_path)

    with pytest.raises(ConfigError, match="pass elements= to Coupling"):
        Coupling(OPERATOR, case=case)
