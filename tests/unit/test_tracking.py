"""Trackers: found by name, told in a thread of their own, and no reason for a run to end."""

import logging
import math
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.config import read_case
from coupler.errors import ConfigError, PluginError
from coupler.progress import Progress
from coupler.records import Event, EventKind
from coupler.summary import Summary
from coupler.tracking import Start, Teller, Tracker, open_trackers
from coupler.tracking.prometheus import PrometheusTracker, exposition
from coupler.tracking.scalars import scalars

PROGRESS = Progress(5, 10, {"accepted": 6, "fallback": 4}, 0.25, 0.1, 0.5, 1.5, 2, 7.5)
EVENT = Event(6, 0, EventKind.PROMOTED, 2, "version 2 is the first")
SUMMARY = cast("Summary", None)  # nobody here looks at it
SECONDS = 10.0
CASE = read_case(None)

MINE = """
from coupler.tracking import Tracker

class Mine(Tracker):
    def __init__(self, colour: str = "red") -> None:
        self.colour = colour
"""


class Remembering(Tracker):
    """Remembers what it was told."""

    def __init__(self, failing: str = "") -> None:
        self.told: list[str] = []
        self._failing = failing

    def begin(self, start: Start) -> None:
        self._tell(f"begin {start.name}")

    def steps(self, steps: Sequence[Progress]) -> None:
        self._tell(f"steps {[step.step for step in steps]}")

    def event(self, event: Event) -> None:
        self._tell(event.kind.value)

    def end(self, summary: Summary) -> None:
        self._tell("end")

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if self._failing and what.startswith(self._failing):
            raise OSError("no room left")


@pytest.fixture
def begun(tmp_path: Path) -> Start:
    return Start(tmp_path, "BZ", read_case(None), ("reaction",))


def test_a_tracker_is_told_everything_in_order(begun: Start) -> None:
    tracker = Remembering()

    teller = Teller(tracker, begun)
    teller.steps([PROGRESS, replace(PROGRESS, step=6)])
    teller.event(EVENT)
    teller.end(SUMMARY)
    teller.close()

    assert tracker.told == ["begin BZ", "steps [5, 6]", "promoted", "end", "close"]


def test_a_tracker_that_fails_is_closed_and_told_no_more(begun: Start, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Remembering("steps")

    with caplog.at_level(logging.WARNING, "coupler"):
        teller = Teller(tracker, begun)
        teller.steps([PROGRESS])
        teller.close()
        teller.event(EVENT)

    assert tracker.told == ["begin BZ", "steps [5]", "close"]
    assert "the tracker failed and is told no more: OSError: no room left" in caplog.text


def test_a_tracker_that_cannot_be_closed_ends_nothing(begun: Start, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "coupler"):
        Teller(Remembering("close"), begun).close()

    assert "could not be closed" in caplog.text


def test_a_slow_tracker_misses_steps_and_holds_nobody_up(begun: Start) -> None:
    go_on = threading.Event()

    class Slow(Remembering):
        def steps(self, steps: Sequence[Progress]) -> None:
            go_on.wait(SECONDS)
            super().steps(steps)

    tracker = Slow()
    teller = Teller(tracker, begun)
    for step in range(1000):
        teller.steps([replace(PROGRESS, step=step)])
    go_on.set()
    teller.close()

    assert 2 <= len(tracker.told) < 1000
    assert tracker.told[-1] == "close"


def test_a_tracker_that_cannot_begin_is_said_before_the_run(begun: Start) -> None:
    with pytest.raises(OSError, match="no room left"):
        Teller(Remembering("begin"), begun)


def test_no_tracker_is_the_default() -> None:
    assert open_trackers(read_case(None)) == []


def test_a_tracker_of_the_users_own_comes_with_its_parameters(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "case.toml").write_text('[output]\ntracker = "mine.py:Mine"\ntracker_params = { colour = "blue" }\n')

    (tracker,) = open_trackers(read_case(tmp_path / "case.toml"))

    assert vars(tracker) == {"colour": "blue"}


@pytest.mark.parametrize(
    ("setting", "error", "sentence"),
    [
        ("tensorbord", ConfigError, 'is no tracker. Did you mean "tensorboard"?'),
        ("coupler.kernels.bz:BZ", PluginError, "is not a Tracker"),
    ],
)
def test_what_is_no_tracker_is_named(setting: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        open_trackers(read_case(None, [f"output.tracker={setting}"]))

    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_stock_tracker_whose_package_is_missing_says_what_to_type(name: str, begun: Start) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed here, so nothing is missing")
    (tracker,) = open_trackers(read_case(None, [f"output.tracker={name}"]))

    with pytest.raises(ConfigError, match=rf"pip install 'coupler\[{name}\]'"):
        tracker.begin(begun)


@pytest.fixture
def endpoint(begun: Start) -> Iterator[PrometheusTracker]:
    tracker = PrometheusTracker(0)
    tracker.begin(begun)
    yield tracker
    tracker.close()


def _get(tracker: PrometheusTracker, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{tracker.port}{path}", timeout=SECONDS) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def test_the_endpoint_counts_decisions_over_all_steps_and_shows_the_last(endpoint: PrometheusTracker) -> None:
    before = _get(endpoint)

    endpoint.steps([PROGRESS, replace(PROGRESS, step=6)])
    endpoint.event(EVENT)
    endpoint.steps([replace(PROGRESS, step=7)])

    assert "coupler_step " not in before
    lines = _get(endpoint).splitlines()
    assert 'coupler_decisions_total{decision="accepted"} 18' in lines
    assert 'coupler_events_total{kind="promoted"} 1' in lines
    assert "coupler_step 7" in lines
    assert "coupler_loss_bound 0.25" in lines


def test_the_endpoint_has_one_page_and_listens_on_loopback_only(endpoint: PrometheusTracker) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(endpoint, "/")

    assert endpoint._server is not None
    assert endpoint._server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_named_and_one_that_was_left_is_free(endpoint: PrometheusTracker, begun: Start) -> None:
    port = endpoint.port

    with pytest.raises(ConfigError, match=rf"output\.prometheus = {port}: nobody can answer at that port"):
        PrometheusTracker(port).begin(begun)
    endpoint.close()
    again = PrometheusTracker(port)
    again.begin(begun)
    again.close()


@given(st.text(max_size=20), st.floats())
def test_every_line_of_the_exposition_is_a_comment_or_a_name_with_a_number(name: str, value: float) -> None:
    start = Start(Path(), name, CASE, ())

    text = exposition(start, replace(PROGRESS, loss_bound=value), {"accepted": 1}, {})

    for line in text.removesuffix("\n").split("\n"):
        if not line.startswith("# "):
            number = line.rpartition(" ")[2]
            assert line.startswith("coupler_")
            float(number.replace("Inf", "inf").replace("NaN", "nan"))


def test_only_finite_numbers_are_curves() -> None:
    named = scalars(replace(PROGRESS, loss_bound=math.inf, threshold=math.nan))

    assert "loss/bound" not in named and "gate/threshold" not in named
    assert named["share/accepted"] == 0.6
