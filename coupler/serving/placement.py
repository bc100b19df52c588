"""Who runs where: on a node, the cores left for server and trainer; over the nodes, whom the ranks of each ask."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from coupler.case import WITH_RANKS
from coupler.errors import ConfigError, CouplerError, did_you_mean
from coupler.launcher import is_launched


@dataclass(frozen=True)
class CoreMap:
    """Who may run where on one node.

    Parameters
    ----------
    ranks : tuple of frozenset of int
        Cores of each rank of the node.
    services : frozenset of int
        Cores of server and trainer.
    cores : frozenset of int
        All cores the job may use.
    """

    ranks: tuple[frozenset[int], ...]
    services: frozenset[int]
    cores: frozenset[int]

    @property
    def crowded(self) -> bool:
        """Whether ranks and server together are more than the cores."""
        return len(self.ranks) + 1 > len(self.cores)


def plan(ranks: Sequence[frozenset[int]], cores: frozenset[int]) -> CoreMap:
    """Give server and trainer the cores no rank is bound to, or all cores if there are none.

    Ranks stay where the MPI launcher bound them. A rank that may use every core is not bound.

    Parameters
    ----------
    ranks : sequence of frozenset of int
        Present affinity of every rank of the node.
    cores : frozenset of int
        All cores the job may use.
    """
    bound = frozenset().union(*(mine for mine in ranks if mine != cores))
    return CoreMap(ranks=tuple(ranks), services=(cores - bound) or cores, cores=cores)


@contextmanager
def all_cores() -> Iterator[frozenset[int]]:
    """Lift the launcher's binding of this rank for a moment, and say which cores the job may use at all.

    What is started inside does not inherit the one core of a bound rank. The job's cores are those of the launcher
    that started the ranks, so a binding of the user's own holds for ranks, server and trainer alike. Where a sandbox
    forbids it, nothing changes.

    Collective: no.
    """
    before = os.sched_getaffinity(0)
    if is_launched():
        with suppress(OSError):
            os.sched_setaffinity(0, before | os.sched_getaffinity(os.getppid()))
    try:
        yield frozenset(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Home:
    """How a node with ranks describes itself, so that the Ray node on it can be found.

    Parameters
    ----------
    name : str
        Its host name.
    address : str
        The address it has towards the head of the Ray cluster; empty if it has none.
    """

    name: str
    address: str

    @classmethod
    def towards(cls, head: str) -> "Home":
        """Describe this node as the head of a cluster sees it; nothing is sent.

        Parameters
        ----------
        head : str
            ``address:port`` of the cluster's control service.

        Collective: no.
        """
        host, _, port = head.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host.strip("[]"), int(port)))
                address = str(probe.getsockname()[0])
        except OSError:
            address = ""
        return cls(socket.gethostname(), address)


@dataclass(frozen=True)
class RayNode:
    """One node of the Ray cluster.

    Parameters
    ----------
    id : str
        Ray's number of it, which actors are pinned by.
    name, address : str
        Its host name and the address it was started with.
    resources : frozenset of str
        Names of what it has.
    """

    id: str
    name: str
    address: str
    resources: frozenset[str]


@dataclass(frozen=True)
class Places:
    """Which servers run where, and whom the ranks of each node ask.

    Parameters
    ----------
    homes : tuple of RayNode
        The Ray node of every node with ranks.
    remote : tuple of RayNode
        The nodes of the servers that answer relays.
    asked : tuple of tuple of int
        For every node with ranks, which of ``remote`` its relay asks, in this order; empty where a server on the node
        answers its arena itself.
    """

    homes: tuple[RayNode, ...]
    remote: tuple[RayNode, ...]
    asked: tuple[tuple[int, ...], ...]


def find_homes(homes: Sequence[Home], nodes: Sequence[RayNode], head: str) -> tuple[RayNode, ...]:
    """Find the Ray node on every node with ranks: by its address, and by its host name where that differs.

    Parameters
    ----------
    homes : sequence of Home
        The nodes with ranks.
    nodes : sequence of RayNode
        The Ray cluster.
    head : str
        Where it listens, for the message.

    Raises
    ------
    ConfigError
        If there is no Ray node, or by host name several.
    """

    def find(home: Home) -> RayNode:
        same_address = [node for node in nodes if node.address == home.address]
        same_name = [node for node in nodes if node.name == home.name]
        if same_address or len(same_name) == 1:
            return (same_address or same_name)[0]
        raise ConfigError(
            f"The ranks on {home.name} ({home.address or 'no way to ' + head}) have no Ray node beside them; the "
            f"cluster at {head} has {', '.join(sorted(f'{node.name} ({node.address})' for node in nodes))}. Type "
            f"there: ray start --address={head}"
        )

    return tuple(map(find, homes))


def assign(homes: Sequence[RayNode], nodes: Sequence[RayNode], servers: str, transport: str) -> Places:
    """Decide where servers run and whom each node's ranks ask.

    A server on the ranks' own node answers their arena directly; where there is none, or ``transport`` says
    ``objectstore``, a relay carries the questions to servers elsewhere. Each relay begins at another one of them.

    Parameters
    ----------
    homes : sequence of RayNode
        The Ray node of every node with ranks.
    nodes : sequence of RayNode
        The Ray cluster.
    servers : str
        ``ray.servers``.
    transport : str
        ``exchange.transport``.

    Raises
    ------
    ConfigError
        If no node has the resource, or the transport needs a server where none runs.
    """
    if servers == WITH_RANKS:
        serving = tuple(homes)
    else:
        serving = tuple(sorted((node for node in nodes if servers in node.resources), key=lambda node: node.id))
        if not serving:
            known = sorted(set().union(*(node.resources for node in nodes)))
            raise ConfigError(
                f'ray.servers = "{servers}", but no node of the Ray cluster has that resource.'
                f"{did_you_mean(servers, known)} A node gets it by: ray start --resources='{{\"{servers}\": 1}}'"
            )
    relayed = [transport == "objectstore" or home not in serving for home in homes]
    if transport == "shared" and any(relayed):
        bare = homes[relayed.index(True)]
        raise ConfigError(
            f'exchange.transport = "shared", but {bare.name} has ranks and no server: ray.servers = "{servers}" puts '
            'none there. Use exchange.transport = "auto", or ray.servers = "with-ranks".'
        )
    if servers == WITH_RANKS:
        turns: list[tuple[int, ...]] = [(place,) for place in range(len(homes))]
    else:
        turns = [tuple((place + turn) % len(serving) for turn in range(len(serving))) for place in range(len(homes))]
    return Places(
        homes=tuple(homes),
        remote=serving if any(relayed) else (),
        asked=tuple(servers if far else () for far, servers in zip(relayed, turns, strict=True)),
    )


def find_place(before: RayNode, taken: Sequence[RayNode], nodes: Sequence[RayNode], resource: str) -> RayNode:
    """Find a node for a server that was lost: the same again, or if it is gone the one with fewest other servers.

    Parameters
    ----------
    before : RayNode
        Where it was.
    taken : sequence of RayNode
        Where other servers are; a node may be there several times.
    nodes : sequence of RayNode
        The Ray cluster, as far as it lives.
    resource : str
        ``ray.servers``: what a node must have.

    Raises
    ------
    CouplerError
        If no node has it.
    """
    able = [node for node in nodes if resource in node.resources]
    if not able:
        raise CouplerError(f'no node of the Ray cluster has the resource "{resource}" any more')
    same = [node for node in able if node.id == before.id] or [node for node in able if node.name == before.name]
    if same:
        return same[0]
    others = [node.id for node in taken]
    return min(able, key=lambda node: (others.count(node.id), node.id))


def ray_nodes(table: Sequence[Mapping[str, object]]) -> list[RayNode]:
    """Turn what ``ray.nodes()`` gives into records, nodes that live only."""
    return [
        RayNode(
            id=str(row["NodeID"]),
            name=str(row["NodeManagerHostname"]),
            address=str(row["NodeManagerAddress"]),
            resources=frozenset(row["Resources"]),  # type: ignore[call-overload]
        )
        for row in table
        if row["Alive"]
    ]
