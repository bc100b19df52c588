"""A model of one coupled step, in the manner of LogGP: ranks, nodes and servers put together from measured constants.

A node's ranks ask at the same time, their server answers all of them in one batch, audits run meanwhile, the rest of
the truth follows. Between nodes there are halos and one small sum. Whatever rank 0 does for everybody is paid by
everybody, because a step ends with a sum in which rank 0 takes part. Nothing is fitted: every constant is measured by
itself or on one host, and the model is held against runs on several.

The LogGP names (Alexandrov et al., SPAA 1995): latency L, overhead o, gap per byte G; P is the number of ranks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Costs:
    """What machine and software cost, each measured by itself.

    Parameters
    ----------
    latency, overhead : float
        L, one small message between nodes, one way; o, the processor's part of it on either side [s].
    byte : float
        G, one more byte of a message between nodes [s].
    hop : float
        One stage of the sum at the end of a step, of all its numbers [s].
    round_trip : float
        From a rank to the server on its node and back, the model not counted [s].
    relay, relay_byte : float
        From a rank to a server on another node and back through the object store, and what a byte adds [s].
    record : float
        Rank 0's time for a ledger record: taken from what was gathered and written [s].
    batch : float
        Rank 0's time for the samples of one rank when a training begins [s].
    look : float
        What the file system that all nodes share takes to say that a file is not there [s].
    read : float
        What it takes to open and read a small file [s].
    noise : float
        Standard deviation of a rank's step over its mean.
    """

    latency: float
    overhead: float
    byte: float
    hop: float
    round_trip: float
    relay: float
    relay_byte: float
    record: float
    batch: float
    look: float
    read: float
    noise: float


@dataclass(frozen=True)
class Layout:
    """Who runs where.

    Parameters
    ----------
    nodes, ranks : int
        Nodes, and ranks on each.
    cores : float
        Cores of a node for ranks and server together; a fraction where hosts share a machine.
    servers : float
        Cores on which the models of a node run: 1 for a server with one thread on every node, less where nodes ask
        servers elsewhere, 0 for a model inside every rank.
    """

    nodes: int
    ranks: int
    cores: float
    servers: float = 1.0

    @property
    def all_ranks(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.ranks

    @property
    def remote(self) -> bool:
        """Whether questions go to other nodes."""
        return 0 < self.servers < 1


@dataclass(frozen=True)
class Work:
    """What a rank has to do in a step.

    Parameters
    ----------
    elements : int
        Elements of a rank.
    own : float
        The rank's own work per element beside truth: the cheap part of the kernel, gathering, judging, scattering [s].
    fixed : float
        The rank's own work per step, whatever its elements [s].
    truth, model : float
        Per element [s].
    audited, fallback : float
        Shares of the elements whose truth is computed while, and after, the model is asked.
    question : float
        Bytes of an element's inputs and answer together.
    halo_messages, halo_bytes : int
        Messages of a rank to its neighbours in a step, and bytes in all of them.
    training_steps, training_share : float
        Steps from the start of one training to the next, and the share of them while a training goes on.
    """

    elements: int
    own: float
    fixed: float
    truth: float
    model: float
    audited: float = 0.02
    fallback: float = 0.1
    question: float = 72.0
    halo_messages: int = 4
    halo_bytes: int = 8192
    training_steps: float = 1000.0
    training_share: float = 0.5


@dataclass(frozen=True)
class Step:
    """Where the seconds of a step go; each is time by which the slowest rank is later.

    Parameters
    ----------
    work : float
        The rank's own work, truth included, as far as the cores of its node allow.
    answer : float
        Waiting for the model beyond that.
    halo, sum : float
        Ghost cells; the sum at the end of the step.
    noise : float
        The slowest of all ranks beyond the mean one.
    ledger, samples : float
        Rank 0's time for everybody's records, and for everybody's samples, over the steps in which they come together.
    looks, takeover : float
        The shared file system: asked by rank 0 in every step whether a training has ended, and by every node once it
        has; read by every rank then.
    """

    work: float
    answer: float
    halo: float
    sum: float
    noise: float
    ledger: float
    samples: float
    looks: float
    takeover: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def for_everybody(self) -> float:
        """The part that grows with the job: what one place does for all."""
        return self.ledger + self.samples + self.looks + self.takeover

    def largest(self) -> str:
        """Name what takes the most of that part."""
        return max(("ledger", "samples", "looks", "takeover"), key=lambda name: getattr(self, name))


# Small files that a rank reads when a version takes over: outcome, card, introduction.
TAKEOVER_FILES = 3
# Ledger records of a rank per step and operator.
RECORD_BYTES = 241


def predict(costs: Costs, layout: Layout, work: Work) -> Step:
    """Predict a step.

    Parameters
    ----------
    costs : Costs
        The machine.
    layout : Layout
        Who runs where.
    work : Work
        What there is to do.

    Returns
    -------
    Step
    """
    mine = work.fixed + work.elements * (work.own + (work.audited + work.fallback) * work.truth)
    node = _node(costs, layout, work, mine)
    ranks, busy = layout.all_ranks, max(mine, node)
    trainings = 1.0 / work.training_steps
    return Step(
        work=mine,
        answer=node - mine,
        halo=_halo(costs, layout, work),
        sum=math.ceil(math.log2(ranks)) * costs.hop,
        noise=costs.noise * busy * math.sqrt(2.0 * math.log(ranks)),
        ledger=ranks * costs.record if ranks > 1 else 0.0,
        samples=trainings * ranks * costs.batch if ranks > 1 else 0.0,
        looks=(work.training_share + trainings * layout.nodes) * costs.look if layout.nodes > 1 else 0.0,
        takeover=trainings * TAKEOVER_FILES * ranks * costs.read if layout.nodes > 1 else 0.0,
    )


def _node(costs: Costs, layout: Layout, work: Work, mine: float) -> float:
    """Seconds until the last rank of a node is through, messages not counted."""
    asked = work.elements * work.model
    if layout.servers == 0:
        return max(mine + asked, layout.ranks * (mine + asked) / layout.cores)
    way = costs.round_trip
    batch = layout.ranks * asked / layout.servers  # of all nodes that a server answers
    if layout.remote:
        way = costs.relay + layout.ranks * work.elements * work.question * costs.relay_byte
    meanwhile = work.elements * work.audited * work.truth
    alone = mine + max(0.0, way + batch - meanwhile)
    # Whoever shares cores cannot be faster than all the work on them.
    served = layout.ranks * asked if layout.servers >= 1 else 0.0
    return max(alone, (layout.ranks * mine + served) / layout.cores + way)


def _halo(costs: Costs, layout: Layout, work: Work) -> float:
    if layout.all_ranks == 1 or work.halo_messages == 0:
        return 0.0
    if layout.nodes == 1:
        return work.halo_messages * costs.overhead
    return work.halo_messages * 2 * costs.overhead + costs.latency + work.halo_bytes * costs.byte


def first_limit(costs: Costs, layout: Layout, work: Work, share: float = 0.1, most: int = 2**20) -> "Limit | None":
    """Find the number of nodes from which what one place does for all takes more than a share of a step.

    Parameters
    ----------
    costs, layout, work
        As for :func:`predict`; the layout's number of nodes does not count.
    share : float
        Of the step as it would be without.
    most : int
        Nodes beyond which nobody looks.

    Returns
    -------
    Limit or None
        None if it never comes to that.
    """

    def beyond(nodes: int) -> bool:
        step = predict(costs, replace(layout, nodes=nodes), work)
        return step.for_everybody > share * (step.seconds - step.for_everybody)

    if not beyond(most):
        return None
    nodes = _least(beyond, most)
    return Limit(nodes, predict(costs, replace(layout, nodes=nodes), work).largest())


@dataclass(frozen=True)
class Limit:
    """The number of nodes from which something takes too much, and what it is."""

    nodes: int
    what: str


def _least(holds: Callable[[int], bool], most: int) -> int:
    """Find the least number for which something holds that stays true once it is."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
