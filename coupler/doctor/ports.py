"""Ports: Ray, MPI and their helpers take whatever is free, and some hundred must be."""

import socket
from contextlib import ExitStack
from pathlib import Path

from coupler.doctor.finding import Finding

_SUBJECT = "ports"
# What the servers of Ray and MPI take on a node, and about as many again for their connections.
_TAKEN = 32
_FEW = 1000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def examine_ports(range_file: Path = _RANGE) -> Finding:
    """Look how many ports the system gives out, and take some.

    Collective: no.
    """
    words = range_file.read_text().split() if range_file.exists() else ["1024", "65535"]
    first, last = int(words[0]), int(words[1])
    found = f"{first} to {last} are given out, and {_TAKEN} were free at once"
    try:
        with ExitStack() as held:
            for _ in range(_TAKEN):
                held.enter_context(socket.create_server(("127.0.0.1", 0)))
    except OSError as error:
        advice = "ss -tan | wc -l; a run may need some hundred, so end what holds them"
        return Finding(
            _SUBJECT, "wrong", f"{first} to {last} are given out, and none is free: {error.strerror}", advice
        )
    if last - first + 1 < _FEW:
        return Finding(
            _SUBJECT,
            "note",
            f"{found}: few for runs that share a node",
            "sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
        )
    return Finding(_SUBJECT, "ok", found)
