"""The timeline of a rank: all of them are on one clock, that of rank 0's node."""

import os
import socket

from coupler.clock import Stopwatch
from coupler.coupling.clocks import clock_offset
from coupler.coupling.nodes import Nodes, on_first, together
from coupler.runfolder import RunFolder
from coupler.timeline import Head, Timeline, make_room


def open_timeline(nodes: Nodes, folder: RunFolder, watch: Stopwatch, *, spans: int) -> Timeline:
    """Begin to note what this rank does when.

    Parameters
    ----------
    nodes : Nodes
        The ranks.
    folder : RunFolder
        Where each of them writes a file of its own.
    watch : Stopwatch
        What the seconds are measured with; its spans go to the timeline from now on.
    spans : int
        Most of them that are kept.

    Raises
    ------
    CouplerError
        If a file cannot be written, on every rank alike.

    Collective: yes.
    """
    on_first(nodes.job, lambda: make_room(folder.trace))
    offset = clock_offset(nodes)
    leaders = nodes.job.allgather(nodes.leads)
    number = sum(leaders[: nodes.job.rank + 1]) - 1 if nodes.leads else 0
    head = Head(
        rank=nodes.job.rank,
        node=nodes.node.bcast(number),
        pid=os.getpid(),
        host=socket.gethostname(),
        offset=offset.nanoseconds,
        doubt=offset.doubt,
        began=int(watch.started * 1e9),
    )
    path = folder.trace / f"rank-{nodes.job.rank:06d}.spans"
    timeline = together(nodes.job, lambda: Timeline(path, head, spans))
    watch.spans = timeline
    return timeline
