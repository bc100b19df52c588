"""Progress: a line for people every few seconds, a line of JSON for programs every step."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from coupler.progress import MetricsFile, Progress, ProgressLines, progress_line

DECISIONS = {"accepted": 60, "fallback": 20, "audited": 10, "vetoed": 5, "timeout": 3, "disabled": 2}
PROGRESS = Progress(
    step=50,
    elements=100,
    decisions=DECISIONS,
    loss_bound=0.0123,
    loss_estimate=0.01,
    exceedance_bound=0.02,
    threshold=0.5,
    version=3,
    seconds=7.5,
)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("coupler.progress.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def _at(step: int) -> Progress:
    return replace(PROGRESS, step=step)


def test_a_line_says_how_far_how_fast_and_what_became_of_the_elements() -> None:
    line = progress_line(PROGRESS, steps=200, rate=12.34)

    assert line == (
        "step    50/200 █████░░░░░░░░░░░░░░░   12.3 steps/s  accepted 60.0%  truth 40.0%  loss ≤ 0.0123  model v3"
    )


@pytest.mark.parametrize(("step", "steps", "full"), [(0, 10, 0), (10, 10, 20), (1, 3, 6), (0, 0, 0)])
def test_the_bar_is_as_full_as_the_run(step: int, steps: int, full: int) -> None:
    line = progress_line(_at(step), steps, rate=1.0)

    assert (line.count("█"), line.count("░")) == (full, 20 - full)


def test_a_step_without_elements_accepts_nothing() -> None:
    nothing = replace(PROGRESS, elements=0, decisions=dict.fromkeys(DECISIONS, 0), version=0)

    assert nothing.share("accepted") == 0.0
    assert progress_line(nothing, 10, 1.0).endswith("accepted  0.0%  truth 100.0%  loss ≤ 0.0123  no model yet")


def test_lines_come_every_two_seconds_and_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    lines = ProgressLines(steps=100, stream=stream)

    for step, passed in ((1, 0.5), (2, 0.5), (42, 1.0), (43, 1.9), (100, 0.05)):
        clock.now += passed
        lines.update(_at(step))

    shown = stream.getvalue().splitlines()
    assert [line[:14] for line in shown] == ["step    42/100", "step   100/100"]
    assert "   21.0 steps/s" in shown[0]
    assert "   29.7 steps/s" in shown[1]  # 58 steps in 1.95 s


@pytest.mark.usefixtures("clock")
def test_a_step_that_took_no_time_at_all_is_no_error() -> None:
    stream = io.StringIO()

    ProgressLines(steps=1, stream=stream).update(_at(1))

    assert stream.getvalue().startswith("step     1/1 ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_the_bar_does_not_end_the_run(encoding: str) -> None:
    shown = io.BytesIO()
    stream = io.TextIOWrapper(shown, encoding=encoding)

    ProgressLines(steps=50, stream=stream).update(_at(50))

    assert b"accepted 60.0%" in shown.getvalue()


def test_metrics_are_a_line_of_json_per_step_and_readable_meanwhile(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")

    for step in (1, 2, 3):
        metrics.append(_at(step))
        read = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in read] == list(range(1, step + 1))

    assert read[0] == asdict(_at(1))
    metrics.close()


def test_many_steps_are_written_at_once_and_none_is_an_empty_file(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.extend([])
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""

    metrics.extend(map(_at, (1, 2, 3)))

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(_at(step)) for step in (1, 2, 3)]
    metrics.close()


def test_metrics_are_never_overwritten(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.jsonl").close()

    with pytest.raises(FileExistsError):
        MetricsFile(tmp_path / "metrics.jsonl")
