"""An experiment: all configurations of a plan, those that are done left alone, and what came of them in one folder."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from coupler.atomic import replacing
from coupler.errors import ConfigError
from coupler.experiment.conduct import conduct
from coupler.experiment.outcome import Outcome, read_outcome
from coupler.experiment.plan import Plan, fingerprint
from coupler.experiment.processes import coupler_command
from coupler.experiment.table import best_of, write_tables
from coupler.experiment.tuning import Job, run_jobs
from coupler.report.pareto import draw_pareto
from coupler.runfolder import describe_environment

Told = Callable[[Outcome, int, int], None]


@dataclass(frozen=True)
class Results:
    """What an experiment came to.

    Parameters
    ----------
    outcomes : tuple of Outcome
        Of all configurations that are done, in the order of the plan.
    best : Outcome or None
        The one whose case was written to ``best.toml``; None if none kept its target.
    missing : int
        Configurations that have no outcome yet.
    """

    outcomes: tuple[Outcome, ...]
    best: Outcome | None
    missing: int


class Experiment:
    """A plan and the folder it is carried out in.

    Parameters
    ----------
    plan : Plan
        What.
    source : Path
        The file it was read from; every configuration's process reads it again.
    folder : Path
        Made if missing; of this plan if it is there.

    Raises
    ------
    ConfigError
        If the folder holds another plan's experiment, or something else. Nothing in it is touched.
    """

    def __init__(self, plan: Plan, source: Path, folder: Path) -> None:
        self.plan, self.folder = plan, folder.resolve()
        self._source = source.resolve()
        self._configurations = {one.name: one for one in plan.configurations}
        self._claim()

    def run(self, told: Told) -> Results:
        """Do what is not done yet, several at once, and write tables, picture and best case.

        Parameters
        ----------
        told : callable
            Called with each outcome as it comes, how many there are now, and of how many.

        Collective: no.
        """
        finished = {one.name for one in self.outcomes() if one.status == "finished"}
        waiting = [self._job(name) for name in self._configurations if name not in finished]
        numbers = count(len(finished) + 1)

        def done(name: str) -> None:
            outcome = read_outcome(self._place(name) / "outcome.json") or self._lost(name)
            told(outcome, next(numbers), len(self._configurations))

        if waiting:
            run_jobs(waiting, self._cores(), self.folder / ".tune", done)
        return self.collect()

    def run_slice(self, chosen: slice, told: Told) -> None:
        """Do some configurations, one after the other in this process: a task of a job array. Collective: no."""
        mine = self.plan.configurations[chosen]
        for place, configuration in enumerate(mine):
            told(self.run_one(configuration.name), place + 1, len(mine))

    def run_one(self, name: str) -> Outcome:
        """Do one configuration in this process.

        Raises
        ------
        ConfigError
            If the plan has no such configuration.

        Collective: no.
        """
        if name not in self._configurations:
            raise ConfigError(f'{self._source} has no configuration "{name}": it was changed since.')
        return conduct(self.plan, self._configurations[name], self._place(name))

    def outcomes(self) -> list[Outcome]:
        """Read what has ended so far, in the order of the plan. Collective: no."""
        found = (read_outcome(self._place(name) / "outcome.json") for name in self._configurations)
        return [one for one in found if one is not None]

    def collect(self) -> Results:
        """Write ``table.csv``, ``table.parquet``, ``pareto.png`` and ``best.toml`` from all outcomes there are.

        Collective: no.
        """
        outcomes = tuple(self.outcomes())
        best = best_of(outcomes, self.plan.file.best)
        if outcomes:
            write_tables(outcomes, self.folder)
            draw_pareto(outcomes, best, self.folder / "pareto.png")
        if best is not None:
            self._write_best(best)
        return Results(outcomes, best, len(self._configurations) - len(outcomes))

    def _claim(self) -> None:
        note, mine = self.folder / "experiment.json", fingerprint(self.plan)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if note.exists():
                theirs = json.loads(note.read_text(encoding="utf-8")).get("fingerprint")
                if theirs != mine:
                    raise ConfigError(
                        f"{self.folder} holds an experiment with another plan: what is there would not be what this "
                        "file says. Give --out another folder."
                    )
                return
            if any(self.folder.iterdir()):
                raise ConfigError(f"{self.folder} is not empty and no experiment: give --out another folder.")
            known = {"fingerprint": mine, "plan": self.plan.file.model_dump(mode="json")}
            known["environment"] = describe_environment(self.plan.base.run.seed)
            with replacing(note) as temporary:
                temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder} cannot hold an experiment: {error}.") from error

    def _cores(self) -> int:
        """Cores that one configuration takes."""
        return 1 if self.plan.file.tape else min(self.plan.file.ranks, len(os.sched_getaffinity(0)))

    def _job(self, name: str) -> Job:
        place = self._place(name)
        place.mkdir(parents=True, exist_ok=True)
        arguments = ["experiment", str(self._source), "--out", str(self.folder), "--only", name]
        return Job(name, coupler_command(arguments), place / "log.txt", self.plan.file.limit)

    def _lost(self, name: str) -> Outcome:
        """Give an outcome to a configuration whose process ended without one, and keep it."""
        said = (self._place(name) / "log.txt").read_text(errors="replace").strip().splitlines()
        settings, sentence = dict(self._configurations[name].settings), said[-1] if said else "it was ended"
        outcome = Outcome(name=name, settings=settings, status="failed", sentence=sentence)
        outcome.write(self._place(name) / "outcome.json")
        return outcome

    def _place(self, name: str) -> Path:
        return self.folder / "configurations" / name

    def _write_best(self, best: Outcome) -> None:
        case = self._configurations[best.name].case
        said = (
            f"The best of {len(self._configurations)} configurations of {self._source.name}, {best.name}.\n"
            f"# Foretold: {best.speedup:.2f} times as fast as physics alone, certified loss {best.loss_bound:.4f} of "
            f"{best.target:g}.\n\n"
        )
        with replacing(self.folder / "best.toml") as temporary:
            temporary.write_text(f"# {said}{case.to_toml()}", encoding="utf-8")
