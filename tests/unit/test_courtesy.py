"""Courtesy: who gives way is in a session of its own, and that and all its threads are nice."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

AUTOGROUP = Path("/proc/self/autogroup")

SCRIPT = """
import json, os, threading
if {leads}:
    os.setpgid(0, 0)
waiting = threading.Event()
thread = threading.Thread(target=waiting.wait)
thread.start()
from coupler.serving.courtesy import give_way
os.nice({before})
give_way({ranks})
found = dict(pid=os.getpid(), session=os.getsid(0))
found["nice"] = [os.getpriority(os.PRIO_PROCESS, int(one)) for one in os.listdir("/proc/self/task")]
autogroup = "/proc/self/autogroup"
found["group"] = open(autogroup).read() if os.path.exists(autogroup) else ""
waiting.set()
print(json.dumps(found))
"""


CONTAINED = ("unshare", "--pid", "--fork", "--mount-proc")


def polite(*, leads: bool = True, before: int = 0, ranks: int = 1, within: Sequence[str] = ()) -> dict[str, Any]:
    script = SCRIPT.format(leads=leads, before=before, ranks=ranks)
    command = [*within, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("leads", [True, False], ids=["leads-its-group", "member-of-a-group"])
def test_who_gives_way_has_a_session_of_its_own_and_all_its_threads_are_nice(leads: bool) -> None:
    found = polite(leads=leads)

    assert found["session"] == found["pid"]
    assert len(found["nice"]) >= 2
    assert set(found["nice"]) == {10}


def test_in_a_container_whose_session_was_begun_outside_a_leader_gets_one_all_the_same() -> None:
    allowed = shutil.which("unshare") and subprocess.run([*CONTAINED, "true"], check=False).returncode == 0
    if not allowed:
        pytest.skip("needs a process namespace of its own, and unshare may not make one here")

    found = polite(within=CONTAINED)

    assert found["session"] == found["pid"]


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not group processes by session")
def test_the_kernels_group_of_the_session_is_nice_too() -> None:
    groups = [polite(ranks=ranks)["group"] for ranks in (1, 2, 8, 1000)]

    assert [int(group.rpartition("nice ")[2]) for group in groups] == [10, 13, 19, 19]


def test_who_is_nicer_already_stays_so() -> None:
    assert polite(before=15)["nice"][0] == 15
