"""One node of a Ray cluster that lives as long as somebody holds its standard input open.

``launch/ray_cluster.sh`` starts one on every node of a job, ``python -m coupler.serving.node FOLDER``. The first line
of the input is the token. Once Ray is there it says ``ready ADDRESS:PORT``, the address of the cluster, and when the
input closes, however that came about, a reaper ends all that was started and removes the folder.
"""

import argparse
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from coupler.errors import ConfigError
from coupler.serving.environment import ray_environment
from coupler.serving.placement import all_cores
from coupler.serving.reaper import Reaper

_LOOPBACK = "127.0.0.1"
# Ray lets everybody write where it works; the folder around that is this user's alone.
_WORK = "ray"
# Any: whom it is asked about is decided by the route, nothing is sent.
_SOME_PORT = 9
# How long Ray may take to start or to refuse [s].
_START_SECONDS = 80.0
# Where answers wait between a node and the next: relays ship batches of some megabytes.
_OBJECT_STORE_BYTES = 512 * 2**20
_PASSED_ON = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# Of several jobs on a node each gets ports of its own: whatever is free.
_FREE_PORTS = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")


def own_address(peer: str, interface: str = "") -> str:
    """Find the address that this node shows to another one.

    Parameters
    ----------
    peer : str
        Name or address of the other; empty if there is none, and this node keeps to loopback.
    interface : str
        The network device to take, such as ``ib0``; empty for the one that leads to the other.

    Raises
    ------
    ConfigError
        If there is no such device, it has no address, or no way leads to the other.

    Collective: no.
    """
    if interface:
        return _address_of(interface)
    if not peer:
        return _LOOPBACK
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, _SOME_PORT))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(
            f"There is no way from {socket.gethostname()} to {peer} ({error}): name the network device on which the "
            "nodes meet, COUPLER_INTERFACE=ib0."
        ) from error


def ray_start(folder: Path, *, address: str, head: str, resource: str, cores: int, grpc: bool) -> list[str]:
    """Give the options of ``ray start`` for this node.

    Parameters
    ----------
    folder : Path
        Where Ray works.
    address : str
        What the others reach this node by.
    head : str
        ``address:port`` of the cluster to join; empty if this node is its head.
    resource : str
        The name of a resource that it has; empty for none.
    cores : int
        Cores that the node offers.
    grpc : bool
        Whether gRPC's package is here: with it a head opens a door to clients, at a fixed port unless told another.
    """
    place = [f"--address={head}"] if head else ["--head", "--port=0", "--include-dashboard=false"]
    doors = [f"--ray-client-server-port={_free_port(address)}"] if grpc and not head else []
    return [
        *place,
        *doors,
        *([f"--resources={json.dumps({resource: 1})}"] if resource else []),
        f"--node-ip-address={address}",
        f"--temp-dir={folder / _WORK}",
        f"--num-cpus={cores}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
        *_FREE_PORTS,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Be a node until standard input closes."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    for number in _PASSED_ON:  # a batch system may tell every process; what follows is decided by who started this one
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    token = sys.stdin.readline().strip()
    folder: Path = options.folder
    folder.mkdir(mode=0o700)
    with ray_environment({}):
        reaper = Reaper(folder)
    try:
        (folder / "token").write_text(token)
        print(f"ready {_start(folder, options)}", flush=True)
        sys.stdin.read()
    except ConfigError as error:
        sys.exit(f"coupler: {error}")
    finally:
        reaper.close()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End by unwinding, so that the reaper has done its work when this process is gone."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coupler.serving.node", description="One node of a Ray cluster.")
    parser.add_argument("folder", type=Path, help="where Ray works; made here, on this node")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--alone", action="store_true", help="the only node, on loopback")
    place.add_argument("--towards", metavar="NODE", default="", help="the head of a cluster with this other node")
    place.add_argument("--join", metavar="ADDRESS:PORT", default="", help="join this cluster")
    parser.add_argument("--resource", metavar="NAME", default="", help="a Ray resource that this node has")
    parser.add_argument("--interface", default="", help="the network device on which the nodes meet")
    return parser


def _start(folder: Path, options: argparse.Namespace) -> str:
    """Start Ray here and give the address of its cluster; Ray's command returns when the node is a part of it."""
    surroundings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # a server must not wait behind the ranks it answers
    }
    if options.alone:
        surroundings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps Ray on loopback, decision 0006
    peer = options.join.rpartition(":")[0] or options.towards
    address = own_address(peer, options.interface)
    with all_cores() as cores, ray_environment(surroundings):
        words = ray_start(
            folder,
            address=address,
            head=options.join,
            resource=options.resource,
            cores=len(cores),
            grpc=importlib.util.find_spec("grpc") is not None,
        )
        _run([sys.executable, "-m", "ray.scripts.scripts", "start", *words], folder)
    return options.join or (folder / _WORK / "ray_current_cluster").read_text().strip()


def _run(command: Sequence[str], folder: Path) -> None:
    said = folder / "start.log"  # a file: what Ray leaves running would keep a pipe open
    with said.open("w") as file:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=_START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"Ray did not start on {socket.gethostname()} within {_START_SECONDS:.0f} s.") from None
    if done.returncode != 0:
        last = (said.read_text().strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"Ray did not start on {socket.gethostname()}: {last}")


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        return int(server.getsockname()[1])


def _address_of(interface: str) -> str:
    import fcntl
    import struct

    if not Path(f"/sys/class/net/{interface}").exists():
        known = ", ".join(sorted(entry.name for entry in Path("/sys/class/net").iterdir()))
        raise ConfigError(f"{socket.gethostname()} has no network device {interface}; it has {known}.")
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, 0x8915, request)  # SIOCGIFADDR
        except OSError as error:
            raise ConfigError(
                f"The network device {interface} of {socket.gethostname()} has no IPv4 address ({error.strerror}): "
                "name another one in COUPLER_INTERFACE."
            ) from error
    return socket.inet_ntoa(answer[20:24])


if __name__ == "__main__":
    main()
