"""The services of a run as Ray has them: the servers and relays of all nodes and a trainer, from start to end."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from coupler.case import WITH_RANKS
from coupler.errors import ConfigError, CouplerError
from coupler.exchange import Arena, ArenaAddress
from coupler.records import Notice
from coupler.serving.cluster import Cluster
from coupler.serving.losses import LostAtStartError
from coupler.serving.modelplan import Wanted
from coupler.serving.placement import Places, RayNode, assign, find_homes, find_place
from coupler.serving.post import CARE, CARE_THREADS, START_SECONDS, Post, PostKind
from coupler.serving.rounds import Rounds
from coupler.serving.serviceplan import NodePlan, ServicePlan

# Longest wait for actors to end [s]; after that they are killed, and a moment later are gone.
_LEAVE_SECONDS = 10.0


class Service:
    """Servers, relays and trainer, each at a post; everything it started ends with :meth:`close`.

    Parameters
    ----------
    cluster : Cluster
        Where; it has an owner of its own.
    plan : ServicePlan
        What to start.

    Attributes
    ----------
    rounds : Rounds
        The training rounds under way.

    Raises
    ------
    ConfigError
        If the cluster does not reach every node with ranks, or no server would run where one is asked for.
    CouplerError
        If an actor does not start; none is left behind.
    """

    def __init__(self, cluster: Cluster, plan: ServicePlan) -> None:
        self._cluster, self._plan, self._wanted = cluster, plan, plan.wanted
        self._started: list[Any] = []
        self._places: dict[str, RayNode] = {}
        self._own = cluster.own_node()
        self._dismissed: set[int] = set()
        self._relays: list[Post] = []
        with ExitStack() as failed:
            failed.callback(self.close)
            self._remote, self._doors, self._trainer = self._posts(self._first_places())
            self.rounds = Rounds(self._trainer, lambda: [post.actor for post in self._servers if post.held])
            _await_start([post.fill() for post in self.posts])
            for post in self.posts:
                post.open()
            failed.pop_all()

    @property
    def posts(self) -> list[Post]:
        """All posts, remote servers before the relays that ask them."""
        return [*self._remote, *self._doors, *([self._trainer] if self._plan.trains else [])]

    def load(self, operator: int, version: int) -> None:
        """Have every server load a version from the registry; ranks may ask for it once this has returned."""
        import ray

        self._wanted = (*self._wanted, Wanted(operator, version))
        loading = [post.actor.load.remote(operator, version) for post in self._servers if post.held]
        ray.get(loading, timeout=START_SECONDS)

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Be told which versions are asked from now on: servers load what they have not, now or when they start."""
        self._wanted = tuple(wanted)
        for post in self._servers:
            if post.held:
                post.actor.prepare.remote(self._wanted)

    def look(self) -> list[Notice]:
        """See how all are, fill posts again that have become vacant, and give what has changed."""
        now = time.monotonic()
        notices = [notice for post in self.posts for notice in post.look(now, self._plan.care)]
        self.rounds.look()
        for place, post in enumerate(self._doors):
            if post.given_up and place not in self._dismissed:
                self._dismiss(place)
        return notices

    def close(self) -> None:
        """End servers, relays and trainer; on a cluster that goes on, nothing of the run does when this returns.

        They end themselves: Ray calls an actor dead as soon as it has told it to die, its process may outlive that.
        """
        import ray

        leaving = [actor.leave.options(concurrency_group=CARE).remote() for actor in self._started]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for actor in self._started:
            ray.kill(actor)
        self._started.clear()

    @property
    def _servers(self) -> list[Post]:
        """The posts whose holders have models; relays have none."""
        return [*self._remote, *(post for post in self._doors if post not in self._relays)]

    def _first_places(self) -> Places:
        plan = self._plan
        if plan.transport == "inprocess":
            return Places((self._own,), (), ())
        nodes = self._cluster.nodes()
        homes = find_homes([node.home for node in plan.nodes], nodes, self._cluster.head)
        return assign(homes, nodes, plan.servers, plan.transport)

    def _posts(self, places: Places) -> tuple[list[Post], list[Post], Post]:
        remote = [self._remote_post(node, places) for node in places.remote]
        doors: list[Post] = []
        # Where ranks run the model themselves nobody is asked, and the pairs end at once.
        for node, place, asked in zip(self._plan.nodes, places.homes, places.asked, strict=False):
            if asked:
                doors.append(self._relay_post(node, place, [remote[index] for index in asked]))
                self._relays.append(doors[-1])
            else:
                doors.append(self._server_post(node, place))
        return remote, doors, self._trainer_post(places.homes[0])

    def _server_post(self, node: NodePlan, place: RayNode) -> Post:
        from coupler.serving.server import Server

        def start() -> Any:
            where = self._home(name, node, place)
            given = (node.arena, self._plan.models, _cores(node), node.cores.crowded, self._wanted)
            return self._actor(Server, where, *given, threads=2)

        name = f"the server on {place.name}"
        return Post(PostKind.SERVER, name, start, lambda actor: actor.serve.remote(), local=place.id == self._own.id)

    def _relay_post(self, node: NodePlan, place: RayNode, asked: Sequence[Post]) -> Post:
        from coupler.serving.relay import Relay

        def start() -> Any:
            servers = [post.actor for post in asked if post.actor is not None]
            if all(post.given_up for post in asked):
                raise CouplerError("no server is left that it could ask")
            if not servers:
                return None  # it would have nobody to ask yet
            given = (node.arena, servers, self._plan.models.models, _cores(node), node.cores.crowded)
            return self._actor(Relay, self._home(name, node, place), *given, threads=2)

        name = f"the relay on {place.name}"
        return Post(PostKind.SERVER, name, start, lambda actor: actor.serve.remote(), local=place.id == self._own.id)

    def _remote_post(self, place: RayNode, places: Places) -> Post:
        from coupler.serving.remote import RemoteServer

        # Cores are known where there are ranks; elsewhere whoever started Ray has chosen them.
        home = self._plan.nodes[places.homes.index(place)] if place in places.homes else None

        def start() -> Any:
            where = self._remote_place(name, place, home)
            cores = _cores(home) if home is not None and where.name == place.name else ()
            return self._actor(RemoteServer, where, self._plan.models, cores, self._wanted, threads=2)

        name = f"the server on {place.name}"
        return Post(PostKind.SERVER, name, start, self._join, local=place.id == self._own.id)

    def _trainer_post(self, place: RayNode) -> Post:
        from coupler.serving.training import TrainingActor

        node = self._plan.nodes[0]

        def start() -> Any:
            where = self._home("the trainer", node, place)
            beside = len(node.cores.ranks) if self._plan.modest and node.cores.crowded else 0
            # Threads of torch that wait for each other on shared cores take three times as long as one. But bits hang
            # on their number, so where these must be the same on any number of ranks it is what the case says.
            alone = node.cores.crowded and not self._plan.models.reproducible
            threads = 1 if alone else self._plan.models.threads
            return self._actor(TrainingActor, where, _cores(node), threads, beside, threads=1)

        begin = partial(self._begin_training)
        return Post(PostKind.TRAINER, "the trainer", start, begin, local=place.id == self._own.id)

    def _begin_training(self, trainer: Any) -> None:
        self.rounds.begin(trainer)

    def _join(self, server: Any) -> None:
        """Tell the relays of a server that was started again; those that have started since know it."""
        for relay in self._relays:
            if relay.held:
                relay.actor.join.remote(server)

    def _home(self, name: str, node: NodePlan, place: RayNode) -> RayNode:
        """Find the Ray node on a node with ranks, which may have been started again."""
        if name not in self._places or self._plan.transport == "inprocess":
            return self._places.setdefault(name, place)
        return find_homes([node.home], self._cluster.nodes(), self._cluster.head)[0]

    def _remote_place(self, name: str, place: RayNode, home: NodePlan | None) -> RayNode:
        """Find a place for a remote server: where it was, or on another node that has what it needs."""
        if name not in self._places:
            return self._places.setdefault(name, place)
        nodes = self._cluster.nodes()
        if self._plan.servers == WITH_RANKS and home is not None:
            return find_homes([home.home], nodes, self._cluster.head)[0]
        taken = [where for whose, where in self._places.items() if whose != name]
        self._places[name] = find_place(self._places[name], taken, nodes, self._plan.servers)
        return self._places[name]

    def _dismiss(self, place: int) -> None:
        """Tell the ranks of a node, who may be waiting, that nobody will answer there any more."""
        import ray

        self._dismissed.add(place)
        node = self._plan.nodes[place]
        assert node.arena is not None, place
        with suppress(CouplerError):  # it has left the cluster: its ranks wait for as long as the case lets them
            home = find_homes([node.home], self._cluster.nodes(), self._cluster.head)[0]
            ray.remote(_dismiss_arena).options(num_cpus=0, scheduling_strategy=_just_there(home)).remote(node.arena)

    def _actor(self, kind: type, node: RayNode, *arguments: object, threads: int) -> Any:
        """Start an actor on a node, without a share of Ray's GPUs, or Ray would hide the others from torch."""
        import ray

        options = {"num_cpus": 0, "num_gpus": 0, "max_concurrency": threads, "scheduling_strategy": _just_there(node)}
        decorate: Any = ray.remote
        definition = decorate(concurrency_groups={CARE: CARE_THREADS})(kind)
        actor = definition.options(**options).remote(*arguments)
        self._started.append(actor)
        return actor


def _just_there(node: RayNode) -> Any:
    """Have Ray run something on this node and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)


def _dismiss_arena(arena: ArenaAddress) -> None:
    """Dismiss an arena of the node that this runs on."""
    mapped = Arena.attach(arena)
    mapped.dismiss()
    mapped.close()


def _cores(node: NodePlan) -> tuple[int, ...]:
    return tuple(sorted(node.cores.services))


def _await_start(replies: Sequence[Any]) -> None:
    import ray

    try:
        ray.get(list(replies), timeout=START_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise CouplerError(
            f"The servers did not start within {START_SECONDS:.0f} s: a node is overloaded or its file system is "
            "slow. Try `coupler doctor`."
        ) from None
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]
        if isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed:
            raise LostAtStartError(f"A server or the trainer was lost while it started: {said}") from error
        mistake = said.removeprefix("coupler.errors.ConfigError: ")
        raise (CouplerError(said) if mistake == said else ConfigError(mistake)) from error
