"""What processes use of the machine."""

import time


def used_by(pid: int) -> float:
    """Give the processor time that a process of this node has used [s]."""
    return time.clock_gettime(~pid << 3 | 2)  # the kernel's number of another process's clock
