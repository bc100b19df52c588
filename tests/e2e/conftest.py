"""Whole runs of the command line, under mpirun, in processes of their own; and what is read from their folders."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.hosts import Hosts, HostsUnavailableError
from coupler.ledger import read_ledger
from coupler.records import Reason
from coupler.summary import Summary, read_summary

if TYPE_CHECKING:
    from tests.conftest import MpiRun, Processes, Running

HERE = Path(__file__).parent
LONGEST_SECONDS = 120.0


@dataclass(frozen=True)
class RunFiles:
    """A run folder, during the run or after it."""

    path: Path

    @cached_property
    def summary(self) -> Summary:
        return read_summary(self.path / "summary.json")

    @cached_property
    def ledger(self) -> NDArray[np.void]:
        return read_ledger(self.path / "ledger.h5")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines that are complete."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def reasons(self, *, after: int = 0, operator: int = 0) -> dict[Reason, int]:
        """Elements of an operator by reason in the steps after one, those that occurred."""
        rows = self.ledger[(self.ledger["step"] > after) & (self.ledger["operator"] == operator)]
        totals = rows["reasons"].sum(axis=0)
        return {reason: int(totals[reason]) for reason in Reason if totals[reason]}

    def bytes(self) -> dict[str, bytes]:
        """Every file in the folder."""
        return {str(file.relative_to(self.path)): file.read_bytes() for file in self.path.rglob("*") if file.is_file()}


@dataclass(frozen=True)
class Started:
    """A run that goes on."""

    running: "Running"
    files: RunFiles

    def until_a_model_answers(self) -> None:
        self.until(lambda last: last["version"] > 0 and last["decisions"]["disabled"] == 0)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the last line of the metrics fulfils a condition."""
        self.running.until(lambda: any(map(condition, self.files.metrics[-1:])), within=LONGEST_SECONDS)


def arguments(case: str, out: Path | str, settings: tuple[str, ...]) -> list[str]:
    """What to type after ``python`` to run one of the cases beside this file."""
    overrides = [word for setting in settings for word in ("--set", setting)]
    return ["-m", "coupler", "run", str(HERE / case), *overrides, "--out", str(out)]


class Couple:
    """Call it as ``couple(case, ranks, *settings)``: a run that ends well and leaves nothing behind.

    Asked for the same run again, it gives the one that was made, so that tests share what they look at.
    """

    def __init__(self, mpirun: "MpiRun") -> None:
        self._mpirun = mpirun
        self._made: dict[tuple[str, int, tuple[str, ...]], RunFiles] = {}
        self._numbers = itertools.count()

    def __call__(self, case: str, ranks: int, *settings: str) -> RunFiles:
        key = (case, ranks, settings)
        if key not in self._made:
            folder = self._mpirun.processes.folder / f"run-{next(self._numbers):02d}"
            with self._mpirun.processes.leaving_nothing():
                finished = self._mpirun(ranks, *arguments(case, folder, settings), timeout=LONGEST_SECONDS)
            assert finished.returncode == 0, finished.stdout
            self._made[key] = RunFiles(folder)
        return self._made[key]


class Start:
    """Call it as ``start(case, ranks, *settings)``: a run that a test does something to."""

    def __init__(self, mpirun: "MpiRun") -> None:
        self._mpirun = mpirun

    def __call__(self, case: str, ranks: int, *settings: str) -> Started:
        folder = self._mpirun.processes.folder / "run"
        running = self._mpirun.start(ranks, *arguments(case, folder, settings))
        return Started(running, RunFiles(folder))


@pytest.fixture(scope="session")
def couple(lasting_mpirun: "MpiRun") -> Couple:
    """Give a function that makes a run once; see :class:`Couple`."""
    return Couple(lasting_mpirun)


@pytest.fixture
def start(mpirun: "MpiRun", nothing_left_behind: None) -> Start:
    """Give a function that starts a run, of which nothing may be left after the test; see :class:`Start`."""
    return Start(mpirun)


class Across:
    """Call it as ``across(case, ranks, *settings)``: a run with so many ranks on each host, that ends well.

    Asked for the same run again, it gives the one that was made. ``folder`` is the same on all hosts.
    """

    def __init__(self, hosts: Hosts, processes: "Processes") -> None:
        self.hosts, self.folder = hosts, processes.folder
        self.processes = processes
        self._made: dict[tuple[str, tuple[int, ...], tuple[str, ...]], RunFiles] = {}
        self._numbers = itertools.count()

    def __call__(self, case: str, ranks: Sequence[int], *settings: str) -> RunFiles:
        key = (case, tuple(ranks), settings)
        if key not in self._made:
            run = self.start(case, ranks, *settings)
            finished = run.running.end(LONGEST_SECONDS)
            assert finished.returncode == 0, finished.stdout
            self._made[key] = run.files
        return self._made[key]

    def start(self, case: str, ranks: Sequence[int], *settings: str) -> Started:
        """Start a run that a test does something to."""
        folder = self.processes.folder / f"across-{next(self._numbers):02d}"
        command = self.hosts.mpirun(ranks, [sys.executable, *arguments(case, folder, settings)])
        return Started(self.processes.start(command, environment=self.hosts.environment), RunFiles(folder))


@pytest.fixture
def fresh_across(processes: "Processes") -> Iterator[Across]:
    """Two hosts and a Ray cluster over them for one test, which may break them; ``model`` is a resource of the second.

    Skips where this machine allows no namespaces, and says why.
    """
    with closing(some_hosts(2, processes.folder, "model on host2")) as hosts:
        yield Across(hosts, processes)


@pytest.fixture
def four_across(processes: "Processes") -> Iterator[Across]:
    """Four hosts and a Ray cluster over them, for one test."""
    with closing(some_hosts(4, processes.folder, "")) as hosts:
        yield Across(hosts, processes)


@pytest.fixture(scope="module")
def across(lasting_processes: "Processes") -> Iterator[Across]:
    """Two hosts and a Ray cluster over them; ``model`` is a resource of the first. See :class:`Across`."""
    with closing(some_hosts(2, lasting_processes.folder, "model on host1")) as hosts:
        yield Across(hosts, lasting_processes)


def some_hosts(count: int, folder: Path, resources: str) -> Hosts:
    try:
        hosts = Hosts(count, folder)
    except HostsUnavailableError as why:
        pytest.skip(f"several hosts on one machine: {why}")
    try:
        own = [{"model": 1} if host.name in resources else {} for host in hosts.hosts]
        hosts.start_ray(own, {"RAY_worker_niceness": "0"})  # servers must not wait behind the ranks
    except BaseException:
        hosts.close()
        raise
    return hosts
