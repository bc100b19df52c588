"""How much processor time the control group of this process allows: batch systems and containers set it."""

from pathlib import Path


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
    for line in _read(memberships).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += [_limit_v2(_read(folder / "cpu.max")) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            mounts = (root / "cpu", root / controllers)
            limits += [_limit_v1(folder) for mount in mounts for folder in _upwards(mount, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upwards(mount: Path, path: str) -> list[Path]:
    inside = mount / path.lstrip("/")
    return [inside, *(folder for folder in inside.parents if folder.is_relative_to(mount))]


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
