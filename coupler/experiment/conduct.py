"""Conducting one configuration: on a tape in this process, or as a whole run under mpirun."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from coupler.case import Case
from coupler.errors import ConfigError, CouplerError
from coupler.experiment.outcome import Outcome, read_outcome
from coupler.experiment.plan import Configuration, Plan
from coupler.experiment.prediction import TrainingCost, physics_cost, predicted_speedup
from coupler.experiment.processes import Command, run_with_me, surroundings
from coupler.learning.rounds import published_seconds
from coupler.mpirun import mpirun_command
from coupler.report import compare
from coupler.summary import Summary, read_summary
from coupler.tape import Tape


def conduct(plan: Plan, configuration: Configuration, folder: Path) -> Outcome:
    """Do one configuration, unless it has been done; what an earlier attempt left unfinished is done anew.

    Parameters
    ----------
    plan : Plan
        Of the experiment.
    configuration : Configuration
        Which.
    folder : Path
        Its own: ``outcome.json`` once it is finished, ``run`` with all a run writes.

    Returns
    -------
    Outcome
        With ``failed`` and a sentence, if the configuration itself is at fault.

    Raises
    ------
    CouplerError
        If an outcome is there and cannot be read.

    Collective: no.
    """
    path = folder / "outcome.json"
    known = read_outcome(path)
    if known is not None and known.status == "finished":
        return known
    shutil.rmtree(folder / "run", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.toml").write_text(configuration.case.to_toml(), encoding="utf-8")
    outcome = _timed(plan, configuration, folder, _taped if plan.file.tape else _whole)
    outcome.write(path)
    return outcome


_Way = Callable[[Plan, Configuration, Path], dict[str, object]]


def _timed(plan: Plan, configuration: Configuration, folder: Path, way: _Way) -> Outcome:
    start, case = time.monotonic(), configuration.case
    known: dict[str, object] = {
        "name": configuration.name,
        "settings": dict(configuration.settings),
        "target": case.controller.target,
        "seed": case.run.seed,
        "case_sha256": configuration.sha256,
    }
    try:
        found = way(plan, configuration, folder)
    except CouplerError as error:
        return Outcome.model_validate(
            known | {"status": "failed", "sentence": str(error), "seconds": time.monotonic() - start}
        )
    return Outcome.model_validate(known | found | {"status": "finished", "seconds": time.monotonic() - start})


def _taped(plan: Plan, configuration: Configuration, folder: Path) -> dict[str, object]:
    from coupler.experiment.taped import run_on_tape  # brings MPI along, which whoever only starts processes must not

    place = Path(plan.file.tape or "")
    tape, physics = Tape(place, plan.file.operator), physics_cost(place)
    taped = run_on_tape(tape, case_for_tape(configuration.case), folder / "run")
    training = TrainingCost(published_seconds(folder / "run" / "models"), configuration.case.learning.lag)
    cores = len(os.sched_getaffinity(0))
    speedup = predicted_speedup(physics, taped.summary, training, cores)
    return _figures(taped.summary, training.rounds) | {"speedup": speedup, "true_loss": taped.true_loss}


def _whole(plan: Plan, configuration: Configuration, folder: Path) -> dict[str, object]:
    arguments = ["run", str(folder / "case.toml"), "--out", str(folder / "run")]
    command = mpirun_command(plan.file.ranks, arguments, why="Whole runs are started with")
    try:
        code = run_with_me(Command(command, surroundings()), folder / "said.txt", plan.file.limit)
    except subprocess.TimeoutExpired:
        raise CouplerError(f"It did not end within limit = {plan.file.limit:g} s.") from None
    if code:
        raise CouplerError(f"It ended with exit code {code}: {_last_line(folder / 'said.txt')}")
    summary = read_summary(folder / "run" / "summary.json")
    found = _figures(summary, published_seconds(folder / "run" / "models"))
    found |= {"speedup": summary.speedup_estimate, "true_loss": summary.certificate.loss_estimate_per_decision}
    if plan.file.reference is not None:
        found["field_difference"] = compare(folder / "run", Path(plan.file.reference)).worst_difference
    return found


def _figures(summary: Summary, rounds: Sequence[float]) -> dict[str, object]:
    elements, decisions, certificate = max(summary.elements, 1), summary.decisions, summary.certificate
    return {
        "loss_bound": certificate.loss_bound_per_decision,
        "kept": certificate.loss_bound_per_decision <= certificate.target,
        "accepted_share": decisions.accepted / elements,
        "audited_share": decisions.audited / elements,
        "truth_share": 1.0 - decisions.accepted / elements,
        "models": len(summary.models),
        "retrainings": summary.retrainings,
        "training_seconds": sum(rounds),
        "surrogate_seconds_per_element": summary.surrogate_seconds_per_element,
    }


def case_for_tape(case: Case) -> Case:
    """Give the case as it is played on a tape: the model in this process, no pictures, no twins, nothing recorded.

    With one thread of torch: every configuration has one core, and threads that wait for each other on a core they
    share take many times as long.

    Raises
    ------
    ConfigError
        If its mode asks no model.

    Collective: no.
    """
    if case.controller.mode == "physics":
        raise ConfigError('controller.mode = "physics" asks no model, so there is nothing to compare on a tape.')
    changes = {
        "exchange": case.exchange.model_copy(update={"transport": "inprocess"}),
        "controller": case.controller.model_copy(update={"twin_every": 0}),
        "surrogate": case.surrogate.model_copy(update={"threads": 1}),
        "output": case.output.model_copy(update={"pictures": False, "tape": False}),
    }
    return case.model_copy(update=changes)


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
