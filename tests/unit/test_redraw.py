"""Redraws: that they are the certificate's own numbers and honest coins, and how often the bound is crossed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.harness.streams import LUCKY, SCENARIOS, WRONG_WHEN_USED, overconfident, record, recorded, stationary
from coupler.controller import UNIT, AuditedSums, Certificate, Controller, Findings, tosses
from coupler.errors import ConfigError, FieldMismatch
from coupler.redraw import (
    Crossings,
    Elements,
    Moments,
    Spread,
    Statement,
    audited_rows,
    follow,
    read_stream,
    redraw,
    stream_from_arrays,
    write_stream,
)
from coupler.redraw.arithmetic import add_product, as_share

DELTAS = (0.05, 0.2)
RATE, CAP, THRESHOLD = 0.05, 2.0, 0.4
REDRAWS = 2000


def small(scenario=stationary, *, steps=40, decisions=300, **rates):
    stream = record(scenario, steps=steps, decisions=decisions, seed=5)
    return stream.settled(THRESHOLD, cap=CAP, audit_rate=rates.get("rate", RATE))


def certificate(delta=0.05, rate=RATE):
    return Certificate(delta=delta, cap=CAP, audit_rate_min=rate)


def groups_of(stream, rows, *, unlisted_audits=0):
    """What one redraw's audits add up to, group by group."""
    for group, (first, last) in enumerate(zip(stream.first, stream.first[1:], strict=False)):
        found = rows[(rows >= first) & (rows < last)]
        yield AuditedSums(
            float(stream.rate[group]),
            int(stream.decisions[group]),
            min(found.size + unlisted_audits, int(stream.decisions[group])),
            int(stream.accepted[group]),
            int(stream.loss[found].sum()),
            int(stream.exceeded[found].sum()),
        )


def tallies(stream, rule, rows, **audits):
    """The certificate's own tallies after every step."""
    tally, found = rule.start(), []
    for closes, sums in zip(stream.closes, groups_of(stream, rows, **audits), strict=True):
        tally = rule.add(tally, sums)
        found += [tally] if closes else []
    return found


# The arithmetic: the numbers of a run, to the last bit.


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.tuples(st.integers(0, 2**36), st.integers(0, 2**62)), min_size=1, max_size=6))
def test_sums_of_128_bits_and_their_quotient_are_those_of_whole_numbers(products):
    total = np.zeros(2, np.uint64)

    for weight, audited in products:
        add_product(total, weight, audited)

    expected = sum(weight * audited for weight, audited in products)
    assert (int(total[0]) << 64) + int(total[1]) == expected
    assert as_share(total) == expected / 2**64


@pytest.mark.parametrize("coins", ["gaps", "tosses"])
def test_every_bound_of_a_redraw_is_the_certificates_to_the_last_bit(coins):
    stream, rule = small(), certificate()
    every_step = Moments(tuple(range(40)))

    found = redraw(stream, rule, 3, moments=every_step, coins=coins)

    for number in range(3):
        expected = tallies(stream, rule, audited_rows(stream, number, coins=coins))
        assert (found.bound[number, 0, Statement.LOSS] * UNIT).tolist() == [each.loss.ceiling for each in expected]
        exceedance = (found.bound[number, 0, Statement.EXCEEDANCE] * UNIT).tolist()
        assert exceedance == [each.exceedance.ceiling for each in expected]


def test_two_rates_in_a_step_are_two_groups_of_the_certificate():
    errors = record(overconfident, steps=30, decisions=400, seed=2)
    rates = np.where(errors.score > 0.2, 0.2, RATE)
    stream, rule = errors.settled(THRESHOLD, cap=CAP, audit_rate=rates), certificate()

    found = redraw(stream, rule, 2, moments=Moments(tuple(range(30))))

    assert stream.rate.size == 60
    for number in range(2):
        expected = [each.loss.ceiling for each in tallies(stream, rule, audited_rows(stream, number))]
        assert (found.bound[number, 0, Statement.LOSS] * UNIT).tolist() == expected


def test_audits_without_a_loss_change_no_bound_so_their_coins_need_not_be_tossed():
    stream, rule, rows = small(), certificate(), audited_rows(small(), 0)

    listed, all_of_them = (tallies(stream, rule, rows, unlisted_audits=more) for more in (0, 17))

    assert [each.loss for each in listed] == [each.loss for each in all_of_them]
    assert [each.exceedance for each in listed] == [each.exceedance for each in all_of_them]


def test_bounds_per_decision_and_per_accepted_decision_are_crossed_together_and_where_the_redraw_says_so():
    stream, rule = small(steps=400), certificate()
    caught = np.where(stream.loss > stream.loss.mean(), 0.2, 1.0)
    true, decided, accepted = stream.true_sums()[0], stream.decided, np.cumsum(stream.accepted)

    found = redraw(stream, rule, 20, caught=caught, moments=Moments(tuple(range(400))))

    for number in range(20):
        sums = [int(bound * UNIT) for bound in found.bound[number, 0, Statement.LOSS]]
        per_decision = [
            bound / (UNIT * int(n)) < t / (UNIT * int(n)) for bound, t, n in zip(sums, true, decided, strict=True)
        ]
        per_accepted = [
            bound / (UNIT * int(n)) < t / (UNIT * int(n)) for bound, t, n in zip(sums, true, accepted, strict=True)
        ]
        assert per_decision == per_accepted
        assert any(per_decision) == found.crossed[number, 0, Statement.LOSS]


def test_redraws_are_the_same_on_any_number_of_threads():
    stream = small()

    one, two = (redraw(stream, certificate(), 120, threads=threads) for threads in (1, 2))

    assert (one.bound == two.bound).all() and (one.crossed == two.crossed).all()


# The coins: honest, whichever way they are tossed.


def test_tossed_coins_are_those_of_a_run_with_the_redraws_number_as_seed():
    stream = small()

    rows = audited_rows(stream, 7, coins="tosses")

    fell = [tosses(RATE, 7, int(step), 0, np.arange(300)) for step in stream.step]
    expected = [
        row for row, (step, place) in enumerate(zip(steps_of(stream), stream.place, strict=True)) if fell[step][place]
    ]
    assert rows.tolist() == expected


def steps_of(stream):
    return np.repeat(stream.step, np.diff(stream.first))


@pytest.mark.parametrize("coins", ["gaps", "tosses"])
def test_every_element_is_audited_at_its_rate_and_independently_of_the_one_before(coins):
    errors = record(stationary, steps=4, decisions=500, seed=1)
    stream = errors.settled(9.0, cap=CAP, audit_rate=np.where(errors.score > 0.5, 0.3, 0.1))
    rate = np.repeat(stream.rate, np.diff(stream.first))
    fell = np.zeros((4000, rate.size), bool)

    for number, row in enumerate(fell):
        row[audited_rows(stream, number, coins=coins)] = True

    # Sums of squares of standard normal numbers; one honest generator in ten thousand is refused.
    deviations = (fell.sum(axis=0) - 4000 * rate) / np.sqrt(4000 * rate * (1 - rate))
    assert 1e-4 < stats.chi2.cdf((deviations**2).sum(), rate.size) < 1 - 1e-4
    both, chance = (fell[:, 1:] & fell[:, :-1]).sum(axis=0), rate[1:] * rate[:-1]
    deviations = (both - 4000 * chance) / np.sqrt(4000 * chance * (1 - chance))
    assert 1e-4 < stats.chi2.cdf((deviations**2).sum(), rate.size - 1) < 1 - 1e-4


def test_bounds_from_gaps_and_from_tosses_have_the_same_distribution():
    stream = small(steps=100)

    gaps, each = (
        redraw(stream, certificate(), 2000, coins=coins).bound[:, 0].reshape(2000, 2) for coins in ("gaps", "tosses")
    )

    for kind in Statement:
        assert stats.ks_2samp(gaps[:, kind], each[:, kind]).pvalue > 1e-3


def test_at_a_rate_of_one_everything_is_audited():
    stream = small(rate=1.0)

    assert audited_rows(stream, 0).tolist() == list(range(stream.loss.size))


# Shares.


@pytest.mark.parametrize(("crossed", "redraws"), [(0, 1), (0, 2000), (13, 2000), (2000, 2000)])
def test_the_margin_of_a_share_is_wilsons(crossed, redraws):
    found, expected = (
        Crossings(crossed, redraws),
        stats.binomtest(crossed, redraws).proportion_ci(0.99, method="wilson"),
    )

    assert (found.least, found.most) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_explains_a_delta_within_its_margin_and_no_more():
    assert Crossings(60, 1000).within(0.05)
    assert not Crossings(80, 1000).within(0.05)
    assert Crossings(0, 0).share == 0.0


# Coverage, and what must fail.


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_honest_coins_cross_the_bound_at_most_as_often_as_promised_and_the_controls_fail(scenario):
    stream = record(scenario, steps=400, decisions=500, seed=20240611).settled(THRESHOLD, cap=CAP, audit_rate=RATE)

    honest = redraw(stream, certificate(), REDRAWS, deltas=DELTAS)
    biased = redraw(stream, certificate(), 200, caught=np.where(stream.loss >= stream.loss.mean(), 0.3, 1.0))

    for delta in DELTAS:
        for statement in Statement:
            assert honest.crossings(delta, statement).within(delta)
        # Anything near delta would mean this harness cannot tell an invalid interval from a valid one.
        assert honest.peekings(delta).least > 1.5 * delta
    assert biased.crossings(0.05).share > 0.9
    assert 1 < honest.tightness(0.05).median < 1.7


def test_a_coin_that_skips_high_scores_breaks_the_bound():
    stream = small(steps=1000)

    biased = redraw(stream, certificate(), 200, caught=np.where(stream.score >= np.median(stream.score), 0.3, 1.0))

    assert biased.crossings(0.05).share > 0.9


def test_an_adversary_that_presses_while_few_losses_were_caught_does_not_break_the_bound():
    controller = Controller(mode="surrogate", delta=0.2, cap=CAP, audit_rate=RATE)

    found = follow(LUCKY.offer(50, 1000, 1), LUCKY.choose, controller, steps=50, redraws=400)

    assert found.crossings().within(0.2)
    assert found.crossings(Statement.EXCEEDANCE).within(0.2)
    assert found.peekings().least > 0.25


@pytest.mark.parametrize("adversary", [WRONG_WHEN_USED, None])
def test_a_threshold_that_follows_the_audits_does_not_break_the_bound(adversary):
    controller = Controller(delta=0.2, cap=CAP, audit_rate=RATE)
    drawn = recorded(record(overconfident, steps=60, decisions=1000, seed=3))
    offer, choose = (drawn, None) if adversary is None else (adversary.offer(60, 1000, 1), adversary.choose)

    found = follow(offer, choose, controller, steps=60, redraws=200, before=6000)

    assert found.crossings().within(0.2)
    assert (found.accepted > 0).all()


def test_with_every_decision_audited_following_is_the_controllers_own_run():
    controller = Controller(delta=0.2, cap=CAP, audit_rate=1.0)
    stream = record(overconfident, steps=40, decisions=500, seed=3)
    state = controller.promoted(controller.advance(controller.start(), Findings(AuditedSums(0.0, 2000))), 1, 1.0)
    late, accepted, lost = AuditedSums(1.0, 0), 0, 0.0

    found = follow(recorded(stream), None, controller, steps=40, redraws=2, before=2000)

    for step in range(40):
        score, error = stream.elements(step)
        passed = score < state.threshold
        count, loss = int(passed.sum()), int(np.ceil(np.minimum(error[passed] / CAP, 1.0) * UNIT).sum())
        beyond = int((error[passed] > 1).sum())
        if state.stopped:
            sums = AuditedSums(1.0, 500, 500, withheld=count, withheld_loss=loss, refused=500 - count)
        else:
            sums = AuditedSums(1.0, 500, 500, count, loss, beyond, refused=500 - count)
            accepted, lost = accepted + count, lost + loss / UNIT
        state = state if step == 0 else controller.advance(state, Findings(late))
        late = sums
    state = controller.advance(state, Findings(late))
    assert found.accepted.tolist() == [accepted] * 2
    assert found.true[0, Statement.LOSS] == pytest.approx(lost)
    assert found.bound[:, Statement.LOSS].tolist() == [state.tally.loss.ceiling / UNIT] * 2


@pytest.mark.validation
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ten_thousand_redraws_of_coins_tossed_one_by_one_keep_the_promise_on_a_million_decisions(scenario):
    stream = record(scenario, steps=1000, decisions=1000, seed=7).settled(0.3, cap=CAP, audit_rate=0.02)

    found = redraw(stream, certificate(rate=0.02), 10_000, deltas=DELTAS, coins="tosses")

    for delta in DELTAS:
        for statement in Statement:
            assert found.crossings(delta, statement).within(delta)
        assert found.peekings(delta).least > delta
    assert found.tightness(0.05).median <= 1.5  # the true loss of all of them is above 0.5 %


# Streams, and wrong ones.


def test_a_stream_comes_back_from_its_file_as_it_was(tmp_path):
    stream = record(stationary, steps=3, decisions=7, seed=1)

    write_stream(stream, tmp_path / "tape.h5")

    again = read_stream(tmp_path / "tape.h5")
    assert (again.name, again.steps) == ("stationary", 3)
    assert again.score.tobytes() == stream.score.tobytes() and again.error.tobytes() == stream.error.tobytes()


def test_a_file_that_is_no_stream_or_not_whole_is_refused_in_words(tmp_path):
    path = tmp_path / "tape.h5"
    write_stream(record(stationary, steps=50, decisions=100, seed=1), path)
    path.write_bytes(path.read_bytes()[:3000])

    with pytest.raises(ConfigError, match="Record it again"):
        read_stream(path)
    with pytest.raises(ConfigError, match="not a stream of errors"):
        read_stream(tmp_path / "missing.h5")


def test_scores_and_errors_of_other_shapes_are_refused_in_words():
    with pytest.raises(FieldMismatch, match="do not belong together"):
        stream_from_arrays("odd", [np.zeros(3), np.zeros(4)], [np.zeros(3), np.zeros(3)])
    with pytest.raises(FieldMismatch, match="do not belong together"):
        stream_from_arrays("odd", np.zeros((2, 3)), np.zeros((3, 3)))


def test_what_is_not_a_number_is_a_full_loss_as_an_error_and_never_accepted_as_a_score():
    stream = stream_from_arrays("odd", [np.array([0.1, math.nan, -1.0])], [np.array([math.nan, 0.1, math.inf])])

    settled = stream.settled(0.5, cap=CAP, audit_rate=RATE)

    assert settled.accepted.tolist() == [2]
    assert settled.loss.tolist() == [UNIT, UNIT]
    assert settled.exceeded.tolist() == [True, True]


@pytest.mark.parametrize("sizes", [[], [0], [0, 3, 0]])
def test_streams_without_steps_or_without_elements_are_redrawn_like_others(sizes):
    stream = stream_from_arrays("few", [np.zeros(n) for n in sizes], [np.zeros(n) for n in sizes])

    found = redraw(stream.settled(0.5, cap=CAP, audit_rate=RATE), certificate(), 3)

    assert found.crossings(0.05).share == 0.0
    assert math.isnan(found.tightness(0.05).median)


def test_one_element_that_is_wrong_is_bounded_by_one():
    stream = stream_from_arrays("one", [np.zeros(1)], [np.array([9.0])]).settled(0.5, cap=CAP, audit_rate=RATE)

    found = redraw(stream, certificate(), 200)

    assert (found.bound == 1.0).all()
    assert found.crossings(0.05).crossed == 0


def test_moments_beyond_the_end_of_a_stream_are_left_out():
    stream = small(steps=40, decisions=300)

    assert Moments.at(stream, [1e3, 12_000, 1e6]).steps == (3, 39)
    assert Moments.spread(stream, 5).steps[-1] == 39
    assert Moments.spread(small(steps=0), 5).steps == ()
    late = stream_from_arrays("late", [np.empty(0), np.zeros(4)], [np.empty(0), np.zeros(4)])
    assert Moments.spread(late.settled(0.5, cap=CAP, audit_rate=RATE), 5).steps == (1,)


def test_a_spread_of_nothing_or_of_what_is_not_finite_is_not_a_number():
    assert math.isnan(Spread.of(np.empty(0)).median)
    assert math.isnan(Spread.of(np.array([1.0, np.inf])).high)


def test_a_step_without_elements_is_followed_like_others():
    empty = Elements(np.empty(0), np.empty(0))

    found = follow(lambda step: [empty], None, Controller(cap=CAP), steps=3, redraws=2)

    assert (found.decisions, found.accepted.tolist(), found.crossings().crossed) == (0, [0, 0], 0)
