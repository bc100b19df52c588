"""The workshop of a node: a segment with a table for every operator of every rank, where ranks share their truth.

Every rank works at benches of its own (``bench.py``), and who has no work left computes some of a neighbour's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.exchange.atomics import load_acquire, store_release
from coupler.exchange.doorbell import Patience, count_up, wait_for_change
from coupler.exchange.segment import LINE, Segment, SegmentAddress
from coupler.exchange.table import TABLE_WORDS, BenchShape, Chunk, Table, take_from_others
from coupler.exchange.truthcost import MOST_CHUNKS, ChunkSize
from coupler.operator import Operator

_WORDS = LINE // 4
# Lines of the segment: the bell, one per rank, then the benches.
_BELL, _FIRST_RANK = 0, 1


@dataclass(frozen=True)
class WorkshopLayout:
    """Where everything is in the segment: plain data, the same on every rank of the node.

    Parameters
    ----------
    benches : tuple of tuple of BenchShape
        By rank, then by operator; all ranks have the same operators in the same order.
    """

    benches: tuple[tuple[BenchShape, ...], ...]

    @property
    def ranks(self) -> int:
        """Ranks of the node."""
        return len(self.benches)

    @property
    def operators(self) -> int:
        """Operators of each."""
        return len(self.benches[0])

    @property
    def shapes(self) -> tuple[BenchShape, ...]:
        """All benches in their order."""
        return tuple(shape for rank in self.benches for shape in rank)

    @property
    def first_bench(self) -> int:
        """First word of the first bench's control lines."""
        return (_FIRST_RANK + self.ranks) * _WORDS

    @property
    def control_bytes(self) -> int:
        """Size of everything before the first inputs."""
        return 4 * (self.first_bench + TABLE_WORDS * len(self.shapes))

    @property
    def bytes(self) -> int:
        """Size of the segment."""
        return self.control_bytes + sum(shape.bytes for shape in self.shapes)


class Workshop:
    """The mapped segment as one rank sees it: its own tables, one per operator, and the neighbours'.

    Attributes
    ----------
    operators : tuple of Operator
        Whose truth can be shared.
    tables, own_tables : list of Table
        All, by rank, then by operator; and this rank's.

    Parameters
    ----------
    segment : Segment
        Of ``layout.bytes`` bytes, all zeros when its first rank maps it.
    layout : WorkshopLayout
        Where everything is.
    rank : int
        This rank's number on the node.
    operators : sequence of Operator
        Whose truth can be shared, in the order of the layout.
    """

    def __init__(self, segment: Segment, layout: WorkshopLayout, rank: int, operators: Sequence[Operator]) -> None:
        assert len(operators) == layout.operators, (len(operators), layout.operators)
        self._segment, self._layout, self._rank, self.operators = segment, layout, rank, tuple(operators)
        self.words: NDArray[np.uint32] = np.frombuffer(segment.memory[: layout.control_bytes], np.uint32)
        self.bell = self.words[_BELL * _WORDS : _BELL * _WORDS + 2]
        self.patience = Patience()
        self.tables = self._map_tables()
        self.own_tables = self.tables[rank * layout.operators : (rank + 1) * layout.operators]
        self._mine = (_FIRST_RANK + rank) * _WORDS
        self._warm()

    @classmethod
    def create(cls, layout: WorkshopLayout, operators: Sequence[Operator]) -> "Workshop":
        """Make the node's workshop on its first rank.

        Raises
        ------
        CouplerError
            If the node has no room for it.

        Collective: no.
        """
        return cls(Segment.create(layout.bytes), layout, 0, operators)

    @classmethod
    def attach(
        cls, address: SegmentAddress, layout: WorkshopLayout, rank: int, operators: Sequence[Operator]
    ) -> "Workshop":
        """Map the workshop another rank of the node made.

        Raises
        ------
        CouplerError
            If its owner is gone, has closed it or belongs to another user.

        Collective: no.
        """
        return cls(Segment.attach(address), layout, rank, operators)

    @property
    def address(self) -> SegmentAddress:
        """Where to :meth:`attach`, until the first rank closes it."""
        return self._segment.address

    @property
    def rank(self) -> int:
        """This rank's number on the node."""
        return self._rank

    @property
    def ranks(self) -> int:
        """Ranks of the node."""
        return self._layout.ranks

    def close(self) -> None:
        """Let nobody attach any more; what is mapped stays. Collective: no."""
        self._segment.close()

    def enter(self, phase: int) -> None:
        """Say that this rank may have work in a phase, so that neighbours who have none wait a moment for it."""
        store_release(self.words, self._mine, phase)

    def leave(self, phase: int) -> None:
        """Say that this rank will have no more work in its phase."""
        store_release(self.words, self._mine, phase + 1)
        count_up(self.bell)

    def expects(self, phase: int) -> bool:
        """Whether a neighbour is in a phase, or has not come to it yet, and may have work."""
        return bool(_expects(self.words, self._layout.ranks, phase))

    def take(self) -> Chunk | None:
        """Take a chunk of the neighbour who has most of them left, of whatever operator."""
        layout = self._layout
        mine = self._rank * layout.operators
        found = take_from_others(self.words, layout.first_bench, len(layout.shapes), mine, mine + layout.operators)
        if found < 0:
            return None
        bench, left = divmod(int(found), MOST_CHUNKS + 1)
        table = self.tables[bench]
        return Chunk(table, table.chunks - left, self.operators[bench % layout.operators])

    def _map_tables(self) -> list[Table]:
        memory, place, tables = self._segment.memory, self._layout.control_bytes, []
        for index, shape in enumerate(self._layout.shapes):
            start = 4 * (self._layout.first_bench + index * TABLE_WORDS)
            tables.append(Table(shape, memory[start : start + 4 * TABLE_WORDS], memory[place : place + shape.bytes]))
            place += shape.bytes
        return tables

    def _warm(self) -> None:
        """Have everything compiled, or read from the cache, before it is needed in a hurry."""
        table = Table.apart()
        table.open(table.inputs, 1.0, ChunkSize(1, 1), 1)
        table.take()
        table.close()
        table.read_takers(1)
        take_from_others(self.words, self._layout.first_bench, 0, 0, 0)
        self.expects(1)
        self.leave(0)
        wait_for_change(self.bell, int(load_acquire(self.bell, 0)), 0.0, Patience())


@njit(nogil=True, cache=True)
def _expects(words, ranks, phase):  # type: ignore[no-untyped-def]
    for rank in range(ranks):
        # Phases go up and begin again at 0; an even one was left.
        ahead = np.int32(load_acquire(words, (_FIRST_RANK + rank) * _WORDS) - np.uint32(phase))
        if ahead <= 0:
            return True
    return False
