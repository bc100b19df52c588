"""A Prometheus endpoint: what is known of the run as text, over HTTP, on this machine only.

The text format is three kinds of lines, so it is written here and needs no package.
"""

import socketserver
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler

from coupler.errors import ConfigError
from coupler.progress import Progress
from coupler.records import Event
from coupler.summary import Summary
from coupler.tracking.tracker import Start, Tracker

_LOOPBACK = "127.0.0.1"
_CONTENT = "text/plain; version=0.0.4; charset=utf-8"
# A client that says nothing for so long is not answered [s].
_SILENCE_SECONDS = 5.0
# How often it looks whether it should stop [s].
_LOOK_SECONDS = 0.1


class PrometheusTracker(Tracker):
    """Answers ``http://127.0.0.1:PORT/metrics`` while the run goes on.

    Parameters
    ----------
    port : int
        Where; 0 takes a free one.
    """

    def __init__(self, port: int) -> None:
        self._wanted = port
        self._server: _Server | None = None
        self._decisions: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """Where it answers, once it has begun."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def begin(self, start: Start) -> None:
        """Start to answer.

        Raises
        ------
        ConfigError
            If the port is taken or not allowed.
        """
        self._start = start
        try:
            self._server = _Server((_LOOPBACK, self._wanted), _Handler)
        except OSError as error:
            raise ConfigError(
                f"output.prometheus = {self._wanted}: nobody can answer at that port ({error.strerror}), perhaps "
                "because another run does. Take another one, or 0 for no endpoint."
            ) from error
        self._server.text = exposition(start, None, self._decisions, self._kinds)
        serve = partial(self._server.serve_forever, _LOOK_SECONDS)
        threading.Thread(target=serve, name="coupler-prometheus", daemon=True).start()

    def steps(self, steps: Sequence[Progress]) -> None:
        """Show the last step; decisions are counted over all."""
        for progress in steps:
            self._decisions.update(progress.decisions)
        self._last = steps[-1]
        self._show()

    def event(self, event: Event) -> None:
        """Count an event."""
        self._kinds[event.kind.value] += 1

    def end(self, summary: Summary) -> None:
        """Do nothing: who asks now still sees the last step."""

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _show(self) -> None:
        if self._server is not None:
            self._server.text = exposition(self._start, self._last, self._decisions, self._kinds)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    text = ""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE_SECONDS

    def do_GET(self) -> None:
        """Answer what was asked for."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "only /metrics is here")
            return
        body = self.server.text.encode()
        self.send_response(200)
        self.send_header("Content-Type", _CONTENT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, its name in the library
        """Say nothing on the run's screen."""


def exposition(start: Start, last: Progress | None, decisions: Mapping[str, int], kinds: Mapping[str, int]) -> str:
    """Write the state of a run in Prometheus' text format.

    Parameters
    ----------
    start : Start
        Which run.
    last : Progress or None
        Its last step.
    decisions, kinds : mapping of str to int
        Elements by what became of them, events by kind, since the start.

    Collective: no.
    """
    return "".join(line + "\n" for line in _lines(start, last, decisions, kinds))


def _lines(
    start: Start, last: Progress | None, decisions: Mapping[str, int], kinds: Mapping[str, int]
) -> Iterator[str]:
    mode = start.case.controller.mode
    yield from _metric("run_info", "gauge", "which run it is", {_labels(kernel=start.name, mode=mode): 1})
    yield from _metric("steps_wanted", "gauge", "steps of the whole run", {"": start.case.run.steps})
    yield from _metric("loss_target", "gauge", "bound that was asked for", {"": start.case.controller.target})
    yield from _metric(
        "decisions_total",
        "counter",
        "elements by what became of them",
        {_labels(decision=name): n for name, n in decisions.items()},
    )
    yield from _metric(
        "events_total", "counter", "events by kind", {_labels(kind=name): n for name, n in kinds.items()}
    )
    for name, (attribute, meaning) in _OF_A_STEP.items() if last is not None else ():
        yield from _metric(name, "gauge", meaning, {"": getattr(last, attribute)})


_OF_A_STEP = {
    "step": ("step", "the last step"),
    "run_seconds": ("seconds", "since the set-up began"),
    "loss_bound": ("loss_bound", "certified mean capped error per decision"),
    "loss_estimate": ("loss_estimate", "estimated mean capped error per decision"),
    "exceedance_bound": ("exceedance_bound", "certified share of decisions outside tolerance"),
    "threshold": ("threshold", "threshold on the score"),
    "model_version": ("version", "the model that answers, 0 if none"),
}


def _metric(name: str, kind: str, meaning: str, values: Mapping[str, float]) -> Iterator[str]:
    if values:
        yield f"# HELP coupler_{name} {meaning}"
        yield f"# TYPE coupler_{name} {kind}"
    for labels, value in values.items():
        yield f"coupler_{name}{labels} {_number(value)}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(repr(value), repr(value))
