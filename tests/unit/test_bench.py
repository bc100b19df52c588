"""The benchmarks' machinery, and every one of their parts once, small: what is timed is not looked at here."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.limits import copies, copy_rate
from benchmarks.harness.ranks import Crew, RanksFailed, on_ranks
from benchmarks.harness.timing import Effort, each, in_turns, row
from coupler.bench import available, measure
from coupler.errors import ConfigError

if TYPE_CHECKING:
    from tests.conftest import Processes

ROOT = Path(__file__).resolve().parents[2]
# Two starts of interpreters with torch, and of Ray, on a machine that others use too.
LONG_SECONDS = 150.0

WORKER = """
import os
from benchmarks.harness.ranks import Worker

class Counter(Worker):
    def __init__(self, comm, start):
        super().__init__(comm)
        self.count = start

    def add(self, many):
        self.count += many * self.comm.rank
        return self.count

    def end(self):
        os._exit(3)

    def wait_for_ever(self):
        self.comm.Barrier()

def sum_of(comm, number):
    return comm.allreduce(number + comm.rank)

def fails_on_one(comm):
    if comm.rank == 1:
        raise ValueError("a mistake in the benchmark")
    comm.Barrier()

def threads(comm):
    return os.environ["OMP_NUM_THREADS"]
"""

Timed = Callable[[int], NDArray[np.float64]]


@pytest.fixture
def worker(tmp_path: Path) -> str:
    (tmp_path / "worker.py").write_text(WORKER)
    return str(tmp_path / "worker.py")


def test_systems_are_timed_in_turns_and_each_begins_a_round() -> None:
    order: list[str] = []

    def system(name: str) -> Timed:
        return each(lambda: order.append(name))

    found = in_turns({name: system(name) for name in "abc"}, Effort(rounds=3, seconds=1.0, most=2))

    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 6, "b": 6, "c": 6}
    assert "".join(order[-18:]) == "aabbcc" + "bbccaa" + "ccaabb"


def test_a_machine_too_slow_for_all_rounds_still_does_three() -> None:
    found = in_turns({"a": each(lambda: None)}, Effort(rounds=9, seconds=1.0, most=1, limit=0.0))

    assert len(found["a"]) == 3


def test_a_turn_has_as_many_repetitions_as_fit_into_it() -> None:
    effort = Effort(seconds=1.0, most=100, least=3)

    assert [effort.repetitions(seconds) for seconds in (0.0, 0.001, 0.1, 10.0)] == [100, 100, 10, 3]


def test_what_is_done_before_a_repetition_is_not_timed() -> None:
    done: list[str] = []

    seconds = each(lambda: done.append("work"), before=lambda: done.append("before"))(2)

    assert done == ["before", "work"] * 2
    assert len(seconds) == 2


def test_a_row_has_what_readers_of_the_file_count_on() -> None:
    found = row("identity/4KiB", "ray-actor", np.arange(11.0), bytes=4096)

    assert found == {
        "case": "identity/4KiB",
        "system": "ray-actor",
        "n": 11,
        "median_s": 5.0,
        "p10_s": 1.0,
        "p90_s": 9.0,
        "bytes": 4096,
    }


def test_the_limit_of_memory_is_measured_and_no_constant() -> None:
    assert len(copies(2**16, 2)(3)) == 3
    assert 1e8 < copy_rate(2**20) < 1e12


def test_a_function_runs_on_ranks_and_gives_what_each_returned(worker: str) -> None:
    assert on_ranks(f"{worker}:sum_of", 3, number=10) == [33, 33, 33]
    assert on_ranks(f"{worker}:threads", 1) == ["1"]


def test_ranks_keep_their_object_from_call_to_call_and_some_may_be_called_alone(worker: str) -> None:
    with Crew(f"{worker}:Counter", 3, start=5) as crew:
        assert crew.call("add", many=1) == [5, 6, 7]
        assert crew.call("add", many=10, only=[2]) == [27]
        assert crew.call("add", many=0) == [5, 6, 27]


def test_a_rank_that_fails_is_named_although_others_wait_for_it(worker: str) -> None:
    with pytest.raises(RanksFailed, match=r"(?s)^Rank 1 failed:.*a mistake in the benchmark"):
        on_ranks(f"{worker}:fails_on_one", 2)


@pytest.mark.parametrize(
    ("method", "said"), [("end", r"Rank \d has ended"), ("wait_for_ever", "did not answer in time")]
)
def test_ranks_that_end_or_hang_end_the_wait_and_leave_nothing(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, said: str
) -> None:
    monkeypatch.setenv("OMPI_MCA_btl_sm_backing_directory", str(tmp_path))

    with Crew(f"{worker}:Counter", 2, start=0) as crew, pytest.raises(RanksFailed, match=said):
        crew.call(method, only=[1], within=2.0)

    assert not list(tmp_path.glob("coupler-bench-*"))


def test_a_benchmark_is_found_by_its_name_and_shared_code_is_none() -> None:
    assert {"exchange", "step", "integrator"} <= available().keys()
    assert not {"__init__", "harness"} & available().keys()
    with pytest.raises(ConfigError, match=r'no benchmark "steps".*"step"'):
        measure(["steps"], lambda name, rows: None)


def _measured(processes: "Processes", code: str) -> list[dict[str, Any]]:
    """Measure something in a fresh process: Ray and MPI are started once in a process, and this one has others."""
    processes.folder.joinpath("measure.py").write_text(f"import json\n{code}\nprint('ROWS', json.dumps(rows))\n")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    finished = processes.run([sys.executable, "measure.py"], timeout=LONG_SECONDS, environment={"PYTHONPATH": path})
    assert finished.returncode == 0, finished.stdout
    line = next(line for line in finished.stdout.splitlines() if line.startswith("ROWS "))
    rows: list[dict[str, Any]] = json.loads(line.removeprefix("ROWS "))
    return rows


EXCHANGE = """
from benchmarks.exchange import measure
from benchmarks.harness.rivals.workload import Workload
from benchmarks.harness.timing import Effort

workloads = [Workload("identity/4KiB", "identity", 32), Workload("mlp/64", "mlp", 64)]
rows = measure(workloads, {systems!r}, Effort(rounds=2, seconds=0.01, most=3))
"""


@pytest.mark.usefixtures("nothing_left_behind")
def test_exchange_measures_rivals_that_need_no_cluster(processes: "Processes") -> None:
    systems = ["coupler-inprocess", "mpi-sendrecv", "unix-socket", "memory-copy", "inprocess-eager", "precice"]

    rows = _measured(processes, EXCHANGE.format(systems=systems))

    assert {(found["case"], found["system"]) for found in rows} == {
        *(("identity/4KiB", system) for system in ("coupler-inprocess", "mpi-sendrecv", "unix-socket", "memory-copy")),
        *(("mlp/64", system) for system in ("coupler-inprocess", "mpi-sendrecv", "unix-socket", "inprocess-eager")),
    }
    for found in rows:
        assert 0 < found["p10_s"] <= found["median_s"] <= found["p90_s"]
        assert found["bytes"] == 128 * found["elements"]


@pytest.mark.ray
@pytest.mark.usefixtures("nothing_left_behind")
def test_exchange_measures_the_product_beside_ray_in_one_cluster(processes: "Processes") -> None:
    systems = ["coupler-shared", "coupler-shared-copied", "ray-actor", "ray-compiled-graph"]

    rows = _measured(processes, EXCHANGE.format(systems=systems))

    assert [found["system"] for found in rows] == systems * 2
    assert {found["copies"] for found in rows if found["system"] == "coupler-shared"} == {"none"}


def test_zeromq_is_measured_where_it_is_installed(processes: "Processes") -> None:
    pytest.importorskip("zmq", reason="needs pyzmq: pip install -e .[bench]")

    rows = _measured(processes, EXCHANGE.format(systems=["zeromq"]))

    assert [found["system"] for found in rows] == ["zeromq", "zeromq"]


def test_a_system_that_answers_wrongly_is_refused() -> None:
    from benchmarks.harness.rivals.workload import Workload

    workload = Workload("identity/4KiB", "identity", 32)
    inputs = workload.inputs()

    workload.check(inputs.copy(), inputs, "right")
    with pytest.raises(AssertionError, match="wrong answers wrongly in identity/4KiB"):
        workload.check(inputs + 1e-12, inputs, "wrong")


STEP = """
from benchmarks.harness.timing import Effort
from benchmarks.step import measure

rows = measure([{ranks}], {systems!r}, Effort(rounds=2, seconds=0.01, most=5, least=2))
"""


@pytest.mark.usefixtures("nothing_left_behind")
def test_step_says_what_every_system_adds_to_a_step(processes: "Processes") -> None:
    systems = ["coupler-inprocess", "inprocess-eager", "mpi-sendrecv", "unix-socket"]

    rows = _measured(processes, STEP.format(systems=systems, ranks=2))

    found = {row["system"]: row for row in rows if row["case"] == "ranks/2"}
    assert set(found) == {"compute", *systems}
    assert found["compute"]["added_s"] == 0.0
    relative = {row["system"]: row["relative"] for row in rows if row["case"] == "throughput/2"}
    assert relative["compute"] == 1.0
    assert set(relative) == {"compute", "coupler-inprocess"}
    idle = {row["system"]: row["core_share"] for row in rows if row["case"] == "idle/server"}
    assert set(idle) == {"unix-socket", "mpi-sendrecv"}


@pytest.mark.ray
@pytest.mark.usefixtures("nothing_left_behind")
def test_step_has_the_product_and_ray_drivers_in_one_cluster(processes: "Processes") -> None:
    rows = _measured(processes, STEP.format(systems=["coupler-shared", "ray-actor"], ranks=1))

    assert [row["system"] for row in rows if row["case"] == "ranks/1"] == ["compute", "coupler-shared", "ray-actor"]
    assert {row["system"] for row in rows if row["case"] == "idle/server"} == {"coupler-shared", "ray-actor"}
