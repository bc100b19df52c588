"""What a run shows to others while it goes on: nothing on the network, nothing that another user can open."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Processes
    from tests.e2e.conftest import Start

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

PLUGINS = Path(__file__).parent / "plugins"
LISTENING = "0A"
# 127.0.0.1 as /proc writes it, as an address of version 4 and as the same one in version 6; and ::1.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
RAY = ("gcs_server", "raylet", "ray::Server")
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def test_a_run_listens_on_loopback_only_and_what_it_shares_is_its_user_s_alone(
    processes: "Processes", start: "Start", tmp_path: Path
) -> None:
    hurry = tmp_path / "hurry"
    kernel = (f'kernel.name="{PLUGINS}/kernels.py:Patient"', f'kernel.params={{file = "{hurry}"}}')
    run = start("heat.toml", 2, *kernel, "learning.mode=asynchronous", "run.steps=2000")
    run.until_a_model_answers()

    alive = processes.alive()
    of_ray = {
        pid: line for pid, line in alive.items() if "ray" in line and "mpirun" not in line and "prterun" not in line
    }
    for name in RAY:
        assert any(name in line for line in of_ray.values()), of_ray
    doors = listening()
    open_doors = {pid: doors[inode] for pid in of_ray for inode in sockets(pid) if inode in doors}
    segments = [descriptor for pid in alive for descriptor in descriptors(pid) if "memfd:coupler" in link(descriptor)]
    (folder,) = {
        place for place in Path("/tmp").glob("coupler-ray-*") if any(str(place) in line for line in of_ray.values())
    }

    assert len(open_doors) >= len(RAY)
    assert set(open_doors.values()) <= LOOPBACK, open_doors
    assert segments
    assert {stat.S_IMODE(descriptor.stat().st_mode) for descriptor in segments} == {PRIVATE_FILE}
    assert stat.S_IMODE(folder.stat().st_mode) == PRIVATE_FOLDER
    assert stat.S_IMODE((folder / "token").stat().st_mode) == PRIVATE_FILE
    hurry.touch()
    assert run.running.end(timeout=60).returncode == 0


def listening() -> dict[str, str]:
    """Addresses on which somebody listens, by the number of the socket."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[9]: row[1].partition(":")[0] for row in rows if row[3] == LISTENING}


def sockets(pid: int) -> set[str]:
    links = map(link, descriptors(pid))
    return {target.removeprefix("socket:[").removesuffix("]") for target in links if target.startswith("socket:[")}


def descriptors(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended while we looked
        return []


def link(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)  # noqa: PTH115, the target is no path
    except OSError:
        return ""
