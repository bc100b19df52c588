"""The statement at the end of a run: the summary, from the account and every rank's seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from mpi4py import MPI

from coupler.clock import Stopwatch
from coupler.coupling.account import Account
from coupler.coupling.plan import SessionPlan
from coupler.coupling.route import Route
from coupler.records import NO_OPERATOR, Event, EventKind, count_restarts
from coupler.summary import FINISHED, ConservedSum, EventSummary, ModelSummary, Seconds, Summary, TwinWindow


@dataclass(frozen=True)
class Results:
    """What the summary takes from the loop and the session.

    Parameters
    ----------
    steps : int
        Steps that were made.
    models : sequence of ModelSummary
        Versions that took over.
    retrainings : int
        Training rounds that were started.
    events : sequence of Event
        What happened to models and switches.
    loop_seconds : float
        From the first step to the last on this rank, without what was run twice [s].
    lending_seconds : float
        Thereof with the truth of neighbours' elements [s].
    state_sha256 : str or None
        Hash of the final fields.
    mass : dict
        Conserved sums.
    twins : sequence of TwinWindow
        What was run twice.
    status : str
        How it ended, as in ``summary.json``.
    """

    steps: int
    models: Sequence[ModelSummary]
    retrainings: int
    events: Sequence[Event]
    loop_seconds: float
    lending_seconds: float = 0.0
    state_sha256: str | None = None
    mass: dict[str, ConservedSum] = field(default_factory=dict)
    twins: Sequence[TwinWindow] = ()
    status: str = FINISHED


def statement(
    plan: SessionPlan,
    comm: MPI.Intracomm,
    stopwatch: Stopwatch,
    account: Account,
    routes: Mapping[str, Route],
    results: Results,
) -> Summary:
    """Write the summary of a run, the same on every rank.

    Collective: yes.
    """
    case, names, lines = plan.case, tuple(routes), tuple(routes.values())
    costs = _costs(comm, stopwatch, lines, results)
    return Summary(
        status=results.status,
        steps=results.steps,
        ranks=comm.size,
        seed=case.run.seed,
        coin_seed=plan.coin_seed,
        mode=case.controller.mode,
        elements=account.total.elements,
        decisions=account.decisions(),
        certificate=account.certificate(),
        seconds=_slowest(comm, stopwatch),
        truth_seconds_per_element=costs.truth_per_element,
        surrogate_seconds_per_element=costs.surrogate_per_element,
        speedup_estimate=costs.speedup,
        models=list(results.models),
        retrainings=results.retrainings,
        server_restarts=count_restarts(results.events),
        rollbacks=sum(event.kind is EventKind.ROLLED_BACK for event in results.events),
        events=[
            EventSummary(
                operator="" if event.operator == NO_OPERATOR else names[event.operator],
                step=event.step,
                kind=event.kind.value,
                version=event.version,
                sentence=event.sentence,
            )
            for event in results.events
        ],
        state_sha256=results.state_sha256,
        mass=results.mass,
        reasons=account.reasons(),
        shared=account.shared(),
        wait_hidden_share=_hidden_share(comm, lines),
        twins=list(results.twins),
    )


def _hidden_share(comm: MPI.Intracomm, routes: Sequence[Route]) -> float:
    hidden = comm.allreduce(sum(one.hidden_seconds for one in routes))
    return _ratio(hidden, hidden + comm.allreduce(sum(one.waited_seconds for one in routes)))


def _slowest(comm: MPI.Intracomm, stopwatch: Stopwatch) -> Seconds:
    return Seconds(
        total=comm.allreduce(stopwatch.total, MPI.MAX),
        **{activity: comm.allreduce(seconds, MPI.MAX) for activity, seconds in stopwatch.seconds.items()},
    )


@dataclass(frozen=True)
class _Costs:
    truth_per_element: float
    surrogate_per_element: float
    speedup: float


def _costs(comm: MPI.Intracomm, stopwatch: Stopwatch, routes: Sequence[Route], results: Results) -> _Costs:
    """Measure what truth and answers cost, and estimate how long physics alone had taken on the slowest rank.

    The truth's cost is that of typical elements; those that fell back are the difficult ones. Waiting for a training,
    as deterministic runs do, is no part of physics, nor is neighbours' truth; everything else around the operators is
    taken to cost the same.
    """
    mine = np.array(
        [
            [one.truth.typical_seconds, one.truth.typical_elements, one.asked_seconds, one.asked_elements]
            for one in routes
        ]
    )
    everyone = np.zeros_like(mine)
    comm.Allreduce(mine, everyone)
    per_element = [_ratio(seconds, elements) for seconds, elements, _, _ in everyone.tolist()]
    total = everyone.sum(axis=0).tolist()
    asked = any(one.asked_elements for one in routes)
    loop = results.loop_seconds
    physics = loop - stopwatch.seconds["learn"] - results.lending_seconds
    if comm.allreduce(asked, MPI.LOR):
        truth = sum(one.elements * cost for one, cost in zip(routes, per_element, strict=True))
        physics += truth - sum(one.truth.seconds + one.asked_seconds for one in routes)
    return _Costs(
        truth_per_element=_ratio(total[0], total[1]),
        surrogate_per_element=_ratio(total[2], total[3]),
        speedup=_ratio(comm.allreduce(physics, MPI.MAX), comm.allreduce(loop, MPI.MAX)),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
