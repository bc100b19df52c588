"""Many configurations at once: Ray Tune gives each its cores and starts the next when one is done."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coupler.errors import ConfigError
from coupler.experiment.processes import Command, run_with_me
from coupler.serving.cluster import Cluster
from coupler.serving.reaper import Reaper


@dataclass(frozen=True)
class Job:
    """One configuration's process.

    Parameters
    ----------
    name : str
        Of the configuration.
    command : Command
        What does it.
    log : Path
        Receives all it says.
    limit : float
        Longest it may take [s].
    """

    name: str
    command: Command
    log: Path
    limit: float


def run_jobs(jobs: Sequence[Job], cores: int, notes: Path, done: Callable[[str], None]) -> None:
    """Run all jobs, as many at once as the machine has cores for.

    Parameters
    ----------
    jobs : sequence of Job
        What.
    cores : int
        That each takes.
    notes : Path
        A folder for what Tune writes meanwhile; made anew, and removed at the end.
    done : callable
        Called with the name of each that has ended, however it ended.

    Raises
    ------
    ConfigError
        If Ray Tune is not installed.

    Collective: no.
    """
    folder = Path(tempfile.mkdtemp(prefix="coupler-ray-", dir="/tmp"))  # short: Unix sockets allow 107 bytes
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, notes, ignore_errors=True)
        ending.callback(Reaper(folder).close)
        # Before Tune is loaded: with that Ray decides whether it asks for a token.
        ending.callback(Cluster(None, folder=folder).close)
        _tune({job.name: job for job in jobs}, cores, notes, done)


def _tune(jobs: Mapping[str, Job], cores: int, notes: Path, done: Callable[[str], None]) -> None:
    try:
        from ray import tune
    except ImportError as error:
        raise ConfigError(f'An experiment needs Ray Tune ({error}): pip install "coupler[experiment]".') from error

    class Told(tune.Callback):
        """Says of each job that it has ended; a copy, as Tune keeps one on disk, says nothing."""

        def __init__(self, say: Callable[[str], None]) -> None:
            self._say = say

        def __getstate__(self) -> dict[str, object]:
            return {}

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._say(trial.config["name"])

        on_trial_error = on_trial_complete

    def attempt(chosen: Mapping[str, str]) -> dict[str, int]:
        job = jobs[chosen["name"]]
        return {"exit_status": run_with_me(job.command, job.log, job.limit)}

    shutil.rmtree(notes, ignore_errors=True)  # of somebody who was killed
    tune.Tuner(
        tune.with_resources(attempt, {"cpu": cores}),
        param_space={"name": tune.grid_search(list(jobs))},
        run_config=tune.RunConfig(storage_path=str(notes), name="tune", verbose=0, callbacks=[Told(done)]),
    ).fit()
