"""The benchmark of the certificate, small: its rows, its tapes and its picture."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import certificate
from benchmarks.harness import streams, tapes
from coupler.report.bench import draw_bench
from coupler.report.bench_table import table_of

CONTRACT = {"case", "system", "n", "delta", "redraws", "crossed_share", "crossed_margin", "true_loss"}
SMALL = certificate.Effort(redraws=60, steps=60, decisions=1000, followed_steps=12, followed_decisions=500, tapes=False)


@pytest.fixture(scope="module")
def rows():
    return certificate.run(SMALL)


def test_every_row_has_what_readers_count_on_and_nothing_json_cannot_hold(rows):
    assert all(row.keys() >= CONTRACT for row in rows)
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert {row["delta"] for row in rows} == {0.05, 0.2}
    systems = {"certificate", "peeking-interval", "biased-coin", "biased-coin-by-loss", "importance-audits"}
    assert {row["system"] for row in rows} == systems


def test_all_streams_of_the_design_are_there_adversaries_included(rows):
    drawn = {"stationary", "slow-drift", "regime-change", "overconfident", "corrupted", "exact-until-trusted"}
    followed = {"adaptive", "wrong-when-used/controlled", "overconfident/controlled"}

    assert {row["case"] for row in rows} == drawn | followed


def test_the_certificate_holds_and_the_biased_coins_do_not(rows):
    for row in rows:
        if row["system"] == "certificate":
            assert row["crossed_share"] <= row["delta"] + 2 * row["crossed_margin"]
    assert max(row["crossed_share"] for row in rows if str(row["system"]).startswith("biased")) == 1.0


def test_the_picture_is_drawn_and_its_curves_stay_out_of_the_table(rows, tmp_path):
    picture = draw_bench("certificate", rows, tmp_path / "certificate.png")

    assert picture is not None and picture.stat().st_size > 10_000
    assert not any("curve" in str(column.header) for column in table_of("certificate", rows).columns)


def test_rows_without_curves_are_drawn_and_none_at_all_are_not(rows, tmp_path):
    followed = [row for row in rows if row["case"] == "adaptive"]

    assert draw_bench("certificate", followed, tmp_path / "one.png") is not None
    assert draw_bench("certificate", [], tmp_path / "none.png") is None


def test_importance_audits_cost_as_many_audits_as_one_rate():
    stream = streams.record(streams.stationary, steps=20, decisions=500, seed=1)

    settled, least = certificate.importance(stream, 0.3, ratio=4.0)

    plain = stream.settled(0.3, cap=certificate.CAP, audit_rate=certificate.AUDIT_RATE)
    assert settled.audits_expected == pytest.approx(plain.audits_expected)
    assert set(np.round(settled.rate, 12)) == set(np.round([least, 4 * least], 12))


@pytest.mark.parametrize("tape", tapes.TAPES, ids=lambda tape: tape.name)
def test_a_tape_has_the_errors_and_scores_of_every_element_after_the_training(tape):
    short = replace(tape, shape=(12, 12), shadow=3, steps=4, epochs=1)

    stream = tapes.record(short)

    assert (stream.name, stream.steps, stream.score.size) == (tape.name, 4, 4 * 144)
    assert (stream.error >= 0).all() and np.isfinite(stream.score).all()
    assert tapes.record(short).error.tobytes() == stream.error.tobytes()
