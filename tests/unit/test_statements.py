"""Families of statements: what each line needs, what it says, and that all lines hold at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.streams import overconfident, record
from coupler.controller import UNIT, AuditedSums, Certificate, Losses, Statements, of_outputs
from coupler.redraw import redraw, stream_from_arrays

CERTIFICATE = Certificate(delta=0.05, cap=2.0, audit_rate_min=0.05)
FAMILY = Statements(CERTIFICATE, ("u", "v"))
SUMS = AuditedSums(0.05, 1000, 50, 600, 3 * UNIT, 2, refused=400)


def test_delta_is_split_evenly_over_the_lines_and_the_constants_stay():
    family = Statements(CERTIFICATE, ("a", "b", "c", "d"))

    assert family.each.delta == 0.0125
    assert family.each.grid == CERTIFICATE.grid


def test_a_family_of_one_is_the_certificate():
    family = Statements(CERTIFICATE, ("u",))

    (tally,) = family.add(family.start(), [SUMS])

    assert tally == CERTIFICATE.add(CERTIFICATE.start(), SUMS)


def test_outputs_share_the_decisions_of_the_step_and_have_their_own_losses():
    tallies = FAMILY.add(FAMILY.start(), of_outputs(SUMS, [Losses(3 * UNIT, 2), Losses(UNIT, 0)]))

    assert [(tally.decisions, tally.accepted, tally.audits) for tally in tallies] == [(1000, 600, 50)] * 2
    assert tallies[0].loss.estimate == 3 * tallies[1].loss.estimate
    assert tallies[1].exceedance.estimate == 0


def test_a_line_without_loss_pays_the_price_of_the_whole_family():
    family = Statements(CERTIFICATE, tuple("abcdefghij"))
    quiet = AuditedSums(0.05, 100_000, 5000, 100_000)

    bound = family.bounds(family.add(family.start(), [quiet] * 10))["a"]

    # ln(8 * 10 / 0.05) in place of ln(8 / 0.05); the ceiling is rounded up by less than 2**-32.
    assert bound.loss_bound_per_decision == pytest.approx(math.log(1600) / 0.045 / 100_000, rel=1e-9)


def test_an_output_cannot_have_lost_more_than_the_worst_one():
    with pytest.raises(AssertionError):
        of_outputs(SUMS, [Losses(4 * UNIT, 2)])


def test_a_name_that_stands_twice_or_none_at_all_is_refused():
    for names in ((), ("u", "u")):
        with pytest.raises(AssertionError):
            Statements(CERTIFICATE, names)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6))
def test_regions_add_up_to_the_run(accepted):
    family = Statements(CERTIFICATE, ("inside", "outside"))
    tallies, whole = family.start(), CERTIFICATE.start()

    for parts in accepted:
        sums = [AuditedSums(0.05, 300, 15, part, min(part, 15) * UNIT // 3) for part in parts]
        tallies = family.add(tallies, sums)
        whole = CERTIFICATE.add(whole, AuditedSums.of(0.05, sums[0].counts + sums[1].counts))

    assert sum(tally.accepted for tally in tallies) == whole.accepted
    assert sum(tally.loss.estimate for tally in tallies) == whole.loss.estimate


def test_the_sentence_says_that_all_lines_hold_at_once_and_begins_with_the_worst():
    tallies = FAMILY.add(FAMILY.start(), of_outputs(SUMS, [Losses(0, 0), Losses(3 * UNIT, 2)]))

    words = FAMILY.sentence(FAMILY.bounds(tallies))

    assert "0.95 over the audit coins, for all of these at once" in words
    assert "per accepted decision" in words
    assert words.index("v 0.") < words.index("u 0.")


def test_all_regions_hold_at_once_at_the_promised_rate_and_would_not_without_the_split():
    stream = record(overconfident, steps=300, decisions=400, seed=11)
    region = np.random.default_rng(3).integers(0, 8, stream.score.size)
    parts = [stream.settled(np.where(region == r, 0.4, 0.0), cap=2.0, audit_rate=0.05) for r in range(8)]
    loose = Certificate(delta=0.2, cap=2.0, audit_rate_min=0.05)
    family = Statements(loose, tuple("abcdefgh"))

    def ever(rule: Certificate) -> float:
        crossed = [redraw(part, rule, 1000, coins="tosses").crossed[:, 0] for part in parts]
        return float(np.any(crossed, axis=0)[:, 1].mean())

    # Three deviations of 1000 redraws; the exceedance, whose losses are 0 or 1, comes closest to delta.
    assert ever(family.each) <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 1000)
    assert ever(loose) > 0.25


def test_outputs_that_share_their_coins_hold_at_once():
    rng = np.random.default_rng(5)
    score = rng.random((200, 500))
    errors = [np.where(rng.random(score.shape) < 0.02, 5.0, 0.0) for _ in range(3)]
    loose = Certificate(delta=0.2, cap=2.0, audit_rate_min=0.05)
    family = Statements(loose, ("u", "v", "w"))

    streams = [stream_from_arrays("u", score, error).settled(1.0, cap=2.0, audit_rate=0.05) for error in errors]
    crossed = [redraw(stream, family.each, 1000, coins="tosses").crossed[:, 0, 0] for stream in streams]

    assert np.any(crossed, axis=0).mean() <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 1000)
