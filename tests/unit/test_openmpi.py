"""What Open MPI leaves: however a job ends, nothing of it is there afterwards, and no other job's is touched."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

# Takes part in an MPI job whose shared memory it has mapped, as Open MPI maps it.
RANK = """
import mmap, sys
from coupler.openmpi import guard

file = open(sys.argv[1], "r+b")
mapped = mmap.mmap(file.fileno(), 0)
assert guard() is guard()
print(guard().pid, flush=True)
sys.stdin.read()
"""
# Starts a rank that has a guard and no MPI yet, and its neighbour, which has; ends them when it is told to.
EARLY = """
import subprocess, sys

FIRST = '''
import sys
from coupler.openmpi import guard, guard_early
guard_early()
print(guard().pid, flush=True)
sys.stdin.read()
'''
SECOND = '''
import mmap, sys
file = open(sys.argv[1], "r+b")
mapped = mmap.mmap(file.fileno(), 0)
print("mapped", flush=True)
sys.stdin.read()
'''

def start(code):
    return subprocess.Popen(
        [sys.executable, "-c", code, sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

ranks = [start(FIRST), start(SECOND)]
said = [rank.stdout.readline() for rank in ranks]
print(said[0], flush=True)
sys.stdin.read()
for rank in ranks:
    rank.kill()
"""


@pytest.fixture
def segments(tmp_path: Path) -> list[Path]:
    """Those of two ranks of a job, and one of another job."""
    found = [tmp_path / f"sm_segment.n7.1000.{rank}" for rank in ("ab0001.0", "ab0001.1", "cd0001.0")]
    for segment in found:
        segment.write_bytes(b"\0" * 4096)
    return found


def started(segment: Path, session: str = "") -> "tuple[subprocess.Popen[bytes], int]":
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK, str(segment)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PMIX_SERVER_TMPDIR": session},
    )
    assert rank.stdout is not None
    return rank, os.pidfd_open(int(rank.stdout.readline()))


def await_end(handle: int) -> None:
    ended, _, _ = select.select([handle], [], [], 20.0)
    os.close(handle)
    assert ended


def test_the_shared_memory_of_a_job_whose_leading_rank_is_killed_is_removed_and_no_other(segments: list[Path]) -> None:
    rank, guard = started(segments[0])

    with rank:
        rank.kill()
    await_end(guard)

    assert [segment.exists() for segment in segments] == [False, False, True]


def test_a_guard_that_was_there_before_mpi_learns_what_its_neighbours_map(segments: list[Path]) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", EARLY, str(segments[0])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
    )
    assert launcher.stdout is not None and launcher.stdin is not None
    guard = os.pidfd_open(int(launcher.stdout.readline()))

    ended, _, _ = select.select([guard], [], [], 0.5)  # it looks twenty times a second
    with launcher:
        launcher.stdin.close()
    await_end(guard)

    assert not ended
    assert [segment.exists() for segment in segments] == [False, False, True]


def test_what_is_left_of_a_job_that_ended_as_it_should_is_removed_too(segments: list[Path]) -> None:
    rank, guard = started(segments[0])

    with rank:
        assert rank.stdin is not None
        rank.stdin.close()
        assert rank.wait(20.0) == 0
    await_end(guard)

    assert [segment.exists() for segment in segments] == [False, False, True]


def test_the_guard_of_a_job_whose_memory_open_mpi_has_removed_has_nothing_to_do(segments: list[Path]) -> None:
    rank, guard = started(segments[0])
    for segment in segments[:2]:
        segment.unlink()

    with rank:
        rank.kill()
    await_end(guard)

    assert segments[2].exists()


def test_the_folder_of_a_job_goes_with_its_launcher_and_no_sooner(segments: list[Path], tmp_path: Path) -> None:
    launcher = subprocess.Popen(["sleep", "60"])
    session, others = tmp_path / f"ompi.{launcher.pid}", tmp_path / "ompi.1"
    for folder in (session, others):
        folder.joinpath("1").mkdir(parents=True)
    rank, guard = started(segments[0], str(session))

    with rank:
        rank.kill()
    while segments[0].exists():
        assert session.exists()
    assert session.exists()
    with launcher:
        launcher.kill()
    await_end(guard)

    assert (session.exists(), others.exists()) == (False, True)


def test_a_folder_that_is_not_open_mpis_is_nobodys_to_remove(segments: list[Path], tmp_path: Path) -> None:
    launcher = subprocess.Popen(["sleep", "60"])
    session = tmp_path / f"pmix.{launcher.pid}"
    session.mkdir()
    rank, guard = started(segments[0], str(session))

    with launcher, rank:
        rank.kill()
        launcher.kill()
    await_end(guard)

    assert session.exists()
