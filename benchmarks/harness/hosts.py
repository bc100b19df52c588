"""Several hosts on one machine: each has its own network, host name, processes, ``/dev/shm`` and ``/tmp``.

A host is a small process in namespaces of its own, and what runs on it runs in them. The hosts are joined by virtual
cables to a switch, which is one more network namespace: nothing of all this can be reached from outside, several sets
of hosts never meet, and there is nothing to clean up but processes. When a host's first process ends, the kernel ends
all others on it and removes its network, mounts and memory, which is also what a power cut does to a real one.

Folders that all hosts see stand for a shared file system; everything else below ``/tmp`` and ``/dev/shm`` is private.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
}
# Only ever seen inside.
_NETWORK, _BITS = "10.77.0", 24
_RAY_PORT = 6379
# What one command of the set-up, and the start of a Ray node, may take [s].
_COMMAND_SECONDS, _RAY_SECONDS = 20.0, 90.0
_OBJECT_STORE_BYTES = 512 * 2**20
_BIN = Path(sys.executable).parent
# Programs are on all hosts, wherever they lie.
_PROGRAMS = (Path(__file__).resolve().parents[2], Path(sys.prefix), Path(sys.base_prefix))
# Arguments: host name, shared folders. The folders are kept aside while file systems of its own hide them. Signals of
# ended children are ignored, so that nobody who lost its parent stays a zombie: a first process has that duty.
_HOST_SCRIPT = """
set -e
hostname "$1"; shift
mount -t tmpfs tmpfs /mnt
number=0
for folder; do number=$((number + 1)); mkdir /mnt/$number; mount --bind "$folder" /mnt/$number; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
number=0
for folder; do number=$((number + 1)); mkdir -p "$folder"; mount --bind /mnt/$number "$folder"; done
umount -R /mnt
ip link set lo up
echo ready
trap '' CHLD
exec sleep infinity >/dev/null
"""
_SWITCH_SCRIPT = """
set -e
hostname "$1"
ip link set lo up
ip link add name bridge type bridge
ip link set bridge up
echo ready
exec sleep infinity >/dev/null
"""
# Arguments: folder, command.
_IN_FOLDER = ("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh")


class HostsUnavailableError(Exception):
    """Why no hosts can be made on this machine, and what to type if that helps."""


@dataclass(frozen=True)
class Host:
    """One host.

    Parameters
    ----------
    name, address : str
        Its host name, and its address in the network of the hosts.
    pid : int
        Its first process, as seen from outside.
    """

    name: str
    address: str
    pid: int

    def command(self, command: Sequence[str]) -> list[str]:
        """Give what to type outside to run a command on this host, in the present folder."""
        return [
            *_entering(self.pid, "--net", "--uts", "--mount", "--ipc", "--pid"),
            *_IN_FOLDER,
            str(Path.cwd()),
            *command,
        ]

    def path(self, inside: Path | str) -> Path:
        """Give the path from outside of what has this path on the host."""
        return Path(f"/proc/{self.pid}/root") / Path(inside).relative_to("/")

    def processes(self) -> dict[int, str]:
        """Find what runs on this host, its first process aside: command lines by numbers as seen from outside."""
        here = _processes_namespace(self.pid)
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        there = [number for number in numbers if number != self.pid and _processes_namespace(number) == here]
        return {number: _command_line(number) for number in there}

    def cut_power(self) -> None:
        """End the host with everything on it, at once."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Hosts:
    """So many hosts, MPI jobs and Ray clusters that span them.

    Parameters
    ----------
    count : int
        How many.
    folder : Path
        The folder that is the same on all hosts; the token and the start-up script lie in it.

    Raises
    ------
    HostsUnavailableError
        If this machine has not the tools or does not allow namespaces; nothing is left behind.
    """

    def __init__(self, count: int, folder: Path) -> None:
        missing = sorted({package for tool, package in _PACKAGES.items() if shutil.which(tool) is None})
        if missing:
            raise HostsUnavailableError(f"needs more tools: apt-get install {' '.join(missing)}")
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []
        self._token = folder / "ray-token"
        self._token.touch(mode=0o600)
        self._token.write_text(os.urandom(32).hex())
        with ExitStack() as failed:
            failed.callback(self.close)
            self._switch = self._start(_SWITCH_SCRIPT, "switch", options=("--net", "--uts")).pid
            self._set_address(self._switch, "bridge", f"{_NETWORK}.254")
            self.hosts = [self._host(number) for number in range(1, count + 1)]
            self._agent = folder / "start-on-host"
            self._agent.write_text(self._agent_script())
            self._agent.chmod(0o700)
            failed.pop_all()

    def close(self) -> None:
        """End all hosts and what runs on them."""
        for process in reversed(self._started):
            process.kill()
            process.communicate()
        self._started.clear()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for what runs on the hosts: how ``mpirun`` starts ranks there, and the token of their Ray."""
        return {
            "PRTE_MCA_plm_ssh_agent": str(self._agent),
            "OMPI_MCA_btl_sm_backing_directory": "/dev/shm",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def ray_address(self) -> str:
        """Where the cluster of :meth:`start_ray` listens."""
        return f"{self.hosts[0].address}:{_RAY_PORT}"

    def mpirun(self, ranks: Sequence[int], command: Sequence[str]) -> list[str]:
        """Give what to type outside to run a command on so many ranks of each host, those of the first host first.

        ``mpirun`` itself runs at the switch, as on the front end of a cluster.
        """
        places = [f"{host.address}:{count}" for host, count in zip(self.hosts, ranks, strict=True) if count]
        # By slot: told to oversubscribe, it puts all ranks on the first host.
        options = ["--host", ",".join(places), "--map-by", "slot", "--bind-to", "none", "-n", str(sum(ranks))]
        return [*_entering(self._switch, "--net", "--uts"), str(_BIN / "mpirun"), *options, *command]

    def start_ray(self, resources: Sequence[Mapping[str, float]], environment: Mapping[str, str]) -> None:
        """Start a Ray node on every host, the head on the first.

        Parameters
        ----------
        resources : sequence of mapping
            Custom resources of each host's node.
        environment : mapping
            Variables, on top of :attr:`environment`.
        """
        for host, own in zip(self.hosts, resources, strict=True):
            head = ["--head", f"--port={_RAY_PORT}", "--include-dashboard=false"]
            place = head if host is self.hosts[0] else [f"--address={self.ray_address}"]
            options = [
                f"--node-ip-address={host.address}",
                "--num-cpus=2",
                f"--object-store-memory={_OBJECT_STORE_BYTES}",
                f"--resources={json.dumps(own)}",
                "--disable-usage-stats",
            ]
            surroundings = {**os.environ, **environment, **self.environment}
            _run(host.command([str(_BIN / "ray"), "start", *place, *options]), _RAY_SECONDS, surroundings)

    def cut(self, host: Host) -> None:
        """Have nothing get through between a host and the others; its own card notices nothing."""
        self._at_switch("ip", "link", "set", host.name, "nomaster")

    def mend(self, host: Host) -> None:
        """Let everything through again."""
        self._at_switch("ip", "link", "set", host.name, "master", "bridge")

    def _host(self, number: int) -> Host:
        options = ("--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
        name = f"host{number}"
        shared = map(str, (*_PROGRAMS, self._folder))
        process = self._start(_HOST_SCRIPT, name, *shared, options=options)
        host = Host(name, f"{_NETWORK}.{number}", _only_child(process.pid))
        self._at_switch("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._at_switch("ip", "link", "set", name, "master", "bridge", "up")
        self._set_address(host.pid, "eth0", host.address)
        return host

    def _start(self, script: str, *arguments: str, options: Sequence[str]) -> subprocess.Popen[str]:
        """Start a process in namespaces of its own; return when its script says that it is ready."""
        process = subprocess.Popen(
            ["unshare", *options, "sh", "-c", script, "sh", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        assert process.stdout is not None
        said = (
            process.stdout.readline() if select.select([process.stdout], [], [], _COMMAND_SECONDS)[0] else "no answer"
        )
        if said.strip() != "ready":
            raise HostsUnavailableError(
                f"this machine allows no namespaces ({said.strip()}): it takes root, or CAP_SYS_ADMIN"
            )
        return process

    def _at_switch(self, *command: str) -> None:
        _run([*_entering(self._switch, "--net"), *command], _COMMAND_SECONDS)

    def _set_address(self, pid: int, device: str, address: str) -> None:
        into = _entering(pid, "--net")
        _run([*into, "ip", "address", "add", f"{address}/{_BITS}", "dev", device], _COMMAND_SECONDS)
        _run([*into, "ip", "link", "set", device, "up"], _COMMAND_SECONDS)

    def _agent_script(self) -> str:
        """Give what ``mpirun`` calls instead of ssh: an address and a command line."""
        cases = [f'{host.address}) exec {" ".join(_entering(host.pid, *_ALL))} sh -c "$*" ;;' for host in self.hosts]
        return "\n".join(["#!/bin/sh", "address=$1; shift", "case $address in", *cases, "esac", "exit 1", ""])


_ALL = ("--net", "--uts", "--mount", "--ipc", "--pid")


def _entering(pid: int, *namespaces: str) -> list[str]:
    return ["nsenter", f"--target={pid}", *namespaces, "--"]


def _run(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> None:
    # To a file: whatever goes on in the background keeps a pipe open.
    with open(os.memfd_create("output"), "w+") as output:  # noqa: PTH123, it has no path
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=seconds,
            env=environment,
            check=False,
        )
        output.seek(0)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {output.read().strip()}")


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def _processes_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # it ended while we looked, or it is another user's
        return ""


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return "(ended)"
