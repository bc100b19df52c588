"""Processes killed and stopped in mid-run, and plug-ins that break their promises: the run ends and nothing is left."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from coupler.ledger import Ledger
from coupler.records import Reason

if TYPE_CHECKING:
    from tests.conftest import Processes
    from tests.e2e.conftest import Couple, Start, Started

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

PLUGINS = Path(__file__).parent / "plugins"
AIR = Path(__file__).parents[2] / "launch" / "air_chemistry" / "case.toml"
ASYNCHRONOUS = "learning.mode=asynchronous"
# Forty seconds of a patient kernel, long after its first model; and never.
STEPS = 2000
MANY, ENDLESS = f"run.steps={STEPS}", "run.steps=100000000"
# Two minutes with steps as long as that, for what takes its time; seconds once a test says that it need not.
LONG_STEP, ENOUGH = 0.1, "run.steps=1200"
# What the model answers is what the fields become.
MODE = "controller.mode=surrogate"
LONG_SECONDS = 120.0
DEADLINE = 1.0
# What is left of a job may take so long to end: Open MPI's own patience, the reaper's, and a busy machine's.
END_SECONDS = 30.0


@dataclass(frozen=True)
class Patience:
    """The settings of a kernel that takes its time until it is told to hurry."""

    file: Path

    @property
    def settings(self) -> tuple[str, str]:
        return self.every(0.02)

    def every(self, seconds: float) -> tuple[str, str]:
        """The same, with so long a step."""
        params = f'{{file = "{self.file}", seconds = {seconds}}}'
        return f'kernel.name="{PLUGINS}/kernels.py:Patient"', f"kernel.params={params}"

    def end(self) -> None:
        self.file.touch()


@pytest.fixture
def patience(tmp_path: Path) -> Patience:
    return Patience(tmp_path / "hurry")


def test_a_server_that_dies_twice_is_started_twice(processes: "Processes", start: "Start", patience: Patience) -> None:
    run = start("heat.toml", 2, *patience.every(LONG_STEP), ASYNCHRONOUS, ENOUGH)
    run.until_a_model_answers()

    for _ in range(2):
        os.kill(one(processes, "ray::Server"), signal.SIGKILL)
        run.until(lambda last: last["decisions"]["disabled"] > 0)
        run.until_a_model_answers()
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    summary = run.files.summary
    assert summary.server_restarts == run.files.metrics[-1]["server_restarts"] == 2
    assert kinds(run) == ["server-lost", "server-back"] * 2
    assert sum(dict(summary.decisions).values()) == summary.elements
    assert summary.reasons["server_lost"] > 0
    assert [row["kind"] for row in read_events(run)] == kinds(run)


def test_where_nothing_is_started_again_a_run_goes_on_without_its_server(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start("heat.toml", 2, *patience.settings, ASYNCHRONOUS, MANY, "ray.restarts=0")
    run.until_a_model_answers()

    os.kill(one(processes, "ray::Server"), signal.SIGKILL)
    run.until(lambda last: last["decisions"]["disabled"] > 0)
    lost = run.files.metrics[-1]["step"]
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    decisions = run.files.summary.decisions
    assert decisions.disabled + decisions.timeout > 0
    assert sum(dict(decisions).values()) == run.files.summary.elements == STEPS * 24 * 24
    assert run.files.reasons(after=lost).keys() == {Reason.SERVER_LOST}
    assert kinds(run) == ["given-up"]
    assert finished.stdout.count("is given up: its process ended, once within 600 s. The run goes on without") == 1


def test_a_server_that_dies_at_once_every_time_is_given_up(start: "Start", patience: Patience) -> None:
    poison = patience.file.with_name("poison")
    model = (f'surrogate.name="{PLUGINS}/models.py:Poisonous"', f'surrogate.params={{file = "{poison}"}}')
    often = ("ray.restarts=2", "learning.growth=0.99")
    run = start("heat.toml", 2, *patience.every(LONG_STEP), *model, ASYNCHRONOUS, MODE, ENOUGH, *often)
    run.until_a_model_answers()

    poison.touch()
    run.running.until(lambda: "is given up" in run.running.said, within=60)
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    said = [event.sentence for event in run.files.summary.events if event.kind == "given-up"]
    assert said[0].startswith("the server on ")
    assert kinds(run).count("server-lost") == 2
    assert run.files.metrics[-1]["decisions"]["disabled"] == 24 * 24


def test_a_deterministic_run_whose_server_is_killed_is_bitwise_the_undisturbed_one(
    processes: "Processes", start: "Start", couple: "Couple", patience: Patience
) -> None:
    undisturbed = couple("heat.toml", 2, MODE, "run.steps=200").summary
    run = start("heat.toml", 2, *patience.settings, MODE, "run.steps=200")
    run.until_a_model_answers()

    os.kill(one(processes, "ray::Server"), signal.SIGKILL)
    run.running.until(lambda: find(processes, "ray::Server"), within=60)
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    summary = run.files.summary
    assert summary.server_restarts == 1
    assert summary.state_sha256 == undisturbed.state_sha256
    assert summary.decisions == undisturbed.decisions
    assert summary.models == undisturbed.models


def test_a_deterministic_run_ends_with_its_server_where_there_is_no_other(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start("heat.toml", 2, *patience.settings, ENDLESS, "ray.restarts=0")
    run.until_a_model_answers()

    os.kill(one(processes, "ray::Server"), signal.SIGKILL)
    finished = run.running.end(timeout=END_SECONDS)

    assert finished.returncode == 2, finished.stdout
    assert "the surrogate server is gone, and in deterministic mode a run cannot go on without it" in finished.stdout
    assert "Traceback" not in finished.stdout


def test_a_server_that_never_moves_again_is_ended_and_another_takes_its_place(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start(
        "heat.toml", 2, *patience.every(LONG_STEP), ASYNCHRONOUS, ENOUGH, "exchange.deadline=0.5", "ray.silence=3"
    )
    run.until_a_model_answers()
    server = one(processes, "ray::Server")

    os.kill(server, signal.SIGSTOP)
    run.until(lambda last: last["decisions"]["timeout"] > 0)
    run.until(lambda last: last["decisions"]["timeout"] == last["decisions"]["disabled"] == 0)
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    assert run.files.summary.server_restarts == 1
    assert any("it has not answered for 3 s" in event.sentence for event in run.files.summary.events)
    assert not Path(f"/proc/{server}").exists()


@pytest.mark.parametrize("victim", ["raylet", "gcs_server", "supervisor"])
def test_ray_is_started_again_as_a_whole(
    processes: "Processes", start: "Start", patience: Patience, victim: str
) -> None:
    run = start("heat.toml", 2, *patience.every(LONG_STEP), ASYNCHRONOUS, ENOUGH)
    run.until_a_model_answers()
    before = one(processes, "ray::Server")

    os.kill(supervisor(processes) if victim == "supervisor" else one(processes, victim), signal.SIGKILL)
    run.running.until(lambda: "ray-back" in run.running.said, within=LONG_SECONDS)
    run.until_a_model_answers()
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    assert run.files.summary.server_restarts == 1
    assert (kinds(run)[0], kinds(run)[-1]) == ("ray-lost", "ray-back")
    assert not Path(f"/proc/{before}").exists()


def test_a_supervisor_that_stops_for_good_while_it_starts_everything_is_replaced(
    processes: "Processes", start: "Start"
) -> None:
    run = start("heat.toml", 2)
    run.running.until(lambda: find(processes, "raylet"), within=60)

    os.kill(supervisor(processes), signal.SIGSTOP)
    finished = run.running.end(timeout=LONG_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert "the supervisor has said nothing for 45 s" in finished.stdout
    assert run.files.summary.decisions.audited > 0


def test_a_job_that_is_killed_while_its_supervisor_stands_still_ends(processes: "Processes", start: "Start") -> None:
    run = start("heat.toml", 2)
    run.running.until(lambda: find(processes, "raylet"), within=60)

    os.kill(supervisor(processes), signal.SIGSTOP)
    os.kill(run.running.pid, signal.SIGKILL)
    run.running.end(timeout=END_SECONDS)

    # Sooner than rank 0 would have given the supervisor up.
    assert not processes.wait(END_SECONDS)


def test_a_supervisor_that_is_killed_again_and_again_while_it_starts_everything_is_replaced(
    processes: "Processes", start: "Start"
) -> None:
    run, killed = start("heat.toml", 2), set[int]()

    while len(killed) < 3:
        run.running.until(lambda: set(supervisors(processes)) - killed, within=60)
        (victim,) = set(supervisors(processes)) - killed
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
    finished = run.running.end(timeout=LONG_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.count("the supervisor has ended") == 3
    assert run.files.summary.decisions.audited > 0


def test_a_server_that_stands_still_costs_each_rank_one_deadline(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    mode = (ASYNCHRONOUS, "controller.mode=surrogate", f"exchange.deadline={DEADLINE}")
    run = start("heat.toml", 2, *patience.settings, *mode, MANY)
    run.until_a_model_answers()
    server = one(processes, "ray::Server")

    os.kill(server, signal.SIGSTOP)
    run.until(lambda last: last["decisions"]["timeout"] > 0)
    os.kill(server, signal.SIGCONT)
    run.until(lambda last: last["decisions"]["accepted"] > 0)
    os.kill(server, signal.SIGSTOP)
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    assert run.files.summary.decisions.timeout > 0
    waits = run.files.ledger[run.files.ledger["wait_seconds"] > DEADLINE / 2]
    assert all(np.count_nonzero(waits["rank"] == rank) <= 2 for rank in (0, 1)), waits
    assert run.files.metrics[-1]["decisions"]["timeout"] == 24 * 24


def test_a_round_whose_trainer_is_killed_brings_its_model_all_the_same(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start(
        "heat.toml", 2, *patience.every(LONG_STEP), ASYNCHRONOUS, ENOUGH, "learning.budget=2", "learning.growth=0.99"
    )
    run.running.until(lambda: find(processes, "ray::TrainingActor.train"), within=LONG_SECONDS)

    os.kill(one(processes, "ray::TrainingActor.train"), signal.SIGKILL)
    run.until_a_model_answers()
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    assert kinds(run)[:2] == ["trainer-lost", "trainer-back"]
    assert run.files.summary.models[0].version == 1
    assert run.files.summary.server_restarts == 0


def test_where_nothing_is_started_again_a_run_goes_on_without_its_trainer(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start("heat.toml", 2, *patience.settings, ASYNCHRONOUS, MANY, "learning.budget=60", "ray.restarts=0")
    run.running.until(lambda: find(processes, "ray::TrainingActor.train"), within=LONG_SECONDS)
    trainer = one(processes, "ray::TrainingActor.train")

    os.kill(trainer, signal.SIGKILL)
    patience.end()
    finished = run.running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    assert run.files.summary.retrainings == 1
    assert run.files.summary.models == []
    assert run.files.reasons().keys() == {Reason.NO_MODEL}


def test_servers_and_trainers_that_are_killed_while_they_start_are_started_again(
    processes: "Processes", start: "Start"
) -> None:
    run, killed = start("heat.toml", 2), set[int]()

    def kill_another(kind: str) -> bool:
        victims = all_of(processes, kind) - killed
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        killed.update(victims)
        return bool(victims)

    for kind in ("ray::Server", "ray::TrainingActor", "ray::Server"):
        run.running.until(partial(kill_another, kind), within=60)
    finished = run.running.end(timeout=LONG_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.count("was lost while it started") >= 2
    assert run.files.summary.decisions.audited > 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) > 2, reason="two ranks and a server have cores of their own here")
@pytest.mark.parametrize(("economics", "niceness"), [("auto", 10), ("off", 0)])
def test_a_trainer_gives_way_to_ranks_that_want_its_cores_unless_costs_are_of_no_concern(
    processes: "Processes", start: "Start", economics: str, niceness: int
) -> None:
    small = ("grid.shape=[24,8]", "learning.first=100", "learning.budget=60", ENDLESS, ASYNCHRONOUS)
    run = start(str(AIR), 2, *small, f'controller.economics="{economics}"')
    run.running.until(lambda: find(processes, "ray::TrainingActor.train"), within=LONG_SECONDS)
    trainer = one(processes, "ray::TrainingActor.train")

    nicer = os.getpriority(os.PRIO_PROCESS, trainer) - os.getpriority(os.PRIO_PROCESS, rank(processes, 0))
    own_session = os.getsid(trainer) == trainer
    os.kill(run.running.pid, signal.SIGKILL)
    run.running.end(timeout=END_SECONDS)

    assert (nicer, own_session) == (niceness, economics == "auto")
    assert not processes.wait(END_SECONDS)


@pytest.mark.parametrize("mode", ["certified", "physics"])
@pytest.mark.parametrize("victim", ["rank 0", "mpirun"])
def test_a_job_that_is_killed_takes_everything_with_it(
    processes: "Processes", start: "Start", patience: Patience, victim: str, mode: str
) -> None:
    run = start("heat.toml", 2, *patience.settings, ASYNCHRONOUS, ENDLESS, f"controller.mode={mode}")
    run.until(lambda last: last["step"] > 1)

    os.kill(run.running.pid if victim == "mpirun" else rank(processes, 0), signal.SIGKILL)
    finished = run.running.end(timeout=END_SECONDS)

    assert finished.returncode != 0
    assert not processes.wait(END_SECONDS)


def test_a_reaper_that_stands_still_is_replaced_by_one_that_does_its_work(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start("heat.toml", 2, *patience.settings, ASYNCHRONOUS, ENDLESS)
    run.until(lambda last: last["step"] > 1)
    (first,) = reapers(processes)

    os.kill(first, signal.SIGSTOP)
    run.running.until(lambda: (now := reapers(processes)) and first not in now, within=END_SECONDS)
    os.kill(rank(processes, 0), signal.SIGKILL)
    run.running.end(timeout=END_SECONDS)

    assert not processes.wait(END_SECONDS)


def test_a_reaper_that_is_killed_together_with_its_rank_is_not_needed(
    processes: "Processes", start: "Start", patience: Patience
) -> None:
    run = start("heat.toml", 2, *patience.settings, ASYNCHRONOUS, ENDLESS)
    run.until(lambda last: last["step"] > 1)

    for pid in (*reapers(processes), rank(processes, 0)):
        os.kill(pid, signal.SIGKILL)
    run.running.end(timeout=END_SECONDS)

    assert not processes.wait(END_SECONDS)


def test_a_job_that_is_asked_to_end_ends(start: "Start", patience: Patience) -> None:
    run = start("heat.toml", 2, *patience.settings, ASYNCHRONOUS, ENDLESS)
    run.until(lambda last: last["step"] > 1)

    os.kill(run.running.pid, signal.SIGTERM)
    finished = run.running.end(timeout=END_SECONDS)

    assert finished.returncode != 0
    assert "Traceback" not in finished.stdout, finished.stdout


def test_a_job_that_is_interrupted_while_it_starts_ends(processes: "Processes", start: "Start") -> None:
    run = start("heat.toml", 2, ENDLESS)
    run.running.until(lambda: find(processes, "raylet"), within=60)

    os.kill(run.running.pid, signal.SIGINT)
    finished = run.running.end(timeout=END_SECONDS)

    assert finished.returncode != 0
    assert "Traceback" not in finished.stdout, finished.stdout


@pytest.mark.parametrize(("place", "mode"), [(0, "certified"), (1, "physics")])
def test_a_truth_that_raises_on_one_rank_ends_all_of_them(start: "Start", place: int, mode: str) -> None:
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Failing"', f"kernel.params={{rank = {place}, step = 40}}")

    finished = start("heat.toml", 2, *kernel, f"controller.mode={mode}").running.end(timeout=60)

    assert finished.returncode == 1, finished.stdout
    assert "ArithmeticError: the lattice has melted" in finished.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [("0", "sys.exit was called on one rank while the run was going on"), ('"the table ends here"', "the table ends")],
)
def test_a_rank_that_leaves_in_mid_run_does_not_end_it_as_finished(start: "Start", code: str, said: str) -> None:
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Leaving"', f"kernel.params={{code = {code}}}")

    finished = start("heat.toml", 2, *kernel, "controller.mode=physics").running.end(timeout=60)

    assert finished.returncode == 1, finished.stdout
    assert said in finished.stdout
    assert "Traceback" not in finished.stdout


def test_a_field_that_is_not_finite_any_more_is_named_once_with_its_step(start: "Start") -> None:
    kernel = f'kernel.name="{PLUGINS}/kernels.py:BlowingUp"'
    short = ("controller.mode=physics", "run.steps=20", "run.output_every=5", "output.pictures=false")

    finished = start("heat.toml", 2, kernel, *short).running.end(timeout=60)

    assert finished.returncode == 0, finished.stdout
    told = [line.partition(" in ")[0] for line in finished.stdout.splitlines() if "not finite" in line]
    assert told == ["step    10  not finite: electron", "step    10  not finite: lattice"]


def test_a_truth_of_the_wrong_shape_is_the_user_s_mistake_in_one_sentence(start: "Start") -> None:
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Failing"', "kernel.params={rank = 1, step = 3, raises = false}")

    finished = start("heat.toml", 2, *kernel, "controller.mode=physics").running.end(timeout=60)

    assert finished.returncode == 2, finished.stdout
    assert "coupler: The truth returned an array of shape (288, 1) where" in finished.stdout
    assert "Traceback" not in finished.stdout


def test_a_model_that_answers_nonsense_is_vetoed_and_the_physics_stays(couple: "Couple") -> None:
    physics = couple("decays.toml", 2, "controller.mode=physics").summary

    run = couple("decays.toml", 2)

    assert run.summary.state_sha256 == physics.state_sha256
    assert run.summary.decisions.accepted == 0
    assert run.summary.decisions.vetoed == run.summary.reasons["not_finite"]
    assert {model.operator for model in run.summary.models} == {"nan", "shape", "error"}
    for operator in range(3):
        assert run.reasons(after=20, operator=operator).keys() == {Reason.NOT_FINITE, Reason.AUDIT}


def find(processes: "Processes", name: str) -> int | None:
    """Find a process of this test by its first word: a title that Ray gave, whatever it is at, or a program."""
    return min(all_of(processes, name), default=None)


def all_of(processes: "Processes", name: str) -> set[int]:
    words = {pid: command.split(" ")[0] for pid, command in processes.alive().items()}
    return {pid for pid, word in words.items() if word.startswith(name) or word.endswith(name)}


def one(processes: "Processes", name: str) -> int:
    found = find(processes, name)
    assert found is not None, processes.alive()
    return found


def rank(processes: "Processes", number: int) -> int:
    mark = f"OMPI_COMM_WORLD_RANK={number}".encode()
    ranks = (pid for pid, command in processes.alive().items() if "-m coupler run" in command)
    return next(pid for pid in ranks if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def supervisor(processes: "Processes") -> int:
    return supervisors(processes)[0]


def supervisors(processes: "Processes") -> list[int]:
    return [pid for pid, command in processes.alive().items() if "coupler.serving.supervisor" in command]


def reapers(processes: "Processes") -> list[int]:
    return [pid for pid, command in processes.alive().items() if "coupler.serving.reaper" in command]


def kinds(run: "Started") -> list[str]:
    """What happened to the services, in order."""
    ours = ("server", "trainer", "ray", "given")
    return [event.kind for event in run.files.summary.events if event.kind.startswith(ours)]


def read_events(run: "Started") -> list[dict[str, str]]:
    """The same, from the ledger."""
    rows = Ledger(run.files.path / "ledger.h5").events
    return [{"kind": row["kind"].decode()} for row in rows if row["operator"] < 0]
