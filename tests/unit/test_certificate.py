"""The certificate: exact arithmetic and its inequality; ``test_redraw.py`` redraws the coins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.controller import UNIT, AuditedSums, Certificate, coin_seed, quantise, sentence, tosses

CERTIFICATE = Certificate(delta=0.05, cap=2.0, audit_rate_min=0.05)


@st.composite
def step_sums(draw, audit_rate=None):
    decisions = draw(st.integers(0, 1000))
    accepted = draw(st.integers(0, decisions))
    audits = draw(st.integers(0, decisions))
    both = min(accepted, audits)
    rate = draw(st.floats(0.05, 1.0)) if audit_rate is None else audit_rate
    return AuditedSums(rate, decisions, audits, accepted, draw(st.integers(0, both * UNIT)), draw(st.integers(0, both)))


def tally_of(steps, certificate=CERTIFICATE):
    tally = certificate.start()
    for sums in steps:
        tally = certificate.add(tally, sums)
    return tally


@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 8), min_size=1, max_size=6), st.randoms())
def test_sums_over_ranks_are_the_same_in_any_order(ranks, random):
    parts = [AuditedSums.of(0.05, counts) for counts in ranks]
    shuffled = random.sample(parts, len(parts))

    one = AuditedSums.of(0.05, np.sum([part.counts for part in parts], axis=0))
    other = AuditedSums.of(0.05, np.sum([part.counts for part in shuffled], axis=0))

    assert one == other


@given(step_sums(0.3), step_sums(0.3))
def test_a_step_cut_in_two_has_the_same_evidence_and_no_weaker_bound(first, second):
    whole = tally_of([AuditedSums.of(0.3, first.counts + second.counts)])

    parts = tally_of([first, second])

    assert (parts.loss.weighted, parts.loss.estimate) == (whole.loss.weighted, whole.loss.estimate)
    assert (parts.decisions, parts.accepted, parts.audits) == (whole.decisions, whole.accepted, whole.audits)
    assert parts.loss.ceiling <= whole.loss.ceiling


@given(st.lists(step_sums(), max_size=8))
def test_ceilings_never_fall_and_never_exceed_the_accepted(steps):
    tally = CERTIFICATE.start()

    for sums in steps:
        before, tally = tally, CERTIFICATE.add(tally, sums)

        for old, new in ((before.loss, tally.loss), (before.exceedance, tally.exceedance)):
            assert old.ceiling <= new.ceiling <= old.ceiling + sums.accepted * UNIT
            assert new.ceiling <= tally.accepted * UNIT


@given(st.lists(step_sums(), min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 10**12))
def test_more_loss_in_an_audit_never_gives_a_lower_bound(steps, where, more):
    where %= len(steps)
    sums = steps[where]
    most = min(sums.audits, sums.accepted) * UNIT
    worse = AuditedSums(sums.audit_rate, sums.decisions, sums.audits, sums.accepted, min(sums.loss + more, most))

    plain = tally_of(steps)
    raised = tally_of([*steps[:where], worse, *steps[where + 1 :]])

    assert raised.loss.ceiling >= plain.loss.ceiling
    assert raised.loss.estimate >= plain.loss.estimate


@given(st.lists(step_sums(), min_size=1, max_size=5))
def test_a_smaller_delta_never_gives_a_lower_bound(steps):
    strict = Certificate(delta=0.001, cap=2.0, audit_rate_min=0.05)

    assert tally_of(steps, strict).loss.ceiling >= tally_of(steps).loss.ceiling


def test_before_any_decision_all_means_are_zero():
    bound = CERTIFICATE.bound(CERTIFICATE.start())

    assert bound.loss_bound_per_decision == bound.loss_bound_per_accepted == bound.exceedance_bound == 0.0


def test_where_nothing_was_accepted_the_bound_is_zero_whatever_the_rate():
    bound = CERTIFICATE.bound(tally_of([AuditedSums(0.0, 500), AuditedSums(0.05, 1000, audits=48)]))

    assert bound.decisions == 1500
    assert bound.loss_bound_per_decision == bound.loss_bound_per_accepted == 0.0


def test_without_audits_the_bound_is_one_per_accepted_decision_until_the_price_is_paid():
    bound = CERTIFICATE.bound(tally_of([AuditedSums(0.05, 100, accepted=60)]))

    assert bound.loss_bound_per_accepted == 1.0
    assert bound.loss_bound_per_decision == 0.6
    assert bound.loss_estimate_per_decision == 0.0


def test_without_a_loss_the_bound_is_the_price_over_the_largest_constant():
    bound = CERTIFICATE.bound(tally_of([AuditedSums(0.05, 100_000, audits=5000, accepted=100_000)]))

    price = math.log(8 / 0.05) / (0.9 * 0.05)
    # The ceiling is rounded up by less than 2**-32.
    assert bound.loss_bound_per_decision == pytest.approx(price / 100_000, rel=1e-9)


def test_with_every_decision_audited_the_bound_is_near_the_truth_and_the_estimate_is_it():
    certificate = Certificate(delta=0.05, cap=2.0, audit_rate_min=1.0)
    n, loss = 100_000, quantise(0.02)

    bound = certificate.bound(
        tally_of([AuditedSums(1.0, n, audits=n, accepted=n, loss=n * int(loss), exceedances=n // 50)], certificate)
    )

    # Losses are rounded up to 2**-32, so 0.02 is right to a relative 1.2e-8.
    assert bound.loss_estimate_per_decision == pytest.approx(0.02, rel=2e-8)
    assert 0.02 < bound.loss_bound_per_decision < 0.022
    assert bound.exceedance_estimate == pytest.approx(0.02)


def test_an_audit_rate_below_the_least_one_is_refused_where_something_was_accepted():
    with pytest.raises(AssertionError):
        tally_of([AuditedSums(0.01, 100, audits=1, accepted=50)])


def test_losses_are_rounded_up_and_what_is_not_a_number_counts_as_one():
    loss = quantise([0.0, 2.0**-40, 0.5, 1.0, 7.0, np.inf, np.nan])

    assert loss.tolist() == [0, 1, UNIT // 2, UNIT, UNIT, UNIT, UNIT]


@given(st.lists(st.floats(0, 2), max_size=20))
def test_quantised_losses_are_never_below_the_losses_and_at_most_a_unit_above(losses):
    capped = np.minimum(losses, 1.0)

    excess = quantise(losses) / UNIT - capped

    assert (excess >= 0).all()
    assert (excess <= 1 / UNIT).all()  # equal where the difference itself is rounded


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 1.0])
def test_the_inequality_of_the_proof_holds_with_the_weights_in_use(rate):
    loss = np.linspace(0, 1, 1001)

    for constant, weight in zip(CERTIFICATE.grid, CERTIFICATE.weights(rate), strict=True):
        moment = rate * np.exp((constant - weight / UNIT) * loss) + (1 - rate) * np.exp(constant * loss)

        # Three floating-point operations on numbers near 1.
        assert moment.max() <= 1 + 1e-15


def test_where_nothing_was_accepted_the_sentence_says_so_and_no_more():
    words = sentence(CERTIFICATE.bound(tally_of([AuditedSums(0.05, 1000, audits=50, accepted=0)])))

    assert words == "With probability 1 nothing was lost: no answer was accepted in 1000 decisions."


def test_the_sentence_names_both_denominators_and_the_coins():
    words = sentence(CERTIFICATE.bound(tally_of([AuditedSums(0.05, 1000, audits=50, accepted=600)])))

    assert "0.95 over the audit coins" in words
    assert "per decision" in words
    assert "per accepted decision" in words
    assert "1000 decisions: 600 accepted by the gate, 400 not; 50 audits, 5 %" in words


def bound_and_loss(seed, remembered, *, steps=200, rate=0.05, wrong=0.9):
    """The certified and the true mean loss of a model that is right where it remembers an audit, and nowhere else."""
    ids, tally, lost = np.arange(1000), CERTIFICATE.start(), 0
    for step in range(1, steps + 1):
        loss = np.where(tosses(rate, remembered, step, 0, ids), 0, int(wrong * UNIT))
        seen = tosses(rate, seed, step, 0, ids)
        sums = AuditedSums(
            rate, ids.size, int(seen.sum()), ids.size, int(loss[seen].sum()), int((loss[seen] > 0).sum())
        )
        tally, lost = CERTIFICATE.add(tally, sums), lost + int(loss.sum())
    return CERTIFICATE.loss_bound(tally), lost / UNIT / steps / ids.size


def test_a_model_that_remembers_the_audits_of_an_earlier_run_is_found_out_by_coins_that_hang_on_its_weights():
    seed, weights = 7, "0f3a"
    bound, loss = bound_and_loss(seed, seed)
    assert bound < 0.01 < loss, "the coins of the earlier run see only what it has learned by heart"

    bound, loss = bound_and_loss(coin_seed(seed, [weights]), seed)

    assert loss > 0.8
    assert loss <= bound


def test_coins_hang_on_seed_and_weights_and_on_nothing_else():
    assert coin_seed(3, []) == 3
    assert coin_seed(3, ["a", "b"]) == coin_seed(3, ["b", "a"]) < 2**52
    assert len({coin_seed(3, ["a"]), coin_seed(4, ["a"]), coin_seed(3, ["b"]), coin_seed(3, ["a", "b"]), 3}) == 5
