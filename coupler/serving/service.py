"""What the leading rank of a node holds of Ray: cluster, server and trainer, from start to end."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from coupler.errors import CouplerError
from coupler.exchange import ArenaAddress
from coupler.learning.trainer import TrainingTask
from coupler.serving.cluster import Cluster
from coupler.serving.placement import CoreMap
from coupler.serving.server import Server

# Longest wait for an actor to start: a first import of torch from a cold network file system is slow [s].
_START_SECONDS = 180.0


@dataclass(frozen=True)
class ServicePlan:
    """What to start.

    Parameters
    ----------
    address : str or None
        Ray cluster; None embeds one.
    arena : ArenaAddress or None
        The node's arena; None if ranks run the model themselves.
    operators : tuple of str
        Operator names.
    models : str
        Folder of the registry.
    device : str
        ``surrogate.device``.
    threads : int
        Torch threads of server and trainer.
    cores : CoreMap
        Who may run where.
    """

    address: str | None
    arena: ArenaAddress | None
    operators: tuple[str, ...]
    models: str
    device: str
    threads: int
    cores: CoreMap


class Service:
    """Server and trainer of this node; everything it started ends with :meth:`close`.

    Parameters
    ----------
    plan : ServicePlan
        What to start.

    Raises
    ------
    CouplerError
        If the cluster or an actor does not start; nothing is left behind.
    """

    def __init__(self, plan: ServicePlan) -> None:
        self._trainings: dict[int, Any] = {}
        with ExitStack() as started:
            cluster = Cluster(plan.address)
            started.callback(cluster.close)
            server = None if plan.arena is None else _start_server(plan, plan.arena)
            self._trainer = _start_trainer(plan, server)
            if server is not None:
                server.serve.remote()
            self._actors = [actor for actor in (server, self._trainer) if actor is not None]
            self._started = started.pop_all()

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
        """End server, trainer and an embedded cluster."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._started.close()


def _start_server(plan: ServicePlan, arena: ArenaAddress) -> Any:
    import ray

    options = _here()
    actor: Any = ray.remote(Server)
    server = actor.options(max_concurrency=2, **options).remote(
        arena, plan.operators, plan.models, plan.device, plan.threads, tuple(sorted(plan.cores.services))
    )
    _await_start(server.report.remote(), "server")
    return server


def _start_trainer(plan: ServicePlan, server: Any) -> Any:
    import ray

    from coupler.serving.training import TrainingActor

    actor: Any = ray.remote(TrainingActor)
    return actor.options(**_here()).remote(server, tuple(sorted(plan.cores.services)), plan.threads)


def _here() -> dict[str, Any]:
    """Actor options: on this very node, and without a share of Ray's GPUs, or Ray would hide the others from torch."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "num_gpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
    }


def _await_start(reply: Any, who: str) -> None:
    import ray

    try:
        ray.get(reply, timeout=_START_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise CouplerError(
            f"The {who} did not start within {_START_SECONDS:.0f} s: the node is overloaded or its file system is "
            "slow. Try `coupler doctor`."
        ) from None
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]
        raise CouplerError(said.removeprefix("coupler.errors.ConfigError: ")) from error
