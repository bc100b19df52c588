"""Shared memory: room, what the arena is made of, and what killed runs of others left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from coupler.case import ExchangeSection
from coupler.cgroup import memory_limit
from coupler.doctor.finding import Finding
from coupler.exchange.arena import SlotShape
from coupler.exchange.segment import available_bytes
from coupler.openmpi import abandoned_sessions
from coupler.serving.reaper import session_processes

# The object store of an embedded cluster, with some room.
_ROOM_BYTES = 128 * 2**20
_OPEN_SECONDS = 10.0
# The arena of a case that says nothing about it, with an operator as wide as a small mechanism of chemistry.
_SLOT_ELEMENTS = ExchangeSection().slot_elements
_COLUMNS = 16


def examine_memory(ranks: int = 1) -> list[Finding]:
    """Look at /dev/shm and try what the arena does: a segment without a name that another process opens.

    Parameters
    ----------
    ranks : int
        How many will be on this node.

    Collective: no.
    """
    return [_room(Path("/dev/shm")), arena_room(ranks, available_bytes(), memory_limit()), _segment(), _pidfd()]


def arena_room(ranks: int, free: int, limit: int | None) -> Finding:
    """Compare what the arena takes with what there is: its memory counts as the job's, not as that of ``/dev/shm``.

    Parameters
    ----------
    ranks : int
        Ranks on this node.
    free : int
        Bytes that the node has.
    limit : int or None
        Bytes that the control group allows in all.

    Collective: no.
    """
    needed = ranks * SlotShape(0, _SLOT_ELEMENTS, _COLUMNS, _COLUMNS).bytes
    most = free if limit is None else min(free, limit)
    allowed = "" if limit is None else f", the control group allows {limit / 2**20:,.0f} MiB in all"
    found = (
        f"the arena of {ranks} rank(s) takes up to {needed / 2**20:,.0f} MiB ({_COLUMNS} inputs and outputs); "
        f"{free / 2**20:,.0f} MiB are free{allowed}"
    )
    if needed > most:
        return Finding(
            "memory", "wrong", found, "coupler run CASE.toml --set exchange.slot_elements=8192, or fewer ranks"
        )
    if 2 * needed > most:
        return Finding("memory", "note", found, "coupler run CASE.toml --set exchange.slot_elements=16384")
    return Finding("memory", "ok", found)


def examine_leftovers(temporary: Path = Path("/tmp"), shared: Path = Path("/dev/shm")) -> list[Finding]:
    """Look for files of runs that no longer live.

    Collective: no.
    """
    mine = [path for path in [*temporary.glob("coupler-ray-*"), *shared.glob("coupler*")] if _is_mine(path)]
    dead = [str(path) for path in mine if not session_processes(path, os.getpid())]
    # No later mpirun can start with the number of one that was killed while its folder is there.
    dead += sorted(str(path) for path in abandoned_sessions(temporary) if _is_mine(path))
    if dead:
        return [Finding("leftovers", "note", f"{len(dead)} of runs that were killed", f"rm -r {' '.join(dead)}")]
    return [Finding("leftovers", "ok", f"none; clusters of this user that run now: {len(mine)}")]


def _room(place: Path) -> Finding:
    if not place.is_dir():
        return Finding(str(place), "note", "missing: Ray uses files instead", f"mount -t tmpfs tmpfs {place}")
    usage = shutil.disk_usage(place)
    found = f"{usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MiB free"
    if usage.free < _ROOM_BYTES:
        return Finding(
            str(place), "note", f"{found}: Ray uses files instead", "docker run --shm-size=1g, or remove files"
        )
    return Finding(str(place), "ok", found)


def _segment() -> Finding:
    subject, advice = "arena", "coupler run CASE.toml --set exchange.transport=inprocess"
    try:
        descriptor = os.memfd_create("coupler-doctor", os.MFD_CLOEXEC)
    except OSError as error:
        return Finding(subject, "wrong", f"no memfd: {error.strerror}", advice)
    try:
        os.write(descriptor, b"arena")
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        code = f"import sys; sys.stdout.write(open({path!r}, 'r+').read())"
        command = [sys.executable, "-I", "-S", "-c", code]
        read = subprocess.run(command, capture_output=True, text=True, timeout=_OPEN_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(subject, "wrong", f"another process could not be asked: {error}", advice)
    finally:
        os.close(descriptor)
    if read.stdout != "arena":
        said = (read.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding(subject, "wrong", f"another process of this user cannot open it in /proc: {said}", advice)
    return Finding(subject, "ok", "a segment without a name (memfd), opened by another process")


def _pidfd() -> Finding:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Finding(
            "watching the server",
            "wrong",
            f"no pidfd ({error.strerror}): needs Linux 5.3 and a sandbox that allows it",
            "coupler run CASE.toml --set exchange.transport=inprocess",
        )
    return Finding("watching the server", "ok", "by pidfd")


def _is_mine(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid()
    except OSError:  # its run ended and removed it while we looked
        return False
