"""Courtesy: a process that works beside the ranks takes what they leave, and little more."""

import os
import time
from pathlib import Path

# By the scheduler's weights it gets a tenth of a core that somebody else wants, too.
_NICE = 10
_AUTOGROUP = Path("/proc/self/autogroup")
# The kernel takes ten such wishes per second from all users together [s].
_BUSY_SECONDS, _LONGEST_SECONDS = 0.1, 5.0


def give_way() -> None:
    """Let this process, with all threads it has and will have, take a tenth of a core where ranks want it, too.

    Where Linux groups processes by session ("autogroup", on most machines), niceness counts only within a session, and
    two sessions share a core evenly however nice one is. So the process gets a session of its own, whose group is nice.

    Raises
    ------
    OSError
        If the kernel does not let a process be nicer.

    Collective: no.
    """
    if os.getpid() != os.getsid(0):
        _leave_session()
    for thread in Path("/proc/self/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)
    if _AUTOGROUP.exists():
        _be_a_nice_group()


def _leave_session() -> None:
    """Begin a session; who leads a process group may not, and joins the first group of the old session before."""
    try:
        if os.getpid() == os.getpgid(0):
            os.setpgid(0, os.getsid(0))
        os.setsid()
    except PermissionError:
        return  # nobody is left in that group: niceness within the session is all there is to be had


def _be_a_nice_group() -> None:
    ends = time.monotonic() + _LONGEST_SECONDS
    while True:
        try:
            _AUTOGROUP.write_text(f"{_NICE}\n")
            return
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
        time.sleep(_BUSY_SECONDS)
