"""Climates: the test that says whether two runs have the same long-time means, on means whose truth is known."""

import numpy as np
import pytest

from coupler.errors import CouplerError
from coupler.report import compare_climates, mean_and_deviation


def draw(seed, members=50, shift=0.0):
    return np.random.default_rng(seed).normal([1.0, 5.0 + shift, 0.1], [1.0, 2.0, 0.01], (members, 3))


def test_equal_climates_are_told_apart_as_seldom_as_asked():
    alarms = [
        not compare_climates("abc", draw((seed, 0)), draw((seed, 1)), false_alarm=0.1).agree for seed in range(500)
    ]

    # 10 % of 500 and three standard deviations; 50 members make the normal limit a little short.
    assert 0.04 < np.mean(alarms) < 0.15


def test_a_shift_of_six_standard_errors_is_found_in_its_quantity():
    agreement = compare_climates("abc", draw(1), draw(2, shift=6.0 * 2.0 * np.sqrt(2.0 / 50.0)))

    assert not agreement.agree
    assert np.argmax(np.abs(agreement.scores)) == 1


def test_scores_are_welchs_statistic():
    one, other = draw(3, members=20), draw(4, members=30)

    agreement = compare_climates("abc", one, other)

    error = np.sqrt(one.var(axis=0, ddof=1) / 20 + other.var(axis=0, ddof=1) / 30)
    np.testing.assert_allclose(agreement.scores, (one.mean(axis=0) - other.mean(axis=0)) / error)
    assert agreement.limit == pytest.approx(2.935, abs=1e-3)  # two-sided 1 % over three quantities


def test_influences_average_to_mean_and_standard_deviation():
    values = np.random.default_rng(5).normal(3.0, 2.0, (40, 30, 8))

    average = mean_and_deviation(values).mean(axis=0)

    np.testing.assert_allclose(average, [values.mean(), values.std()], rtol=1e-12)


def test_the_error_of_a_standard_deviation_is_what_repetitions_scatter_by():
    random = np.random.default_rng(6)

    runs = [mean_and_deviation(random.normal(3.0, 2.0, (10, 40, 4))) for _ in range(300)]

    claimed = np.mean([rows[:, 1].std(ddof=1) / np.sqrt(40) for rows in runs])
    scatter = np.std([rows[:, 1].mean() for rows in runs])
    assert claimed == pytest.approx(scatter, rel=0.15)  # 300 repetitions: 4 % at one standard deviation


@pytest.mark.parametrize(
    "rows",
    [
        np.empty((0, 2)),
        np.ones((1, 2)),
        np.random.default_rng(7).random((5, 3)),
        np.full((5, 2), np.nan),
        np.ones((5, 2)),
    ],
    ids=["no member", "one member", "wrong columns", "not finite", "no spread"],
)
def test_means_without_a_sampling_error_are_refused(rows):
    with pytest.raises(CouplerError, match="sampling error"):
        compare_climates("ab", rows, np.random.default_rng(8).random((5, 2)))
