"""What rank 0 holds of Ray: the servers and relays of all nodes and the trainer, from start to end."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from coupler.errors import CouplerError
from coupler.exchange import ArenaAddress
from coupler.learning.trainer import TrainingTask
from coupler.serving.answering import ModelPlan
from coupler.serving.cluster import Cluster
from coupler.serving.placement import CoreMap, Home, Places, RayNode, assign, find_homes

# Longest wait for the actors to start: a first import of torch from a cold network file system is slow [s].
_START_SECONDS = 180.0
# Longest wait for them to end [s]; after that they are killed, and a moment later are gone.
_LEAVE_SECONDS = 10.0


@dataclass(frozen=True)
class NodePlan:
    """What to start for one node with ranks.

    Parameters
    ----------
    home : Home
        How it is found in the Ray cluster.
    arena : ArenaAddress or None
        Its arena; None if ranks run the model themselves.
    cores : CoreMap
        Who may run where on it.
    """

    home: Home
    arena: ArenaAddress | None
    cores: CoreMap


@dataclass(frozen=True)
class ServicePlan:
    """What to start.

    Parameters
    ----------
    nodes : tuple of NodePlan
        The nodes with ranks, that of rank 0 first.
    models : ModelPlan
        What answers.
    servers, transport : str
        ``ray.servers`` and ``exchange.transport``.
    """

    nodes: tuple[NodePlan, ...]
    models: ModelPlan
    servers: str
    transport: str


class Service:
    """Servers, relays and trainer; everything it started ends with :meth:`close`.

    Parameters
    ----------
    cluster : Cluster
        Where; it has an owner of its own.
    plan : ServicePlan
        What to start.

    Raises
    ------
    ConfigError
        If the cluster does not reach every node with ranks, or no server would run where one is asked for.
    CouplerError
        If an actor does not start; none is left behind.
    """

    def __init__(self, cluster: Cluster, plan: ServicePlan) -> None:
        self._trainings: dict[int, Any] = {}
        self._actors: list[Any] = []
        with ExitStack() as failed:
            failed.callback(self.close)
            self._plan = plan
            if plan.transport == "inprocess":
                places = Places((cluster.own_node(),), (), ())
            else:
                nodes = cluster.nodes()
                homes = find_homes([node.home for node in plan.nodes], nodes, cluster.head)
                places = assign(homes, nodes, plan.servers, plan.transport)
            self._start(places)
            failed.pop_all()

    def load(self, operator: int, version: int) -> None:
        """Have every server load a version from the registry; ranks may ask for it once this has returned."""
        import ray

        ray.get([server.load.remote(operator, version) for server in self._servers], timeout=_START_SECONDS)

    def train(self, operator: int, number: int, task: TrainingTask) -> None:
        """Start a training round; its outcome appears in the models' folder."""
        self._trainings[operator] = self._trainer.train.remote(operator, number, task)

    def training_failure(self, operator: int) -> str | None:
        """Say why the operator's round under way will never have an outcome, if that is so."""
        import ray

        training = self._trainings.get(operator)
        if training is None or not ray.wait([training], timeout=0)[0]:
            return None
        try:
            ray.get(training)
        except ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[-1]
        return None

    def close(self) -> None:
        """End servers, relays and trainer; on a cluster that goes on, nothing of the run does when this returns.

        They end themselves: Ray calls an actor dead as soon as it has told it to die, its process may outlive that.
        """
        import ray

        leaving = [actor.leave.remote() for actor in self._actors]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()

    def _start(self, places: Places) -> None:
        """Start all at once, and wait until all are there; what serves an arena begins when its ranks may ask."""
        servers = [self._start_remote(node, places) for node in places.remote]
        doors = []
        # Where ranks run the model themselves nobody is asked, and the pairs end at once.
        for node, place, asked in zip(self._plan.nodes, places.homes, places.asked, strict=False):
            if asked:
                doors.append(self._start_relay(place, node, [servers[index] for index in asked]))
            else:
                doors.append(self._start_server(place, node))
                servers.append(doors[-1])
        self._servers = servers
        self._trainer = self._start_trainer(places.homes[0], servers)
        _await_start([actor.report.remote() for actor in (*servers, *doors)])
        for door in doors:
            door.serve.remote()

    def _start_remote(self, node: RayNode, places: Places) -> Any:
        from coupler.serving.remote import RemoteServer

        # Cores are known where there are ranks; elsewhere whoever started Ray has chosen them.
        cores: tuple[int, ...] = ()
        if node in places.homes:
            cores = _cores(self._plan.nodes[places.homes.index(node)])
        return self._actor(RemoteServer, node, self._plan.models, cores, threads=3)

    def _start_server(self, place: RayNode, node: NodePlan) -> Any:
        from coupler.serving.server import Server

        return self._actor(Server, place, node.arena, self._plan.models, _cores(node), node.cores.crowded, threads=3)

    def _start_relay(self, place: RayNode, node: NodePlan, asked: Sequence[Any]) -> Any:
        from coupler.serving.relay import Relay

        models, crowded = self._plan.models.models, node.cores.crowded
        return self._actor(Relay, place, node.arena, asked, models, _cores(node), crowded, threads=2)

    def _start_trainer(self, place: RayNode, servers: Sequence[Any]) -> Any:
        from coupler.serving.training import TrainingActor

        models = self._plan.models
        return self._actor(TrainingActor, place, servers, _cores(self._plan.nodes[0]), models.threads, threads=2)

    def _actor(self, kind: type, node: RayNode, *arguments: object, threads: int) -> Any:
        """Start an actor on a node, without a share of Ray's GPUs, or Ray would hide the others from torch."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": 0,
            "num_gpus": 0,
            "max_concurrency": threads,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node.id, soft=False),
        }
        definition: Any = ray.remote(kind)
        actor = definition.options(**options).remote(*arguments)
        self._actors.append(actor)
        return actor


def _cores(node: NodePlan) -> tuple[int, ...]:
    return tuple(sorted(node.cores.services))


def _await_start(replies: Sequence[Any]) -> None:
    import ray

    try:
        ray.get(list(replies), timeout=_START_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise CouplerError(
            f"The servers did not start within {_START_SECONDS:.0f} s: a node is overloaded or its file system is "
            "slow. Try `coupler doctor`."
        ) from None
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]
        raise CouplerError(said.removeprefix("coupler.errors.ConfigError: ")) from error
