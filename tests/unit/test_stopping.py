"""Being asked to stop: a signal asks once and for all; only a second order to end, seconds later, ends at once."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from coupler.stopping import RESUME_ME, SIGNALS, StopSignals


class Ended(Exception):
    """What the handler of before does."""


@pytest.fixture
def before() -> Iterator[None]:
    """Handlers as the command line has them: they end the process by unwinding."""

    def end(number: int, frame: object) -> None:
        raise Ended

    kept = {number: signal.signal(number, end) for number in SIGNALS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_and_the_handlers_of_before_come_back(number: int) -> None:
    asked: list[int] = []

    with StopSignals(lambda: asked.append(number)):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # as launchers do

    assert asked == [number, number]
    with pytest.raises(Ended):
        os.kill(os.getpid(), number)


@pytest.mark.usefixtures("before")
def test_an_order_to_end_that_is_repeated_seconds_later_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    with StopSignals(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] = 6.0
        os.kill(os.getpid(), signal.SIGUSR1)  # is no order to end
        with pytest.raises(Ended):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_exit_code_is_none_of_those_that_say_something_else() -> None:
    assert RESUME_ME == 75
    assert RESUME_ME not in (0, 1, 2)
    assert RESUME_ME < 128
