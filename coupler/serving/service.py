"""What the leading rank of a node holds of Ray: cluster, server and trainer, from start to end."""

from dataclasses import dataclass
from typing import Any

from coupler.errors import CouplerError
from coupler.exchange import ArenaAddress
from coupler.learning.trainer import TrainingTask
from coupler.serving.cluster import Cluster
from coupler.serving.placement import CoreMap
from coupler.serving.server import Server, ServerReport

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
        self._cluster = Cluster(plan.address)
        try:
            self._server = None if plan.arena is None else _start_server(plan, plan.arena)
            self._trainer = _start_trainer(plan, self._server)
        except BaseException:
            self._cluster.close()
            raise
        self._training: Any = None
        self._serving = None if self._server is None else self._server.serve.remote()

    def report(self) -> ServerReport | None:
        """Say where the server runs, once it does; None without a server."""
        import ray

        return None if self._server is None else ray.get(self._server.report.remote(), timeout=_START_SECONDS)

    def load(self, operator: int, version: int) -> None:
        """Have the server load a version that is already in the registry."""
        import ray

        if self._server is not None:
            ray.get(self._server.load.remote(operator, version), timeout=_START_SECONDS)

    def train(self, operator: int, number: int, task: TrainingTask) -> None:
        """Start a training round; its outcome appears in the models' folder."""
        self._training = self._trainer.train.remote(operator, number, task)

    def training_failure(self) -> str | None:
        """Say why the round under way will never have an outcome, if that is so."""
        import ray

        if self._training is None or not ray.wait([self._training], timeout=0)[0]:
            return None
        try:
            ray.get(self._training)
        except ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[-1]
        return None

    def close(self) -> None:
        """End server, trainer and an embedded cluster."""
        import ray

        for actor in (self._server, self._trainer):
            if actor is not None:
                ray.kill(actor)
        self._cluster.close()


def _start_server(plan: ServicePlan, arena: ArenaAddress) -> Any:
    import ray

    options = _here(plan.device)
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
    return actor.options(**_here("cpu")).remote(server, tuple(sorted(plan.cores.services)), plan.threads)


def _here(device: str) -> dict[str, Any]:
    """Actor options: on this very node, with a GPU if there is one to be had."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    gpus = 0 if device == "cpu" else min(1.0, ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]
    return {
        "num_cpus": 0,
        "num_gpus": gpus,
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
