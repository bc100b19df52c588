"""Ray: can it be imported, is a given cluster there, can an embedded one be started."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from coupler.doctor.finding import Finding

_IMPORT_SECONDS = 10.0
_CONNECT_SECONDS = 2.0
# Longest path of a Unix socket, and what Ray puts behind the folder of an embedded cluster:
# /ray/session_YYYY-MM-DD_hh-mm-ss_uuuuuu_PID/sockets/plasma_store.
_SOCKET_BYTES = 107
_FOLDER = "/tmp/coupler-ray-xxxxxxxx"
_BELOW_FOLDER = len("/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_ROOM_BYTES = 2**30


def examine_ray() -> list[Finding]:
    """Look at Ray without starting anything of it.

    Collective: no.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    findings = [_import(), _cluster(address)]
    if address not in ("", "local"):
        findings.append(_token(Path.home() / ".ray" / "auth_token"))
    else:
        findings += [_folder(Path("/tmp")), _loopback()]
    return findings


def _import() -> Finding:
    command = [sys.executable, "-c", "import ray; print(ray.__version__)"]
    advice = "pip install --force-reinstall ray"
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        slow = f"its import takes more than {_IMPORT_SECONDS:.0f} s: a slow file system?"
        return Finding("Ray", "note", slow, f"time {sys.executable} -c 'import ray'")
    if finished.returncode != 0:
        said = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("Ray", "wrong", f"it cannot be imported: {said}", advice)
    return Finding("Ray", "ok", finished.stdout.strip())


def _cluster(address: str) -> Finding:
    subject = "Ray cluster"
    if address in ("", "local"):
        return Finding(subject, "ok", "RAY_ADDRESS is not set: every run starts one of its own on loopback")
    if address == "auto":
        return Finding(subject, "note", "RAY_ADDRESS = auto was not tried", "ray status")
    if "://" in address:
        advice = "export RAY_ADDRESS=HOST:6379"
        return Finding(subject, "wrong", f"{address} goes through a proxy, the server must share the node", advice)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return Finding(subject, "wrong", f"RAY_ADDRESS = {address} is no address", "export RAY_ADDRESS=HOST:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        advice = "ray start --head on that host, or unset RAY_ADDRESS"
        return Finding(subject, "wrong", f"{address} does not answer: {error}", advice)
    return Finding(subject, "ok", f"{address} answers")


def _token(default: Path) -> Finding:
    subject = "Ray token"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else default
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Finding(subject, "ok", "in RAY_AUTH_TOKEN")
    if not path.is_file():
        advice = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE, here and where the cluster is started"
        needed = os.environ.get("RAY_AUTH_MODE") == "token"
        return Finding(subject, "wrong" if needed else "note", f"none: there is no {path}", advice)
    if path.stat().st_mode & 0o077:
        return Finding(subject, "note", f"others on this machine can read {path}", f"chmod 600 {path}")
    return Finding(subject, "ok", str(path))


def _folder(place: Path) -> Finding:
    """Embedded clusters live below /tmp, whatever TMPDIR says, because the names of sockets must be short."""
    assert len(_FOLDER) + _BELOW_FOLDER <= _SOCKET_BYTES
    subject = f"{place} for Ray"
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(subject, "wrong", "it cannot be written", f"chmod 1777 {place}")
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free; sockets' names have {len(_FOLDER) + _BELOW_FOLDER} of {_SOCKET_BYTES} bytes"
    if free < _ROOM_BYTES:
        return Finding(subject, "wrong", found, f"du -sh {place}/* | sort -h, and remove what is not needed")
    return Finding(subject, "ok", found)


def _loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return Finding("loopback", "wrong", f"127.0.0.1 cannot be used: {error}", "ip link set lo up")
    return Finding("loopback", "ok", "127.0.0.1 takes connections")
