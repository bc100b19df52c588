"""Timelines: pieces that can be read at every moment, and one trace with one clock made of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.clock import Stopwatch
from coupler.errors import CouplerError
from coupler.progress import MetricsFile, Progress
from coupler.timeline import Head, Timeline, make_room, read_piece, write_trace

HEAD = Head(rank=0, node=0, pid=1, host="alpha", offset=0, doubt=0, began=1_000_000_000)
MOST = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trace").mkdir()
    (tmp_path / "models").mkdir()
    return tmp_path


def _piece(folder: Path, head: Head = HEAD, most: int = MOST) -> Timeline:
    return Timeline(folder / "trace" / f"rank-{head.rank:06d}.spans", head, most)


def _events(folder: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(write_trace(folder).read_text(encoding="utf-8"))["traceEvents"]
    return events


def _spans(folder: Path) -> list[tuple[str, int, int, float, float]]:
    return [(one["name"], one["pid"], one["tid"], one["ts"], one["dur"]) for one in _events(folder) if one["ph"] == "X"]


def test_spans_come_out_as_microseconds_since_the_set_up_began(folder: Path) -> None:
    timeline = _piece(folder)
    timeline.span("truth", 1.5, 1.75, step=3)
    timeline.span("io", 2.0, 2.5)
    timeline.close()

    assert _spans(folder) == [("truth", 0, 0, 500_000.0, 250_000.0), ("io", 0, 1, 1_000_000.0, 500_000.0)]
    assert [one["args"] for one in _events(folder) if one["name"] == "truth"] == [{"step": 3}]


def test_ranks_of_another_node_are_put_on_the_clock_of_the_first(folder: Path) -> None:
    # The other node's clock is four seconds ahead, so four seconds are taken off.
    other = replace(HEAD, rank=1, node=1, host="beta", offset=-4_000_000_000, doubt=20_000, began=5_000_000_000)
    for head, started in ((HEAD, 2.0), (other, 6.0)):
        timeline = _piece(folder, head)
        timeline.span("truth", started, started + 1.0)
        timeline.close()

    first, second = _spans(folder)

    assert first[3:] == second[3:] == (1_000_000.0, 1_000_000.0)
    names = [one["args"]["name"] for one in _events(folder) if one["name"] == "process_name"]
    assert "rank 1 on beta, clock within 20 µs" in names


def test_the_model_has_a_row_for_every_rank_that_asked(folder: Path) -> None:
    for rank in range(2):
        timeline = _piece(folder, replace(HEAD, rank=rank))
        timeline.span("model", 1.0, 2.0)
        timeline.close()

    rows = {(process, lane) for _, process, lane, _, _ in _spans(folder)}

    assert len({process for process, _ in rows}) == 1
    assert {lane for _, lane in rows} == {0, 1}


def test_trainings_and_curves_are_on_the_same_clock(folder: Path) -> None:
    _piece(folder).close()
    outcome = {"candidate": 1, "sentence": "version 1 has a loss of 0.1", "failed": False, "began": 3.0, "ended": 5.0}
    (folder / "models" / "reaction-round-0001.json").write_text(json.dumps(outcome))
    (folder / "models" / "reaction-round-0002.json").write_text(json.dumps({**outcome, "began": None}))
    metrics = MetricsFile(folder / "metrics.jsonl")
    metrics.append(Progress(1, 10, {"accepted": 5}, float("inf"), 0.0, 0.0, 0.5, 1, 2.0))
    metrics.close()

    events = _events(folder)

    trainings = [one for one in events if one["ph"] == "X"]
    assert [(one["ts"], one["dur"]) for one in trainings] == [(2_000_000.0, 2_000_000.0)]
    curves = {one["name"]: (one["ts"], one["args"]) for one in events if one["ph"] == "C"}
    assert curves == {
        "accepted": (2_000_000.0, {"accepted": 0.5}),
        "threshold": (2_000_000.0, {"threshold": 0.5}),
    }


def test_a_piece_of_a_run_that_goes_on_or_was_killed_can_be_read(folder: Path) -> None:
    timeline = _piece(folder)
    timeline.span("truth", 1.0, 2.0)
    timeline.write()
    timeline.span("wait", 2.0, 3.0)  # not written yet
    with (folder / "trace" / "rank-000000.spans").open("ab") as file:
        file.write(b"\x00" * 13)  # half a span

    assert [name for name, *_ in _spans(folder)] == ["truth"]
    timeline.close()


@given(st.integers(0, 200))
def test_cut_off_anywhere_a_piece_gives_whole_spans_or_says_that_it_is_none(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rank-000000.spans"
        timeline = Timeline(path, HEAD, MOST)
        for number in range(5):
            timeline.span("truth", number, number + 0.5, step=number)
        timeline.close()
        data = path.read_bytes()
        head_bytes = data.index(b"\n") + 1
        path.write_bytes(data[: len(data) - cut])

        if len(data) - cut < head_bytes - 1:
            with pytest.raises(CouplerError, match="it is no piece of a timeline"):
                read_piece(path)
        else:
            spans = read_piece(path).spans
            assert spans[:, 3].tolist() == list(range(len(spans)))


def test_after_so_many_spans_no_more_are_taken(folder: Path) -> None:
    timeline = _piece(folder, most=10)
    for number in range(100):
        timeline.end_step(number, float(number), number + 1.0)
    timeline.close()

    assert len(read_piece(folder / "trace" / "rank-000000.spans").spans) == 10


def test_memory_does_not_grow_with_the_run(folder: Path) -> None:
    timeline = _piece(folder, most=10**6)
    for number in range(20_000):
        timeline.end_step(number, 0.0, 1.0)
        assert len(timeline._buffer) < 4 * 4097

    timeline.close()
    assert len(read_piece(folder / "trace" / "rank-000000.spans").spans) == 20_000


def test_a_stopwatch_passes_on_what_it_times(folder: Path) -> None:
    watch, timeline = Stopwatch(), _piece(folder)
    watch.spans = timeline

    with watch.timing("halo"):
        np.ones(10).sum()
    timeline.close()

    (span,) = read_piece(folder / "trace" / "rank-000000.spans").spans
    assert HEAD.names[int(span[0])] == "halo"
    assert 0 < span[2] - span[1] == watch.seconds["halo"]


def test_every_activity_of_the_stopwatch_has_a_name_in_a_piece(folder: Path) -> None:
    timeline = _piece(folder)

    for activity in Stopwatch().seconds:
        timeline.span(activity, 0.0, 1.0)
    timeline.close()


def test_a_run_that_goes_on_from_before_begins_its_timeline_anew(folder: Path) -> None:
    _piece(folder).close()

    make_room(folder / "trace")
    _piece(folder).close()

    assert len(list(folder.glob("trace*/rank-000000.spans"))) == 2
    assert (folder / "trace-1").is_dir()


def test_a_run_without_a_timeline_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CouplerError, match=r"--set trace\.on=true"):
        write_trace(tmp_path)
