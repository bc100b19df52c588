"""The benchmark of gate policies, small: its rows, its tuning with hindsight and its picture."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import policies
from benchmarks.harness import streams, tapes
from coupler.controller.policies import STOCK
from coupler.report.bench import draw_bench
from coupler.report.bench_table import table_of

CONTRACT = {
    "case",
    "system",
    "n",
    "target",
    "true_loss",
    "accepted_share",
    "predicted_speedup",
    "target_kept",
    "highest_bound",
}
STATIC = policies.Knob("threshold", 1e-4, 1e3)
SMALL = policies.Effort(seeds=2, steps=40, decisions=300, tapes=False)


@pytest.fixture(scope="module")
def rows():
    return policies.run(SMALL)


def test_every_row_has_what_readers_count_on_and_nothing_json_cannot_hold(rows):
    assert all(row.keys() >= CONTRACT for row in rows)
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert {row["seeds"] for row in rows} == {2}


def test_all_streams_and_all_stock_policies_are_there(rows):
    drawn = {"stationary", "slow-drift", "regime-change", "overconfident", "corrupted", "exact-until-trusted"}

    assert {row["case"] for row in rows} == drawn
    assert {row["system"] for row in rows} == set(STOCK) == set(policies.KNOBS)


def test_what_never_accepts_loses_nothing_and_what_always_accepts_breaks_the_target(rows):
    never, always = ([row for row in rows if row["system"] == name] for name in ("never", "always"))

    assert all(row["true_loss"] == row["accepted_share"] == 0 and row["target_kept"] == 1 for row in never)
    assert all(row["target_kept"] == 0 for row in always)


def test_a_policy_tuned_with_hindsight_loses_what_was_wanted():
    stream = streams.record(streams.stationary, steps=40, decisions=1000, seed=1)

    tuned = policies.tuned_to(0.01, stream, "static", STATIC, seed=1, shadow=1)

    assert tuned is not None
    assert tuned.true_loss == pytest.approx(0.01, rel=0.01)


def test_a_loss_that_no_setting_reaches_is_no_match():
    stream = streams.record(streams.stationary, steps=20, decisions=300, seed=1)

    assert policies.tuned_to(0.9, stream, "static", STATIC, seed=1, shadow=1) is None


def test_rows_at_equal_loss_are_as_lossy_as_budget(rows):
    wanted = {row["case"]: row["true_loss"] for row in rows if row["system"] == "budget"}
    tuned = [row for row in rows if "equal_loss_true_loss" in row]

    assert {row["system"] for row in tuned} >= {"budget", "static", "random"}
    for row in tuned:
        # Within 5 % for each seed, and so for their medians.
        assert row["equal_loss_true_loss"] == pytest.approx(wanted[row["case"]], rel=0.06)


def test_the_picture_is_drawn_and_so_is_the_table(rows, tmp_path):
    picture = draw_bench("policies", rows, tmp_path / "policies.png")

    assert picture is not None and picture.stat().st_size > 10_000
    assert table_of("policies", rows).row_count == len(rows)


def test_rows_of_one_case_without_equal_loss_are_drawn_too(rows, tmp_path):
    few = [{key: value for key, value in row.items() if not key.startswith("equal")} for row in rows[:9]]

    assert draw_bench("policies", few, tmp_path / "few.png") is not None


def test_a_recording_has_inputs_and_what_truth_and_answer_cost():
    short = replace(tapes.TAPES[1], shape=(12, 12), shadow=3, steps=4, epochs=1)

    made = tapes.recording(short)

    assert made.stream.inputs.shape == (4 * 144, 2)
    assert made.truth_seconds > 0 and made.answer_seconds > 0
