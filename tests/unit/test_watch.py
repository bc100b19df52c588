"""Watching a run: what is seen from its folder alone, and what is said when nothing happens."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from coupler.cli import app
from coupler.config import read_case
from coupler.errors import CouplerError
from coupler.ledger import EVENT, RECORD, LedgerFile
from coupler.progress import MetricsFile, Progress
from coupler.summary import CertificateSummary, Decisions, Seconds, Summary
from coupler.watch import Sight, Watch, figures, panel, stillness, watch

STEPS = 100


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _step(step: int, seconds: float | None = None) -> Progress:
    decisions = {"accepted": 60, "fallback": 30, "audited": 10, "vetoed": 0, "timeout": 0, "disabled": 0}
    return Progress(step, 100, decisions, 0.0123, 0.01, 0.02, 0.5, 3, 2.0 * step if seconds is None else seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = read_case(None, [f"run.steps={STEPS}", "kernel.name=coupler.kernels.bz:BZ"])
    (tmp_path / "case.toml").write_text(case.to_toml(), encoding="utf-8")
    return tmp_path


@pytest.fixture
def metrics(folder: Path) -> Iterator[MetricsFile]:
    file = MetricsFile(folder / "metrics.jsonl")
    yield file
    file.close()


def _end(folder: Path) -> None:
    Summary(
        status="finished",
        steps=STEPS,
        ranks=1,
        seed=0,
        coin_seed=0,
        mode="certified",
        elements=0,
        decisions=Decisions(),
        certificate=CertificateSummary(
            delta=0.05,
            cap=5.0,
            target=0.02,
            loss_bound_per_decision=0.0,
            loss_estimate_per_decision=0.0,
            exceedance_bound=0.0,
            audits=0,
            loss_bound_per_accepted=0.0,
            exceedance_estimate=0.0,
            sentence="Nothing was lost.",
        ),
        seconds=Seconds(),
        truth_seconds_per_element=0.0,
        surrogate_seconds_per_element=0.0,
        speedup_estimate=1.0,
    ).write(folder / "summary.json")


def test_before_the_first_step_there_is_nothing_but_the_case(folder: Path) -> None:
    sight = Watch(folder).look()

    assert (sight.step, sight.rate, sight.seconds_left, sight.summary) == (0, 0.0, None, None)
    assert figures(sight) == [("state", "no step has been made yet")]


def test_new_steps_are_seen_at_the_next_look_and_half_a_line_at_the_one_after(
    folder: Path, metrics: MetricsFile
) -> None:
    seen = Watch(folder)
    metrics.extend([_step(1), _step(2)])
    line = (json.dumps(vars(_step(3))) + "\n").encode()

    steps = [seen.look().step]
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(line[:20])
    steps.append(seen.look().step)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(line[20:])
    steps.append(seen.look().step)

    assert steps == [2, 2, 3]


def test_the_rate_is_that_of_the_last_half_minute_by_the_clock_of_the_run(folder: Path, metrics: MetricsFile) -> None:
    # A step a second up to step 20, which takes ten minutes, then two steps a second.
    metrics.extend([_step(step, float(step)) for step in range(1, 20)])
    metrics.extend([_step(step, 600.0 + 0.5 * (step - 20)) for step in range(20, 91)])

    sight = Watch(folder).look()

    assert sight.rate == pytest.approx(2.0)
    assert sight.seconds_left == pytest.approx(5.0)


def test_one_step_alone_has_no_rate_and_two_at_the_same_time_neither(folder: Path, metrics: MetricsFile) -> None:
    metrics.append(_step(1, 1.0))
    seen = Watch(folder)

    alone = seen.look()
    metrics.append(_step(2, 1.0))
    together = seen.look()

    assert (alone.rate, alone.seconds_left) == (0.0, None)
    assert (together.rate, together.seconds_left) == (0.0, None)


def test_a_run_that_went_back_to_a_checkpoint_is_followed_from_there(folder: Path, metrics: MetricsFile) -> None:
    metrics.extend([_step(1), _step(2), _step(3)])
    seen = Watch(folder)
    seen.look()

    first = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "metrics.jsonl").write_bytes(first)
    sight = seen.look()

    assert sight.step == 1


def test_silence_is_counted_from_the_last_thing_that_was_new(folder: Path, metrics: MetricsFile) -> None:
    clock = Clock()
    seen = Watch(folder, clock)
    metrics.append(_step(1))
    seen.look()

    clock.now = 75.0
    still = seen.look()
    metrics.append(_step(2))
    moving = seen.look()

    assert still.still == 75.0
    assert "Nothing new for 75 s, the last step is 1" in stillness(still)
    assert "Ctrl-C ends the watch, not the run" in stillness(still)
    assert moving.still == 0.0


def test_events_are_read_from_the_ledger(folder: Path, metrics: MetricsFile) -> None:
    ledger = LedgerFile(folder / "ledger.h5", ["reaction"])
    events = np.zeros(1, EVENT)
    events["step"], events["kind"], events["sentence"] = 12, b"promoted", b"version 1 is the first"
    ledger.append(np.zeros(1, RECORD), {"events": events})

    assert Watch(folder).look().events == ("step 12  promoted: version 1 is the first",)


def test_a_watch_ends_with_the_run_and_says_its_certificate(folder: Path, metrics: MetricsFile) -> None:
    metrics.append(_step(STEPS))
    _end(folder)
    said = io.StringIO()

    watch(folder, Console(file=said, width=400))

    assert "step   100/100" in said.getvalue()
    assert "The run has ended: finished, 100 steps. Nothing was lost." in said.getvalue()


def test_one_look_is_enough_where_nobody_wants_to_wait(folder: Path, metrics: MetricsFile) -> None:
    metrics.append(_step(7))
    said = io.StringIO()

    watch(folder, Console(file=said, width=400), once=True, still=-1.0)

    assert "step     7/100" in said.getvalue()
    assert "Nothing new for 0 s" in said.getvalue()


def test_a_terminal_shows_bar_figures_events_and_the_silence(folder: Path) -> None:
    said = io.StringIO()
    sight = Sight(read_case(folder / "case.toml"), (_step(1), _step(2)), ("step 1  promoted: [b]x[/b]",), still=99.0)

    Console(file=said, width=200).print(panel(sight))

    for part in (
        "BZ, certified   step 2 of 100",
        "60.0%",
        "0.0123 per decision",
        "v3",
        "[b]x[/b]",
        "Nothing new for 99 s",
    ):
        assert part in said.getvalue()


def test_a_watched_physics_run_has_no_shares(folder: Path) -> None:
    sight = Sight(read_case(folder / "case.toml", ["controller.mode=physics"]), (_step(1), _step(2)))

    assert [name for name, _ in figures(sight)] == ["steps per second", "left"]


def test_a_bound_that_nobody_knows_yet_is_shown_all_the_same(folder: Path) -> None:
    sight = Sight(read_case(folder / "case.toml"), (replace(_step(1), loss_bound=math.inf, version=0),))

    assert ("model", "none yet") in figures(sight)


def test_what_is_no_run_or_no_line_of_one_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (folder / "metrics.jsonl").write_text('{"stop": 1}\n')

    with pytest.raises(CouplerError, match="is not the folder of a run"):
        Watch(tmp_path / "empty")
    with pytest.raises(CouplerError, match=r"metrics\.jsonl holds a line that is no step"):
        Watch(folder).look()


def test_the_command_shows_a_run_that_has_ended(folder: Path, metrics: MetricsFile) -> None:
    metrics.append(_step(STEPS))
    _end(folder)

    done = CliRunner().invoke(app, ["watch", str(folder)])

    assert done.exit_code == 0
    assert "The run has ended: finished" in done.stdout.replace("\n", " ")


def test_servers_that_were_started_again_are_shown_once_there_are_any(folder: Path) -> None:
    case, shown = read_case(folder / "case.toml"), ("servers started again", "2")

    assert shown not in figures(Sight(case, (_step(1),)))
    assert shown in figures(Sight(case, (replace(_step(1), server_restarts=2),)))
