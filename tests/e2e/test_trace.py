"""A run with a timeline: the same bits, and everything that took part is on one clock."""

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from coupler.timeline import write_trace

if TYPE_CHECKING:
    from tests.e2e.conftest import Couple, RunFiles

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

RANKS = 2
# One training, of next to nothing: what is looked at is when things were done, not how well.
SHORT = ("run.steps=20", "surrogate.params={members=2, width=8, depth=1, epochs=3}")
# Times come from two clocks of one machine that are read at different moments of the same work [µs].
ROUNDING = 1.0


@pytest.fixture(scope="module")
def traced(couple: "Couple") -> "RunFiles":
    return couple("bz.toml", RANKS, *SHORT, "trace.on=true")


@pytest.fixture(scope="module")
def events(traced: "RunFiles") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((traced.path / "trace.json").read_text())["traceEvents"]
    return found


def test_a_timeline_changes_no_bit_of_the_run(couple: "Couple", traced: "RunFiles") -> None:
    assert traced.summary.state_sha256 == couple("bz.toml", RANKS, *SHORT).summary.state_sha256


def test_ranks_models_trainer_and_files_are_all_there(traced: "RunFiles", events: list[dict[str, Any]]) -> None:
    spans = [one for one in events if one["ph"] == "X"]
    steps = traced.summary.steps

    for rank in range(RANKS):
        mine = [one["name"] for one in spans if one["pid"] == rank]
        assert mine.count("step") == steps
        assert {"setup", "truth", "wait", "gather", "gate", "scatter", "halo", "sync", "io"} <= set(mine)
    assert "ledger" in {one["name"] for one in spans if one["pid"] == 0}
    assert {one["tid"] for one in spans if one["name"] == "model"} == set(range(RANKS))
    trainings = [one for one in spans if "round" in one["name"]]
    assert len(trainings) == traced.summary.retrainings


def test_everything_is_on_one_clock(traced: "RunFiles", events: list[dict[str, Any]]) -> None:
    whole = traced.summary.seconds.total * 1e6
    spans = [one for one in events if one["ph"] == "X"]
    # The other rank may have begun a little before rank 0, but not by the whole of the set-up.
    earliest = -traced.summary.seconds.setup * 1e6

    assert all(earliest <= one["ts"] and one["ts"] + one["dur"] <= whole for one in spans)
    waits, models = ([one for one in spans if one["name"] == name] for name in ("wait", "model"))
    for model in models:
        after = [wait for wait in waits if wait["pid"] == model["tid"] and wait["ts"] + wait["dur"] >= model["ts"]]
        assert min(wait["ts"] + wait["dur"] for wait in after) >= model["ts"] + model["dur"] - 1e3


def test_spans_of_a_row_lie_within_each_other_or_apart(events: list[dict[str, Any]]) -> None:
    rows = defaultdict(list)
    for one in events:
        if one["ph"] == "X" and one["name"] != "setup":
            rows[one["pid"], one["tid"]].append((one["ts"], -one["dur"]))
    for row in rows.values():
        open_until: list[float] = []
        for start, minus_length in sorted(row):
            stop = start - minus_length
            while open_until and open_until[-1] <= start + ROUNDING:
                open_until.pop()
            assert not open_until or stop <= open_until[-1] + ROUNDING
            open_until.append(stop)


def test_the_pieces_make_the_same_trace_again(traced: "RunFiles") -> None:
    before = (traced.path / "trace.json").read_bytes()

    assert write_trace(traced.path).read_bytes() == before
