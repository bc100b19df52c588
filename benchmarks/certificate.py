"""The certificate put to the test: coins redrawn ten thousand times on streams whose true loss is known.

A case is a stream (``benchmarks/harness/streams.py``) or a tape of a real operator with a model that was trained on its
first steps (``benchmarks/harness/tapes.py``); in cases that end in ``/controlled`` the threshold follows the audits as
it does in a run, and in the adversary's cases the surrogate does. The systems:

- ``certificate``: the bound of a run, number for number, with honest coins;
- ``peeking-interval``: the one-sided normal interval at the same level, looked at after every step;
- ``biased-coin``, ``biased-coin-by-loss``: the certificate with coins that leave out 70 % of the audits of high scores
  (above the median of those with a loss), or of large losses (above their mean);
- ``importance-audits``: the certificate with two rates, the higher one for high scores, at as many audits.

The interval and the biased coins must fail, or this harness could not tell a wrong bound from a right one. That they do
shows in few redraws: the biased coins get a tenth of them.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import streams
from benchmarks.harness.timing import Row
from coupler.controller import Certificate, Controller
from coupler.redraw import (
    Crossings,
    ErrorStream,
    Following,
    LossStream,
    Moments,
    Redraws,
    Spread,
    Statement,
    follow,
    redraw,
)

DELTAS = (0.05, 0.2)
AUDIT_RATE, CAP = 0.02, 2.0
# Scores below it are accepted where the gate does not move: a tape's surrogate is more careful with its scores.
THRESHOLD, TAPE_THRESHOLD = 0.3, 0.5
MARKS = {"1e4": 1e4, "1e5": 1e5, "1e6": 1e6}
# Importance audits: rate of high scores over that of low ones, and the share of elements that count as high.
RATIO, HIGH = 2.0, 0.2
_CAUGHT = 0.3
# What the picture shows along the run, and at how many moments.
_DRAWN, _CURVE = ("certificate", "peeking-interval"), 60
_LONGEST_SECONDS = 3600.0


@dataclass(frozen=True)
class Effort:
    """How much to do.

    Parameters
    ----------
    redraws : int
        Of every stream.
    steps, decisions : int
        Steps of a drawn stream, and elements in each.
    followed_steps, followed_decisions : int
        The same where the stream follows its coins, redraw by redraw.
    tapes : bool
        Whether real operators are recorded, too.
    """

    redraws: int = 10_000
    steps: int = 1000
    decisions: int = 1000
    followed_steps: int = 50
    followed_decisions: int = 20_000
    tapes: bool = True


def run(effort: Effort | None = None) -> list[Row]:
    """Redraw all streams.

    Returns
    -------
    list of mapping
        ``case``, ``system``, ``n`` (redraws), ``delta``, ``redraws``; ``crossed_share`` of the redraws in which the
        bound on the loss was ever below the true loss, per decision and so per accepted decision, ``crossed_margin``
        (half of its 99 % interval), ``exceedance_crossed_share``; ``bound_over_loss``, median at the end, with its 10
        and 90 % quantiles, and after 1e4, 1e5 and 1e6 decisions where there was a loss; ``true_loss`` per decision.
    """
    asked = Effort() if effort is None else effort
    found: list[Row] = []
    recordings = _recordings() if asked.tapes else []
    drawn = [
        streams.record(scenario, steps=asked.steps, decisions=asked.decisions, seed=20240611)
        for scenario in streams.SCENARIOS
    ]
    for stream in [*drawn, *recordings]:
        threshold = TAPE_THRESHOLD if stream in recordings else THRESHOLD
        found += settled_rows(stream, threshold, asked.redraws)
    return found + _followed(asked, recordings)


def _recordings() -> list[ErrorStream]:
    # Imported here, as that starts MPI: the processes that follow coins need neither it nor torch.
    from benchmarks.harness import tapes

    return [tapes.record(tape) for tape in tapes.TAPES]


def settled_rows(stream: ErrorStream, threshold: float, redraws: int) -> list[Row]:
    """Redraw one stream behind a fixed gate, and what must fail on it."""
    settled = stream.settled(threshold, cap=CAP, audit_rate=AUDIT_RATE)
    certificate = Certificate(DELTAS[0], CAP, AUDIT_RATE)
    moments = Moments(tuple(sorted({*_marks(settled).values(), *Moments.spread(settled, _CURVE).steps})))
    honest = redraw(settled, certificate, redraws, deltas=DELTAS, moments=moments)
    rows = [*_rows(settled, "certificate", honest), *_rows(settled, "peeking-interval", honest)]
    for system, large in (("biased-coin", settled.score), ("biased-coin-by-loss", settled.loss)):
        limit = np.median(large) if system == "biased-coin" else large.mean()
        caught = np.where(large >= limit, _CAUGHT, 1.0) if large.size else None
        biased = redraw(settled, certificate, max(redraws // 10, 1), deltas=DELTAS, moments=moments, caught=caught)
        rows += _rows(settled, system, biased)
    important, least = importance(stream, threshold)
    careful = redraw(important, Certificate(DELTAS[0], CAP, least), redraws, deltas=DELTAS, moments=moments)
    return [*rows, *_rows(important, "importance-audits", careful)]


def importance(
    stream: ErrorStream, threshold: float, *, rate: float = AUDIT_RATE, ratio: float = RATIO
) -> tuple[LossStream, float]:
    """Settle a stream with two audit rates, the higher one for the highest accepted scores.

    Parameters
    ----------
    stream : ErrorStream
        What to audit.
    threshold : float
        Of the gate.
    rate : float
        Mean audit rate of the accepted elements.
    ratio : float
        Higher rate over lower rate.

    Returns
    -------
    stream, least : LossStream, float
        And the lower rate, which the certificate must be told.
    """
    accepted = stream.score[stream.score < threshold]
    high = stream.score > np.quantile(accepted, 1 - HIGH) if accepted.size else np.zeros(stream.score.size, np.bool_)
    share = float(high[stream.score < threshold].mean()) if accepted.size else 0.0
    least = rate / (1 + (ratio - 1) * share)
    return stream.settled(threshold, cap=CAP, audit_rate=np.where(high, ratio * least, least)), least


def _rows(settled: LossStream, system: str, found: Redraws) -> Iterator[Row]:
    peeking = system == "peeking-interval"
    for number, delta in enumerate(DELTAS):
        count = found.peekings if peeking else found.crossings
        values = (found.limit if peeking else found.bound)[:, number, Statement.LOSS]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = values / found.true[Statement.LOSS]
        marks = {name: int(np.searchsorted(found.decided, MARKS[name])) for name in _marks(settled)}
        facts = {
            f"bound_over_loss_{name}": Spread.of(ratios[:, place]).median
            for name, place in marks.items()
            if found.true[Statement.LOSS, place] > 0
        }
        yield _row(
            settled.name, system, delta, count(delta), count(delta, Statement.EXCEEDANCE), Spread.of(ratios[:, -1]),
            **facts, true_loss=settled.true_loss, audits=settled.audits_expected,
            **(_curves(found, ratios) if delta == DELTAS[0] and system in _DRAWN else {}),
        )  # fmt: skip


def _row(
    case: str,
    system: str,
    delta: float,
    crossed: Crossings,
    exceedance: Crossings,
    tightness: Spread,
    **facts: str | float,
) -> Row:
    row: Row = {
        "case": case,
        "system": system,
        "n": crossed.redraws,
        "delta": delta,
        "redraws": crossed.redraws,
        "crossed_share": crossed.share,
        "crossed_margin": crossed.margin,
        "exceedance_crossed_share": exceedance.share,
        "bound_over_loss": tightness.median,
        "bound_over_loss_p10": tightness.low,
        "bound_over_loss_p90": tightness.high,
        **facts,
    }
    return {key: value for key, value in row.items() if not isinstance(value, float) or np.isfinite(value)}


def _marks(settled: LossStream) -> dict[str, int]:
    found = {name: Moments.at(settled, [count]).steps for name, count in MARKS.items()}
    return {name: steps[0] for name, steps in found.items() if steps}


def _curves(found: Redraws, ratios: NDArray[np.float64]) -> dict[str, str]:
    """Give bounds over the true loss along the run, for the picture: quantiles, and the redraw longest below."""
    some = np.flatnonzero(found.true[Statement.LOSS] > 0)
    low, middle, high = np.quantile(ratios[:, some], (0.005, 0.5, 0.995), axis=0)
    one = ratios[(ratios[:, some] < 1).sum(axis=1).argmax(), some]
    curves = {"decisions": found.decided[some], "low": low, "middle": middle, "high": high, "single": one}
    return {f"{name}_curve": " ".join(f"{value:.4g}" for value in values) for name, values in curves.items()}


@dataclass(frozen=True)
class _Task:
    """One stream that follows its coins, for a process of its own.

    Parameters
    ----------
    case : str
        Of the row.
    adversary : Adversary or None
        Who chooses what the surrogate answers.
    stream : ErrorStream or None
        What is recorded, where nobody does.
    controller : Controller
        Mode and delta.
    steps, decisions, redraws : int
        As in :class:`Effort`.
    """

    case: str
    adversary: streams.Adversary | None
    stream: ErrorStream | None
    controller: Controller
    steps: int
    decisions: int
    redraws: int

    def follow(self) -> Following:
        if self.adversary is not None:
            offer, choose = self.adversary.offer(self.steps, self.decisions, 20240611), self.adversary.choose
        else:
            assert self.stream is not None
            offer, choose = streams.recorded(self.stream), None
        return follow(
            offer,
            choose,
            self.controller,
            steps=self.steps,
            redraws=self.redraws,
            before=self.decisions * self.steps // 10,
        )


def _followed(effort: Effort, recordings: Sequence[ErrorStream]) -> list[Row]:
    tasks = [task for delta in DELTAS for task in _tasks(effort, recordings, delta)]
    # Controllers are Python, one for each redraw: processes, not threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        found = list(pool.map(_Task.follow, tasks, timeout=_LONGEST_SECONDS))
    rows = [row for task, runs in zip(tasks, found, strict=True) for row in _followed_rows(task, runs)]
    return sorted(rows, key=lambda row: str(row["case"]))


def _tasks(effort: Effort, recordings: Sequence[ErrorStream], delta: float) -> Iterator[_Task]:
    size = (effort.followed_steps, effort.followed_decisions, effort.redraws)
    certified = Controller(delta=delta, cap=CAP, audit_rate=AUDIT_RATE)
    surrogate = Controller(mode="surrogate", delta=delta, cap=CAP, audit_rate=AUDIT_RATE)
    yield _Task(streams.LUCKY.name, streams.LUCKY, None, surrogate, *size)
    yield _Task(f"{streams.WRONG_WHEN_USED.name}/controlled", streams.WRONG_WHEN_USED, None, certified, *size)
    drawn = streams.record(streams.overconfident, steps=size[0], decisions=size[1], seed=20240611)
    for stream in [drawn, *recordings[:1]]:
        decisions = int(stream.first[1]) if stream.steps else 0
        steps = min(stream.steps, size[0])
        yield _Task(f"{stream.name}/controlled", None, stream, certified, steps, decisions, effort.redraws)


def _followed_rows(task: _Task, runs: Following) -> Iterator[Row]:
    delta, true = task.controller.delta, float(runs.true[:, Statement.LOSS].mean() / runs.decisions)
    honest, exceedance = runs.crossings(), runs.crossings(Statement.EXCEEDANCE)
    yield _row(task.case, "certificate", delta, honest, exceedance, runs.tightness(), true_loss=true)
    unknown = Spread.of(np.empty(0))
    exceedance = runs.peekings(Statement.EXCEEDANCE)
    yield _row(task.case, "peeking-interval", delta, runs.peekings(), exceedance, unknown, true_loss=true)


def main() -> None:
    """Run, and print a line per system."""
    for row in run():
        print(
            f"{row['case']:28} {row['system']:20} {row['delta']:5} crossed {100 * float(row['crossed_share']):6.2f} % "
            f"bound/loss {float(row.get('bound_over_loss', np.nan)):.3f}"
        )


if __name__ == "__main__":
    main()
