"""The reaper: what a process leaves that was killed, and what it keeps that ended as it should."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coupler.serving.reaper import Reaper, stopped

# Takes part in an MPI job whose shared memory it has mapped, as Open MPI maps it; arguments: session, segment.
OWNER = """
import mmap, sys
from pathlib import Path
from coupler.serving.reaper import Reaper

file = open(sys.argv[2], "r+b")
mapped = mmap.mmap(file.fileno(), 0)
reaper = Reaper(Path(sys.argv[1]))
print(reaper._process.pid, flush=True)
sys.stdin.read()
reaper.close()
print("closed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def segments(tmp_path: Path) -> list[Path]:
    """Those of two ranks of a job, and one of another job."""
    found = [tmp_path / f"sm_segment.n7.1000.{rank}" for rank in ("ab0001.0", "ab0001.1", "cd0001.0")]
    for segment in found:
        segment.write_bytes(b"\0" * 4096)
    return found


@pytest.fixture
def session(tmp_path: Path) -> Path:
    folder = tmp_path / "session"
    folder.mkdir()
    return folder


def test_whoever_is_killed_leaves_neither_its_session_nor_the_shared_memory_of_its_job(
    session: Path, segments: list[Path]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(session), str(segments[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        reaper = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()

    await_end(reaper)

    assert not session.exists()
    assert [segment.exists() for segment in segments] == [False, False, True]


def test_whoever_closes_its_session_and_goes_on_keeps_the_shared_memory(session: Path, segments: list[Path]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(session), str(segments[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        owner.stdout.readline()
        owner.stdin.close()
        assert owner.stdout.readline() == b"closed\n"

    assert not session.exists()
    assert all(segment.exists() for segment in segments)


def test_a_reaper_that_stands_still_is_none(session: Path) -> None:
    reaper = Reaper(session)
    pid = reaper._process.pid

    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)

    assert stopped(pid)
    assert not reaper.alive
    reaper.abandon()
    assert session.exists()


def await_end(process: int) -> None:
    assert select.select([process], [], [], 60)[0]
    os.close(process)
