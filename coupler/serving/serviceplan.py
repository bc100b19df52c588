"""What the services of a run are to be: plain data that rank 0 gathers from all nodes and its supervisor starts."""

from dataclasses import dataclass, field

from coupler.exchange import ArenaAddress
from coupler.serving.modelplan import ModelPlan, Wanted
from coupler.serving.placement import CoreMap, Home
from coupler.serving.post import Care


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
    trains : bool
        Whether there is a trainer.
    modest : bool
        Whether it gives way to ranks that want the same cores.
    servers, transport : str
        ``ray.servers`` and ``exchange.transport``.
    care : Care
        How what was started is looked after.
    wanted : tuple of Wanted
        Versions that servers load before anybody asks them.
    """

    nodes: tuple[NodePlan, ...]
    models: ModelPlan
    trains: bool
    modest: bool
    servers: str
    transport: str
    care: Care = field(default_factory=Care)
    wanted: tuple[Wanted, ...] = ()
