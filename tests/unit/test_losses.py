"""How often and how soon what was lost is started again."""

from hypothesis import given
from hypothesis import strategies as st

from coupler.serving.losses import Losses, RestartRule

RULE = RestartRule(limit=3, window=100.0, first=1.0, longest=5.0)
TIMES = st.lists(st.floats(0.0, 1e6), max_size=30).map(sorted)


def test_the_first_loss_is_made_good_at_once_and_later_ones_after_pauses_that_double() -> None:
    losses, pauses = Losses(), []
    for now in range(6):
        losses = losses.after(float(now), RULE)
        pauses.append(losses.pause(RULE))

    assert pauses == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_what_is_lost_once_more_than_it_may_be_is_given_up() -> None:
    losses, given_up = Losses(), []
    for now in range(4):
        losses = losses.after(float(now), RULE)
        given_up.append(losses.too_many(RULE))

    assert given_up == [False, False, False, True]


def test_losses_of_long_ago_are_forgotten() -> None:
    losses = Losses()
    for now in (0.0, 60.0, 120.0, 180.0, 240.0):
        losses = losses.after(now, RULE)

    assert losses.times == (180.0, 240.0)
    assert not losses.too_many(RULE)


def test_where_nothing_may_be_started_again_the_first_loss_is_the_last() -> None:
    assert Losses().after(0.0, RestartRule(limit=0)).too_many(RestartRule(limit=0))


@given(TIMES)
def test_pauses_are_bounded_and_no_window_has_more_losses_than_it_may(times: list[float]) -> None:
    losses = Losses()
    for now in times:
        losses = losses.after(now, RULE)
        assert 0.0 <= losses.pause(RULE) <= RULE.longest
        assert now - losses.times[0] < RULE.window
        if losses.too_many(RULE):
            return
        assert len(losses.times) <= RULE.limit


def test_a_thousand_losses_make_no_pause_infinite() -> None:
    losses = Losses(tuple(float(now) for now in range(5000)))

    assert losses.pause(RestartRule(limit=10_000)) == RestartRule().longest
