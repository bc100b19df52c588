"""The lock of a run folder: one owner at a time, and none once the owner's process has ended."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coupler.errors import ConfigError
from coupler.lock import FolderLock

HOLD = """
import sys
from pathlib import Path
from coupler.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_held_lock_is_refused_and_its_owner_named_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    with pytest.raises(ConfigError, match=rf"A run is going on in {tmp_path} \(process {holder.pid} on .*\)"):
        FolderLock(path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)
    lock = FolderLock(path)

    lock.release()
    lock.release()  # does nothing


def test_a_lock_that_was_let_go_can_be_taken_again(tmp_path: Path) -> None:
    FolderLock(tmp_path / ".lock").release()

    FolderLock(tmp_path / ".lock").release()
