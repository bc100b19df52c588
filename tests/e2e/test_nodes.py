"""Runs over two hosts of this machine, each with a network, memory, processes and temporary files of its own."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from coupler.records import Reason

if TYPE_CHECKING:
    from benchmarks.harness.hosts import Host
    from tests.e2e.conftest import Across, Couple, RunFiles

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

PLUGINS = Path(__file__).parent / "plugins"
ASYNCHRONOUS = "learning.mode=asynchronous"
ON_RESOURCE = "ray.servers=model"
STEPS = 2000
DEADLINE = 1.0
END_SECONDS = 60.0
ACTORS = ("ray::Server", "ray::RemoteServer", "ray::Relay", "ray::TrainingActor")


# What the model answers is what the fields become.
ANSWERED = ("heat.toml", "controller.mode=surrogate")


@pytest.fixture(scope="module")
def one_host(couple: "Couple") -> "RunFiles":
    return couple(ANSWERED[0], 2, ANSWERED[1])


def test_physics_is_the_same_bits_on_two_hosts(across: "Across", couple: "Couple") -> None:
    physics = "controller.mode=physics"

    run = across("heat.toml", (2, 1), physics)

    assert run.summary.ranks == 3
    assert run.summary.state_sha256 == couple("heat.toml", 2, physics).summary.state_sha256


@pytest.mark.parametrize(
    "settings",
    [(), (ON_RESOURCE,), ("exchange.transport=objectstore",), ("exchange.transport=inprocess",)],
    ids=["a server on each", "a server on the first", "relays on both", "no server"],
)
def test_a_learning_run_over_two_hosts_is_the_same_bits(
    across: "Across", one_host: "RunFiles", settings: tuple[str, ...]
) -> None:
    address = f"ray.address={across.hosts.ray_address}"

    run = across(ANSWERED[0], (1, 1), ANSWERED[1], address, *settings)

    assert run.summary.decisions.accepted > 0
    assert run.summary.models == one_host.summary.models
    assert run.summary.decisions == one_host.summary.decisions
    assert run.summary.state_sha256 == one_host.summary.state_sha256
    assert not [command for host in across.hosts.hosts for command in host.processes().values() if is_actor(command)]


def test_questions_through_the_object_store_of_one_node_have_the_same_answers(
    couple: "Couple", one_host: "RunFiles"
) -> None:
    run = couple(ANSWERED[0], 2, ANSWERED[1], "exchange.transport=objectstore")

    assert run.summary.decisions.accepted > 0
    assert run.summary.state_sha256 == one_host.summary.state_sha256


def test_ranks_whose_server_on_another_host_is_killed_get_another_and_the_others_keep_theirs(
    across: "Across",
) -> None:
    first, second = across.hosts.hosts
    hurry = across.folder / "hurry"
    run = across.start("heat.toml", (1, 1), *patient(hurry), f"ray.address={across.hosts.ray_address}", ON_RESOURCE)
    run.until_a_model_answers()

    os.kill(one(first, "ray::RemoteServer"), signal.SIGKILL)
    run.until(lambda last: last["decisions"]["disabled"] > 0)
    lost = run.files.metrics[-1]["step"]
    run.until(lambda last: last["server_restarts"] >= 2)  # the server, and its relay on the other host
    run.until_a_model_answers()
    hurry.touch()
    finished = run.running.end(END_SECONDS)

    assert finished.returncode == 0, finished.stdout
    after = run.files.ledger[run.files.ledger["step"] >= lost]
    reasons = [after["reasons"][after["rank"] == rank].sum(axis=0) for rank in (0, 1)]
    assert reasons[0][Reason.SERVER_LOST] == 0
    assert reasons[1].sum() > reasons[1][Reason.SERVER_LOST] > 0
    kinds = [event.kind for event in run.files.summary.events]
    assert kinds.count("server-lost") == kinds.count("server-back") == run.files.summary.server_restarts == 2
    assert find(second, "ray::Relay") is None


def test_a_deterministic_run_ends_at_once_with_a_server_of_another_host_where_there_is_no_other(
    across: "Across",
) -> None:
    second, endless = across.hosts.hosts[1], (*patient(across.folder / "never"), "learning.mode=deterministic")
    given = ("ray.restarts=0", "exchange.patience=600", f"ray.address={across.hosts.ray_address}")
    run = across.start("heat.toml", (1, 1), *endless, *given)
    run.until_a_model_answers()

    os.kill(one(second, "ray::Server"), signal.SIGKILL)
    finished = run.running.end(END_SECONDS)

    assert finished.returncode == 2, finished.stdout
    assert "the surrogate server is gone, and in deterministic mode a run cannot go on without it" in finished.stdout


def test_four_hosts_have_the_bits_of_one(four_across: "Across", one_host: "RunFiles") -> None:
    run = four_across(ANSWERED[0], (1, 1, 1, 1), ANSWERED[1], f"ray.address={four_across.hosts.ray_address}")

    assert run.summary.ranks == 4
    assert run.summary.models == one_host.summary.models
    assert run.summary.state_sha256 == one_host.summary.state_sha256


def test_a_run_outlives_the_host_of_its_server(fresh_across: "Across") -> None:
    hurry, deadline = fresh_across.folder / "hurry", "exchange.deadline=1.0"
    address = f"ray.address={fresh_across.hosts.ray_address}"
    run = fresh_across.start("heat.toml", (2, 0), *patient(hurry), address, ON_RESOURCE, deadline)
    run.until_a_model_answers()

    fresh_across.hosts.hosts[1].cut_power()
    run.until(lambda last: last["decisions"]["timeout"] + last["decisions"]["disabled"] > 0)
    hurry.touch()
    # The summary is the last thing a run writes. mpirun is not waited for: with a host of its network gone it sometimes
    # does not notice that all its ranks have ended (Open MPI 5.0.11).
    run.running.until((run.files.path / "summary.json").exists, within=END_SECONDS)

    assert run.files.summary.status == "finished"
    waits = run.files.ledger[run.files.ledger["wait_seconds"] > 0.5]
    assert all(np.count_nonzero(waits["rank"] == rank) <= 1 for rank in (0, 1)), waits
    assert sum(dict(run.files.summary.decisions).values()) == STEPS * 24 * 24


@pytest.mark.parametrize(
    ("silence", "steps", "replaced"),
    [(60, 200, False), (4, 100, True)],
    ids=["the same server answers again", "another server takes its place"],
)
def test_a_run_outlives_a_link_that_is_cut_for_a_while(
    fresh_across: "Across", silence: int, steps: int, replaced: bool
) -> None:
    hosts, hurry = fresh_across.hosts, fresh_across.folder / "hurry"
    settings = (*ANSWERED[1:], f"ray.address={hosts.ray_address}", ON_RESOURCE, f"ray.silence={silence}")
    slow = patient(hurry, seconds=0.1, steps=1200)
    run = fresh_across.start("heat.toml", (2, 0), *slow, *settings, f"exchange.deadline={DEADLINE}")
    run.until(is_answered)
    before = run.files.metrics[-1]["step"]

    hosts.cut(hosts.hosts[1])
    run.until(lambda last: not is_answered(last))
    lost = run.files.metrics[-1]["step"]
    run.until(lambda last: last["step"] > lost + steps)
    hosts.mend(hosts.hosts[1])
    run.until(is_answered)
    back = run.files.metrics[-1]["step"]
    hurry.touch()
    finished = run.running.end(END_SECONDS)

    assert finished.returncode == 0, finished.stdout
    assert not any(map(is_answered, run.files.metrics[lost : lost + steps]))
    meanwhile = run.files.ledger[(run.files.ledger["step"] > before) & (run.files.ledger["step"] < back)]
    waits = meanwhile[meanwhile["wait_seconds"] > DEADLINE / 2]
    assert all(np.count_nonzero(waits["rank"] == rank) <= 1 for rank in (0, 1)), waits
    assert (run.files.summary.server_restarts > 0) == replaced
    assert replaced == any("the server on host2 is lost" in event.sentence for event in run.files.summary.events)


def test_a_run_over_two_hosts_says_what_cluster_it_needs(across: "Across") -> None:
    finished = across.start("heat.toml", (1, 1)).running.end(END_SECONDS)

    assert finished.returncode == 2, finished.stdout
    assert "The ranks are on 2 nodes, and the Ray cluster that a run starts for itself reaches one." in finished.stdout
    assert "ray.address=FIRST:6379" in finished.stdout
    assert "Traceback" not in finished.stdout


def test_a_resource_that_no_node_has_is_named(across: "Across") -> None:
    address = f"ray.address={across.hosts.ray_address}"

    finished = across.start("heat.toml", (1, 1), address, "ray.servers=models").running.end(END_SECONDS)

    assert finished.returncode == 2, finished.stdout
    assert 'ray.servers = "models", but no node of the Ray cluster has that resource.' in finished.stdout
    assert "Did you mean" in finished.stdout
    assert "Traceback" not in finished.stdout


def test_ranks_without_a_server_beside_them_cannot_share_memory_with_it(across: "Across") -> None:
    settings = (f"ray.address={across.hosts.ray_address}", ON_RESOURCE, "exchange.transport=shared")

    finished = across.start("heat.toml", (1, 1), *settings).running.end(END_SECONDS)

    assert finished.returncode == 2, finished.stdout
    assert 'exchange.transport = "shared", but host2 has ranks and no server' in finished.stdout


def test_the_doctor_looks_at_both_hosts_and_between_them(across: "Across") -> None:
    command = across.hosts.mpirun((1, 1), [sys.executable, "-m", "coupler", "doctor", "--json"])
    surroundings = {**across.hosts.environment, "RAY_ADDRESS": across.hosts.ray_address}

    finished = across.processes.run(command, timeout=2 * END_SECONDS, environment=surroundings)

    # On a line of its own: Open MPI's launcher may say something of its own first, and that begins with a bracket too.
    document = finished.stdout[finished.stdout.index("[\n") :]
    rows = {row["subject"]: row for row in json.loads(document)}
    assert finished.returncode == int(any(row["status"] == "wrong" for row in rows.values()))
    assert rows["ranks"]["found"] == "2 on 2 nodes"
    between = ("clocks", "ports between nodes", "shared folder", "locks between nodes")
    assert {name: rows[name]["status"] for name in between} == dict.fromkeys(between, "ok")
    assert {"cores of host1", "cores of host2"} <= rows.keys()
    assert rows["Ray cluster"]["status"] == "ok"


def patient(hurry: Path, seconds: float = 0.02, steps: int = STEPS) -> tuple[str, ...]:
    params = f'{{file = "{hurry}", seconds = {seconds}}}'
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Patient"', f"kernel.params={params}")
    return (*kernel, ASYNCHRONOUS, f"run.steps={steps}")


def is_answered(step: dict[str, Any]) -> bool:
    """Whether a model answered whatever was asked in a step."""
    decisions = step["decisions"]
    return bool(decisions["accepted"] > 0 == decisions["timeout"] == decisions["disabled"])


def is_actor(command: str) -> bool:
    return command.startswith(ACTORS)


def find(host: "Host", name: str) -> int | None:
    return next((pid for pid, command in host.processes().items() if command.split(" ")[0].startswith(name)), None)


def one(host: "Host", name: str) -> int:
    found = find(host, name)
    assert found is not None, host.processes()
    return found
