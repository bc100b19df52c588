"""The scripts of launch/: what they start and where, what they try again, and that nothing outlives them.

Slurm, PBS and Flux are stood in for by the programs in stubs/, which start what they are given on this machine.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.hosts import Hosts, HostsUnavailableError
from coupler.summary import read_summary

if TYPE_CHECKING:
    from tests.conftest import Processes, Running

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAUNCH = ROOT / "launch"
HEAT = HERE / "heat.toml"
SOON_SECONDS = 60.0
RUN_SECONDS = 120.0
LONG_SECONDS = 280.0
PHYSICS = ("--set", "controller.mode=physics", "--set", "run.steps=3", "--set", "output.pictures=false")
OPEN_MPI, MPICH = "mpirun (Open MPI) 5.0.11", "HYDRA build details:\n    Version: 4.3.2"


@dataclass
class Site:
    """A place where scripts run: stand-ins in front on PATH, a folder for runs, a log of what was asked of them."""

    processes: "Processes"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = os.pathsep.join((str(self.stubs), str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment |= {
            "PATH": path,
            "COUPLER_VENV": "none",  # whose programs would come before the stand-ins
            "COUPLER_RUNS": str(self.runs),
            "PYTHONPATH": str(ROOT),
            "STUB_LOG": str(self.processes.folder / "log"),
            "STUB_CODES": str(self.processes.folder / "codes"),
        }

    @property
    def stubs(self) -> Path:
        return self.processes.folder / "stubs"

    @property
    def runs(self) -> Path:
        return self.processes.folder / "runs"

    def stand_in(self, *names: str) -> None:
        self.stubs.mkdir(exist_ok=True)
        for name in names:
            (self.stubs / name).symlink_to(HERE / "stubs" / name)

    def ends_with(self, *codes: str) -> None:
        (self.processes.folder / "codes").write_text("".join(f"{code}\n" for code in codes))

    @property
    def log(self) -> list[str]:
        file = self.processes.folder / "log"
        return file.read_text().splitlines() if file.exists() else []

    def run(
        self,
        script: str,
        *words: str | Path,
        seconds: float = SOON_SECONDS,
        given: Mapping[str, str] | None = None,
        **more: str,
    ) -> "Ended":
        surroundings = {**self.environment, **(given or {}), **more}
        finished = self.processes.run(
            [str(LAUNCH / script), *map(str, words)], timeout=seconds, environment=surroundings
        )
        return Ended(finished.returncode, finished.stdout)

    def start(self, script: str, *words: str | Path, **more: str) -> "Running":
        command = [str(LAUNCH / script), *map(str, words)]
        return self.processes.start(command, environment={**self.environment, **more})


@dataclass(frozen=True)
class Ended:
    code: int
    said: str


@pytest.fixture
def site(processes: "Processes") -> Site:
    return Site(processes)


def works(site: Site, **more: str) -> Ended:
    """Run a case whose run folder is runs/x, by a stand-in of mpirun."""
    site.stand_in("mpirun")
    out = site.runs / "x"
    return site.run("run.sh", "case.toml", "4", "--out", out, given={"STUB_RUN": str(out), **more})


@pytest.mark.parametrize(
    ("codes", "started", "code"),
    [
        (["0"], ["run"], 0),
        (["2 checkpoint"], ["run"], 2),
        (["130 checkpoint"], ["run"], 130),
        (["137"], ["run"], 137),
        (["75 checkpoint", "0"], ["run", "resume"], 0),
        (["137 checkpoint", "0"], ["run", "resume"], 0),
        (["137 checkpoint", "1 checkpoint", "75", "0"], ["run", "resume", "resume", "resume"], 0),
        (["137 checkpoint", "137", "0"], ["run", "resume"], 137),
        (["75 checkpoint"] * 5, ["run", "resume", "resume", "resume"], 75),
    ],
    ids=[
        "ends well",
        "a mistake is not tried again",
        "an interrupted run is not tried again",
        "dead before its first checkpoint",
        "stopped",
        "a dead rank",
        "dead, dead, stopped",
        "dead again without a new checkpoint",
        "no tries left",
    ],
)
def test_a_run_is_resumed_while_that_can_help(site: Site, codes: list[str], started: list[str], code: int) -> None:
    site.ends_with(*codes)

    ended = works(site)

    assert ended.code == code, ended.said
    assert [line.split(" coupler ")[1].split()[0] for line in site.log] == started
    assert len(started) == 1 or site.log[-1].endswith(f"resume {site.runs / 'x'}")


def test_a_run_without_a_folder_is_started_once(site: Site) -> None:
    site.stand_in("mpirun")
    site.ends_with("75", "0")

    assert site.run("run.sh", "case.toml").code == 75
    assert len(site.log) == 1


def test_a_job_that_comes_again_goes_on_where_it_was(site: Site) -> None:
    (site.runs / "x" / "checkpoints").mkdir(parents=True)
    (site.runs / "x" / "checkpoints" / "step-1").touch()
    site.ends_with("0")

    assert works(site, COUPLER_RESUME="yes").code == 0
    assert site.log[0].endswith(f"coupler resume {site.runs / 'x'}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_who_asks_the_script_to_stop_asks_the_ranks_for_a_checkpoint(site: Site, number: signal.Signals) -> None:
    site.stand_in("mpirun")
    site.ends_with("wait checkpoint", "0")
    out = site.runs / "x"
    running = site.start("run.sh", "case.toml", "--out", out, STUB_RUN=str(out))
    running.until(lambda: "ready" in site.log, within=SOON_SECONDS)

    os.kill(running.pid, number)
    finished = running.end(SOON_SECONDS)

    assert finished.returncode == 75, finished.stdout
    assert site.log[1:] == ["ready", "stopped"]
    assert f"asked to stop by {number.name}" in finished.stdout


@pytest.mark.parametrize(
    ("kind", "surroundings", "said"),
    [
        (OPEN_MPI, {"COUPLER_NODE_CORES": "5"}, "--map-by slot:PE=1 --bind-to core -n 4"),
        (OPEN_MPI, {"COUPLER_NODE_CORES": "9", "COUPLER_THREADS": "2"}, "--map-by slot:PE=2 --bind-to core -n 4"),
        (OPEN_MPI, {"COUPLER_NODE_CORES": "4"}, "--oversubscribe --bind-to none -n 4"),
        (OPEN_MPI, {"COUPLER_NODE_CORES": "9", "COUPLER_BIND": "none"}, "--oversubscribe --bind-to none -n 4"),
        (OPEN_MPI, {"COUPLER_NODE_CORES": "3", "COUPLER_HOSTS": "a:2,b:2"}, "--host a:2,b:2 --map-by slot:PE=1"),
        (OPEN_MPI, {"COUPLER_NODE_CORES": "2", "COUPLER_HOSTS": "a:2,b:2"}, "--host a:2,b:2 --map-by slot --bind-to"),
        (MPICH, {"COUPLER_NODE_CORES": "9", "COUPLER_THREADS": "2"}, "-bind-to core:2 -n 4"),
        (MPICH, {"COUPLER_NODE_CORES": "4"}, "mpirun -n 4"),
        (MPICH, {"COUPLER_NODE_CORES": "1", "COUPLER_HOSTS": "a:2,b:2"}, "-hosts a:2,b:2 -n 4"),
        ("another MPI", {"COUPLER_NODE_CORES": "9"}, "mpirun -n 4"),
    ],
)
def test_ranks_get_cores_of_their_own_where_there_are_enough(
    site: Site, kind: str, surroundings: dict[str, str], said: str
) -> None:
    site.stand_in("mpirun")
    site.ends_with("0")

    ended = site.run("ranks.sh", "4", "coupler", "doctor", given={"STUB_KIND": kind, **surroundings})

    assert ended.code == 0, ended.said
    assert said in site.log[0]
    assert site.log[0].endswith(" coupler doctor")


def test_a_case_runs_on_a_workstation_in_a_folder_of_its_own(site: Site) -> None:
    ended = site.run("local.sh", HEAT, "2", *PHYSICS, seconds=RUN_SECONDS)

    assert ended.code == 0, ended.said
    (folder,) = site.runs.iterdir()
    summary = read_summary(folder / "summary.json")
    assert (summary.status, summary.ranks) == ("finished", 2)


def test_a_run_that_loses_a_rank_ends_as_if_nothing_had_been(site: Site) -> None:
    settings = (*PHYSICS[:2], "--set", "run.steps=1500", "--set", "run.checkpoint_every=250", *PHYSICS[-2:])
    torn, whole = site.runs / "torn", site.runs / "whole"
    running = site.start("run.sh", HEAT, "2", *settings, "--out", torn)
    running.until(lambda: list(torn.glob("checkpoints/*")), within=SOON_SECONDS)

    os.kill(a_rank(site.processes, str(torn)), signal.SIGKILL)
    finished = running.end(RUN_SECONDS)
    ended = site.run("run.sh", HEAT, "2", *settings, "--out", whole, seconds=RUN_SECONDS)

    assert finished.returncode == ended.code == 0, finished.stdout
    assert "going on from its last checkpoint" in finished.stdout
    hashes = {read_summary(folder / "summary.json").state_sha256 for folder in (torn, whole)}
    assert len(hashes) == 1


def test_a_model_is_taught_on_a_relative_once_and_its_last_training_shared(site: Site) -> None:
    folder, two = site.runs / "taught", ("--set", "surrogate.params.members=2", "--set", "exchange.transport=inprocess")
    given = {"COUPLER_SECONDS": "3", "COUPLER_TRAINERS": "2"}
    words = (HEAT, folder, "2", *two, *PHYSICS[4:], "--set", "run.steps=20")

    taught = site.run("teach.sh", *words, seconds=LONG_SECONDS, given=given)
    again = site.run("teach.sh", *words, given=given)
    other = site.run("teach.sh", *words, given=given | {"COUPLER_SECONDS": "4"})

    assert taught.code == 0, taught.said
    done = [line.split()[1] for line in (folder / "seconds.txt").read_text().splitlines()]
    assert done == ["recorded", "model-1", "collected-1", "model-2", "collected-2", "model"]
    assert read_summary(folder / "collected-2" / "summary.json").models[0].step == 1
    assert (again.code, again.said.count("begin with it")) == (0, 1), again.said
    assert (other.code, other.said.count("holds something else already")) == (2, 1), other.said


def test_a_mistake_in_a_case_is_one_sentence_and_code_2(site: Site) -> None:
    ended = site.run("local.sh", HEAT, "2", "--set", "run.stps=3", seconds=RUN_SECONDS)

    assert ended.code == 2
    assert ended.said.count('there is no key "run.stps"') == 1


def test_a_slurm_job_of_a_sweep_runs_its_own_line(site: Site, tmp_path: Path) -> None:
    site.stand_in("srun", "scontrol")
    sweep = tmp_path / "sweep.txt"
    sweep.write_text('run.steps=2\nrun.steps=4 "grid.shape=[8, 8]"\n')

    job = {**slurm(task="1"), "COUPLER_SWEEP": str(sweep)}
    ended = site.run("slurm.sbatch", HEAT, *PHYSICS, seconds=RUN_SECONDS, given=job)

    assert ended.code == 0, ended.said
    summary = read_summary(site.runs / "heat-7" / "001" / "summary.json")
    assert (summary.steps, summary.ranks, summary.elements) == (4, 2, 4 * 8 * 8)
    (asked,) = site.log
    assert "--ntasks=2 --cpus-per-task=1 --whole" in asked
    assert "--mpi=pmix" in asked


def test_a_slurm_job_whose_time_is_nearly_up_goes_back_into_the_queue(site: Site) -> None:
    site.stand_in("mpirun", "scontrol")
    site.ends_with("wait checkpoint")
    out = str(site.runs / "heat-7")
    running = site.start("slurm.sbatch", HEAT, STUB_RUN=out, COUPLER_LAUNCHER="mpirun", **slurm())
    running.until(lambda: "ready" in site.log, within=SOON_SECONDS)

    os.kill(running.pid, signal.SIGUSR1)  # what --signal=B:USR1@300 does
    finished = running.end(SOON_SECONDS)

    assert finished.returncode == 75, finished.stdout
    assert site.log[-2:] == ["stopped", "scontrol requeue 7"]


def test_a_pbs_job_whose_time_is_nearly_up_sends_off_the_next(site: Site, tmp_path: Path) -> None:
    site.stand_in("mpirun", "qstat", "qsub")
    site.ends_with("wait checkpoint")
    (tmp_path / "nodes").write_text("localhost\nlocalhost\n")
    pbs = {"PBS_JOBID": "7.server", "PBS_JOBNAME": "heat", "PBS_O_WORKDIR": str(ROOT)}

    ended = site.run(
        "pbs.sh",
        CASE=str(HEAT),
        SETTINGS="run.steps=3",
        STUB_RUN=str(site.runs / "heat-7"),
        STUB_WALLTIME="00:00:02",  # half of it is over in a second
        PBS_NODEFILE=str(tmp_path / "nodes"),
        given=pbs,
    )

    assert ended.code == 75, ended.said
    assert site.log[0].endswith(f"coupler run {HEAT} --out {site.runs / 'heat-7'} --set run.steps=3")
    assert "-n 2 " in site.log[0]
    assert site.log[-1].startswith(f"qsub -v CASE={HEAT},SETTINGS=run.steps=3,COUPLER_JOB=heat-7")


def test_a_flux_job_runs_with_a_core_left_for_its_server(site: Site) -> None:
    site.stand_in("flux")

    ended = site.run(
        "flux.sh", HEAT, *PHYSICS, seconds=RUN_SECONDS, FLUX_URI="local:///run/flux", COUPLER_ROOT=str(ROOT)
    )

    assert ended.code == 0, ended.said
    assert read_summary(site.runs / "coupler-f1" / "summary.json").ranks == 2
    assert "flux run --ntasks=2 --cores-per-task=1" in site.log[0]


@pytest.mark.ray
def test_a_ray_cluster_lives_as_long_as_its_command_on_loopback_and_behind_a_token(
    site: Site, nothing_left_behind: None
) -> None:
    look = (
        "import json, os, pathlib, ray; ray.init(log_to_driver=False, configure_logging=False);"
        "token = pathlib.Path(os.environ['RAY_AUTH_TOKEN_PATH']);"
        "modes = [oct(place.stat().st_mode) for place in (token, token.parent)];"
        "print(json.dumps([ray.nodes()[0]['NodeManagerAddress'], *modes]))"
    )

    ended = site.run("ray_cluster.sh", sys.executable, "-c", look, seconds=RUN_SECONDS)

    assert ended.code == 0, ended.said
    assert '["127.0.0.1", "0o100600", "0o40700"]' in ended.said


@pytest.mark.ray
def test_a_ray_cluster_ends_when_its_script_is_killed(site: Site, nothing_left_behind: None) -> None:
    running = site.start("ray_cluster.sh", "cat", "/proc/self/environ", "-")
    running.until(lambda: "Ray is on 1 node" in running.said, within=RUN_SECONDS)

    os.kill(running.pid, signal.SIGKILL)

    assert running.end(SOON_SECONDS).returncode == -signal.SIGKILL


def test_a_node_that_does_not_answer_is_named(site: Site) -> None:
    site.stand_in()
    agent = site.processes.folder / "agent"
    agent.write_text("#!/bin/sh\necho no route to $1\nexit 255\n")
    agent.chmod(0o700)

    ended = site.run("ray_cluster.sh", "true", COUPLER_NODES="far away", COUPLER_AGENT=str(agent))

    assert ended.code == 1
    assert "no Ray on far: no route to far" in ended.said


@pytest.fixture
def hosts(processes: "Processes") -> Iterator[Hosts]:
    try:
        made = Hosts(2, processes.folder)
    except HostsUnavailableError as why:
        pytest.skip(f"several hosts on one machine: {why}")
    with closing(made):
        yield made


@pytest.mark.ray
def test_a_heterogeneous_slurm_job_has_ranks_on_one_host_and_the_server_on_another(site: Site, hosts: Hosts) -> None:
    site.stand_in("srun", "scontrol")
    ranks, server = (host.address for host in hosts.hosts)
    enter = hosts.mpirun((1, 1), ["x"])
    job = {
        **slurm(),
        **hosts.environment,
        "SLURM_HET_SIZE": "2",
        "SLURM_NTASKS_HET_GROUP_0": "2",
        "SLURM_JOB_NODELIST_HET_GROUP_0": ranks,
        "SLURM_JOB_NODELIST_HET_GROUP_1": server,
        "STUB_AGENT": hosts.environment["PRTE_MCA_plm_ssh_agent"],
        "STUB_HOSTS": f"{ranks}:2",
        "STUB_ENTER": " ".join(enter[: enter.index("--") + 1]),
    }

    ended = site.run("slurm.sbatch", HEAT, "--set", "controller.mode=surrogate", seconds=LONG_SECONDS, given=job)

    assert ended.code == 0, ended.said
    summary = read_summary(site.runs / "heat-7" / "summary.json")
    assert summary.decisions.accepted > 0
    assert sum("--het-group=1" in line for line in site.log) == 1
    assert not [line for host in hosts.hosts for line in host.processes().values() if "ray" in line]


def a_rank(processes: "Processes", folder: str) -> int:
    """The process of a rank of the run in a folder."""
    words = {pid: line.split(" ") for pid, line in processes.alive().items() if folder in line}
    return next(pid for pid, (first, *_) in words.items() if Path(first).name.startswith("python"))


def slurm(task: str | None = None) -> dict[str, str]:
    """What Slurm tells a job of two ranks."""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "heat",
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1",
        "SLURM_CPUS_ON_NODE": "3",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }
    return job if task is None else job | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": task}


def test_every_script_can_be_executed_and_says_what_it_is_for() -> None:
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "launch"], capture_output=True, text=True, check=False
    ).stdout.split()
    scripts = [ROOT / name for name in tracked if name.endswith((".sh", ".sbatch"))]

    for script in scripts:
        first, second = script.read_text().splitlines()[:2]
        assert second.startswith("# "), script
        assert os.access(script, os.X_OK) == (first == "#!/usr/bin/env bash"), script
