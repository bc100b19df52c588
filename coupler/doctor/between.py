"""Between nodes: whether they can reach each other, agree on the time, see one folder and honour each other's locks."""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coupler.doctor.census import Census
from coupler.doctor.finding import Finding

# The clocks of nodes under NTP differ by milliseconds; by a second, and the times in ledger and logs are out of order.
_SKEWED_SECONDS, _WRONG_SECONDS = 0.5, 30.0
_EXCHANGES = 8
_CONNECT_SECONDS = 5.0
# Network file systems may show a new file late [s].
_SHOW_SECONDS = 5.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Meeting:
    """What the first rank of another node found out about that of the first.

    Parameters
    ----------
    host : str
        The other node.
    skew : float
        By how much its clock is ahead [s], to half of ``trip``.
    trip : float
        Shortest time of a message there and back [s].
    refused : str
        Why it could not connect to a port of the first node; empty if it could.
    sees_folder : bool
        Whether it sees a file that the first node has just made in the working directory.
    locked_out : bool
        Whether it respects a lock that the first node holds on that file.
    """

    host: str
    skew: float
    trip: float
    refused: str
    sees_folder: bool
    locked_out: bool


def examine_between(census: Census, folder: Path | None = None) -> list[Finding]:
    """Let the first ranks of all nodes meet that of the first node; nothing to say if there is one node.

    Collective: yes.
    """
    firsts = first_ranks(census)
    if census.failure or len(firsts) < 2:
        return []
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    among = world.Split(0 if census.rank in firsts else MPI.UNDEFINED, census.rank)
    if among == MPI.COMM_NULL:
        return []
    try:
        meetings = _meet(among, census.ranks[census.rank].host, folder or Path.cwd())
    finally:
        among.Free()
    return findings_of(meetings, folder or Path.cwd()) if census.rank == 0 else []


def first_ranks(census: Census) -> list[int]:
    """Give the lowest rank of every node, that of rank 0 first."""
    firsts: dict[str, int] = {}
    for number, rank in enumerate(census.ranks):
        firsts.setdefault(rank.host, number)
    return sorted(firsts.values())


def findings_of(meetings: Sequence[Meeting], folder: Path) -> list[Finding]:
    """Say what the meetings mean.

    Collective: no.
    """
    return [_clocks(meetings), _doors(meetings), _shared(meetings, folder), _locks(meetings)]


def _meet(among, host: str, folder: Path) -> list[Meeting]:  # type: ignore[no-untyped-def]
    skews = [_skew(among, other) for other in range(1, among.size)]
    file = folder / among.bcast(f".coupler-doctor-{secrets.token_hex(4)}" if among.rank == 0 else "")
    with socket.create_server(("", 0), backlog=among.size) as server:
        door = among.bcast(server.getsockname()[1])
        address = among.bcast(socket.gethostname())
        addresses = among.bcast(_own_addresses())
        descriptor = _locked(file) if among.rank == 0 else -1
        among.Barrier()
        mine = None
        if among.rank:
            refused = _refused([address, *addresses], door)
            seen = _appears(file)
            mine = (host, refused, seen, seen and _is_locked(file))
        found = among.gather(mine)
        among.Barrier()
        if descriptor >= 0:
            os.close(descriptor)
        if among.rank == 0:
            with suppress(OSError):
                file.unlink()
    if among.rank:
        return []
    return [
        Meeting(other, skew, trip, refused, sees, locked)
        for (skew, trip), (other, refused, sees, locked) in zip(skews, found[1:], strict=True)
    ]


def _skew(among, other: int) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Ask another node for the time; the shortest of several trips tells best. Others pass through."""
    best = (0.0, float("inf"))
    for _ in range(_EXCHANGES):
        if among.rank == 0:
            sent = time.time()
            among.send(None, other)
            theirs = among.recv(source=other)
            back = time.time()
            if back - sent < best[1]:
                best = (theirs - 0.5 * (sent + back), back - sent)
        elif among.rank == other:
            among.recv(source=0)
            among.send(time.time(), 0)
    return best


def _own_addresses() -> list[str]:
    """Addresses of this node's network devices: its name may lead nowhere, or to loopback."""
    addresses = []
    for line in Path("/proc/net/fib_trie").read_text().split("Local:")[-1].splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            candidate = words[1]
        elif words[:1] == ["/32"] and words[-1] == "LOCAL" and not candidate.startswith("127."):
            addresses.append(candidate)
    return list(dict.fromkeys(addresses))


def _refused(addresses: Sequence[str], port: int) -> str:
    said = "no address"
    for address in addresses:
        try:
            socket.create_connection((address, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            said = f"{address}: {error.strerror or error}"
        else:
            return ""
    return said


def _locked(file: Path) -> int:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return -1
    return descriptor


def _appears(file: Path) -> bool:
    ends = time.monotonic() + _SHOW_SECONDS
    while not file.exists():
        if time.monotonic() > ends:
            return False
        time.sleep(_LOOK_SECONDS)
        with suppress(OSError):
            os.listdir(file.parent)  # noqa: PTH208, asks the server instead of a cache
    return True


def _is_locked(file: Path) -> bool:
    try:
        with file.open("r+") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _clocks(meetings: Sequence[Meeting]) -> Finding:
    worst = max(meetings, key=lambda meeting: abs(meeting.skew))
    found = f"at most {abs(worst.skew) * 1e3:.1f} ms apart ({worst.host}; known to {worst.trip * 500:.1f} ms)"
    if abs(worst.skew) - worst.trip / 2 < _SKEWED_SECONDS:
        return Finding("clocks", "ok", found)
    wrong = abs(worst.skew) > _WRONG_SECONDS
    advice = f"chronyc tracking, on {worst.host} and on the first node; times of files and logs are out of order"
    return Finding("clocks", "wrong" if wrong else "note", found, advice)


def _doors(meetings: Sequence[Meeting]) -> Finding:
    closed = [meeting for meeting in meetings if meeting.refused]
    if not closed:
        return Finding("ports between nodes", "ok", f"open from {len(meetings)} node(s) to the first")
    return Finding(
        "ports between nodes",
        "wrong",
        f"{closed[0].host} cannot connect to the first node ({closed[0].refused}): Ray needs that",
        "open the ports of /proc/sys/net/ipv4/ip_local_port_range between the nodes; or coupler run CASE.toml --set "
        "exchange.transport=inprocess",
    )


def _shared(meetings: Sequence[Meeting], folder: Path) -> Finding:
    blind = [meeting.host for meeting in meetings if not meeting.sees_folder]
    if not blind:
        return Finding("shared folder", "ok", f"{folder} is one folder on all nodes")
    return Finding(
        "shared folder",
        "note",
        f"{folder} of the first node is not that of {', '.join(blind)}: case and plug-ins are read on every node",
        "cd to a folder of the shared file system, or coupler run CASE.toml --out DIR with both paths on it",
    )


def _locks(meetings: Sequence[Meeting]) -> Finding:
    open_to = [meeting.host for meeting in meetings if meeting.sees_folder and not meeting.locked_out]
    if not open_to:
        return Finding("locks between nodes", "ok", "a lock that one node holds keeps the others out")
    return Finding(
        "locks between nodes",
        "note",
        f"{', '.join(open_to)} may lock what the first node has locked: two runs on two nodes could not tell",
        "mount with flock (Lustre: -o flock), or give every run a folder of its own: coupler run CASE.toml --out DIR",
    )
