"""How much time and memory the control group of this process allows: batch systems and containers set it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Version 1 writes about 2**63 where there is none.
_NO_LIMIT_BYTES = 2**60


class _MemoryFiles(NamedTuple):
    """Where a version writes what a group may take and has taken, and what it calls files that nobody uses."""

    limit: str
    used: str
    idle: str


_MEMORY_FILES = {
    1: _MemoryFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: _MemoryFiles("memory.max", "memory.current", "inactive_file"),
}


def cpu_quota(memberships: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Read the tightest limit of the control group and those around it, version 1 or 2.

    Parameters
    ----------
    memberships : Path
        Which groups this process is in, a line ``number:controllers:path`` each.
    root : Path
        Where the groups are mounted.

    Returns
    -------
    float or None
        Cores' worth of time; None without a limit.

    Collective: no.
    """
    limits = []
    for version, folder in _folders(memberships, root, "cpu"):
        limits.append(_limit_v1(folder) if version == 1 else _limit_v2(_read(folder / "cpu.max")))
    return min((limit for limit in limits if limit is not None), default=None)


def memory_limit(memberships: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Read the tightest limit of memory of the control group and those around it, version 1 or 2.

    Parameters
    ----------
    memberships, root : Path
        As of :func:`cpu_quota`.

    Returns
    -------
    int or None
        Bytes; None without a limit.

    Collective: no.
    """
    return min((group.limit for group in _memory_groups(memberships, root)), default=None)


def memory_left(memberships: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Read how much more the control group and those around it may take before the system kills somebody in them.

    Pages of files that nobody has used for a while are given back before that, and count as left.

    Parameters
    ----------
    memberships, root : Path
        As of :func:`cpu_quota`.

    Returns
    -------
    int or None
        Bytes; None without a limit.

    Collective: no.
    """
    return min((max(group.limit - group.used, 0) for group in _memory_groups(memberships, root)), default=None)


class _MemoryGroup(NamedTuple):
    """What a group may take, and has taken [bytes]."""

    limit: int
    used: int


def _memory_groups(memberships: Path, root: Path) -> Iterator[_MemoryGroup]:
    """Give the groups around this process that have a limit."""
    for version, folder in _folders(memberships, root, "memory"):
        files = _MEMORY_FILES[version]
        limit = _number(_read(folder / files.limit))
        if limit is not None and limit < _NO_LIMIT_BYTES:
            idle = dict(line.split() for line in _read(folder / "memory.stat").splitlines()).get(files.idle, "")
            yield _MemoryGroup(limit, (_number(_read(folder / files.used)) or 0) - (_number(idle) or 0))


def _folders(memberships: Path, root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Give the groups of this process and those around them that this controller limits, with their version."""
    for line in _read(memberships).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts, version = [root], 2
        elif controller in controllers.split(","):  # mounted under its own name, or under that of all it is with
            mounts, version = list(dict.fromkeys((root / controller, root / controllers))), 1
        else:
            continue
        for mount in mounts:
            inside = mount / path.lstrip("/")
            for folder in (inside, *inside.parents):
                if folder.is_relative_to(mount):
                    yield version, folder


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None


def _limit_v2(text: str) -> float | None:
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _limit_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
