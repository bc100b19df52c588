"""The reaper: what a process leaves that was killed, and what it keeps that ended as it should."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coupler.serving.reaper import Reaper, stopped

OWNER = """
import sys
from pathlib import Path
from coupler.serving.reaper import Reaper

reaper = Reaper(Path(sys.argv[1]))
print(reaper._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def session(tmp_path: Path) -> Path:
    folder = tmp_path / "session"
    folder.mkdir()
    return folder


def test_whoever_is_killed_leaves_no_session(session: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(session)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        reaper = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()

    await_end(reaper)

    assert not session.exists()


def test_a_reaper_that_stands_still_is_none(session: Path) -> None:
    reaper = Reaper(session)
    pid = reaper._process.pid

    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)

    assert stopped(pid)
    assert not reaper.alive
    reaper.abandon()
    assert session.exists()


def test_a_reaper_that_stands_still_does_its_work_when_it_is_closed(session: Path) -> None:
    reaper = Reaper(session)
    os.kill(reaper._process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, reaper._process.pid, os.WSTOPPED)

    reaper.close()

    assert not session.exists()
    assert reaper._process.returncode == 0


def await_end(process: int) -> None:
    assert select.select([process], [], [], 60)[0]
    os.close(process)
