"""Courtesy: who gives way is in a session of its own, and that and all its threads are nice."""

import json
import subprocess
import sys
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
give_way()
found = dict(pid=os.getpid(), session=os.getsid(0))
found["nice"] = [os.getpriority(os.PRIO_PROCESS, int(one)) for one in os.listdir("/proc/self/task")]
autogroup = "/proc/self/autogroup"
found["group"] = open(autogroup).read() if os.path.exists(autogroup) else ""
waiting.set()
print(json.dumps(found))
"""


def polite(*, leads: bool) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(leads=leads)], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("leads", [True, False], ids=["leads-its-group", "member-of-a-group"])
def test_who_gives_way_has_a_session_of_its_own_and_all_its_threads_are_nice(leads: bool) -> None:
    found = polite(leads=leads)

    assert found["session"] == found["pid"]
    assert len(found["nice"]) >= 2
    assert set(found["nice"]) == {10}


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not group processes by session")
def test_the_kernels_group_of_the_session_is_nice_too() -> None:
    assert "nice 10" in polite(leads=True)["group"]
