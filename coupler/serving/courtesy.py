"""Courtesy: a process that works beside the ranks takes what they leave, and little more."""

import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# A level of niceness is a factor of 1.25 in weight: at 10 a thread gets a tenth of a core that another one wants, too.
_STEP, _NICE, _NICEST = 1.25, 10, 19
_AUTOGROUP = Path("/proc/self/autogroup")
# The kernel takes ten such wishes per second from all users together [s].
_BUSY_SECONDS, _LONGEST_SECONDS = 0.1, 5.0


def give_way(ranks: int) -> None:
    """Let this process, with all threads it has and will have, take a tenth of a core where ranks want it, too.

    Where Linux groups processes by session ("autogroup", on most machines), niceness counts only within a session, and
    two sessions share a core evenly however nice one is. So the process gets a session of its own, whose group is nice,
    and the nicer the more ranks there are: the weight of their group is spread over as many cores. Beside more than
    eight ranks it gets more than a tenth, as there is nothing nicer.

    Parameters
    ----------
    ranks : int
        That have the same cores.

    Raises
    ------
    OSError
        If the kernel does not let this group of processes be nice.

    Collective: no.
    """
    if os.getpid() != os.getsid(0):
        _leave_session()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            nice = max(os.getpriority(os.PRIO_PROCESS, int(thread.name)), _NICE)
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
    if _is_in_a_group() and os.getpid() == os.getsid(0):
        _be_a_nice_group(min(_NICE + round(math.log(ranks, _STEP)), _NICEST))


def _leave_session() -> None:
    """Begin a session; who leads a process group may not, and joins that of a child that ends at once before."""
    try:
        if os.getpid() == os.getpgid(0):
            # Any other group of this session would do, but in a container none need be known by a number.
            with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""], process_group=0) as child:
                os.setpgid(0, child.pid)  # a group lasts until whoever is in it was waited for
        os.setsid()
    except PermissionError:
        return  # somebody else is in that group: niceness within the session is all there is to be had


def _is_in_a_group() -> bool:
    """Whether this kernel groups processes by session; what no session was begun in after boot is in none."""
    return _AUTOGROUP.exists() and _AUTOGROUP.read_text() != ""


def _be_a_nice_group(nice: int) -> None:
    ends = time.monotonic() + _LONGEST_SECONDS
    while True:
        try:
            _AUTOGROUP.write_text(f"{nice}\n")
            return
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
        time.sleep(_BUSY_SECONDS)
