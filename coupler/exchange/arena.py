"""The arena: one segment of shared memory per node, a slot in it for every rank and operator.

Ranks gather their elements into their slots and the server's tensors are views of them: between a rank and the forward
nothing is copied.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.exchange import questions
from coupler.exchange.atomics import check_processor
from coupler.exchange.doorbell import Bell, Patience, count_up
from coupler.exchange.questions import ANSWER, CAPACITY, CONTROL_LINES, DESCRIPTOR, GENERATION, PID, REQUEST, WORDS
from coupler.exchange.segment import LINE, Segment, SegmentAddress, whole_lines

# Lines of the header.
BELL, STOP, _SERVER, _HEADER_LINES = 0, 1, 2, 3


@dataclass(frozen=True)
class SlotShape:
    """What one slot can hold.

    Parameters
    ----------
    operator : int
        Index of the operator it belongs to.
    capacity : int
        Elements that fit.
    n_in, n_out : int
        Columns of the inputs and outputs.
    """

    operator: int
    capacity: int
    n_in: int
    n_out: int

    @property
    def bytes(self) -> int:
        """Size of the slot, control lines included, a multiple of a cache line."""
        return CONTROL_LINES * LINE + self.region_bytes(self.capacity)

    def region_bytes(self, capacity: int) -> int:
        """Size of inputs, mean and score of so many elements, each on lines of its own."""
        return sum(whole_lines(8 * capacity * columns) for columns in (self.n_in, self.n_out, 1))


@dataclass(frozen=True)
class ArenaLayout:
    """Where everything is in the segment: plain data, the same in every process that maps it."""

    slots: tuple[SlotShape, ...]

    @property
    def bytes(self) -> int:
        """Size of the segment."""
        return _HEADER_LINES * LINE + sum(slot.bytes for slot in self.slots)

    def offset(self, index: int) -> int:
        """First byte of a slot."""
        return _HEADER_LINES * LINE + sum(slot.bytes for slot in self.slots[:index])


@dataclass(frozen=True)
class ArenaAddress:
    """How another process of the same user on the same node opens the arena."""

    segment: SegmentAddress
    layout: ArenaLayout


class Slot:
    """One rank's desk in the arena for one operator: a question on it, an answer beside it.

    The rank writes the inputs, then what the question is, then its number; the server writes mean and score, then the
    answer's number. An answer whose number is not the last question's is late and means nothing.

    Attributes
    ----------
    shape : SlotShape
        What it held at first.
    operator : int
        Index of the operator it belongs to.
    capacity : int
        Elements that fit at present.
    inputs : ndarray (capacity, n_in)
        The question's elements.
    mean, score : ndarray (capacity, n_out) and (capacity,)
        The answer.
    words : ndarray of uint32
        Its control lines.
    generation : int
        How often it has moved to a larger segment, as far as this process has followed.
    answered : ndarray (2,) of uint32
        The bell the server rings: number of the last answer, and sleepers.
    """

    def __init__(self, shape: SlotShape, memory: memoryview) -> None:
        self.shape, self.operator, self.capacity = shape, shape.operator, shape.capacity
        self.words = np.frombuffer(memory[: CONTROL_LINES * LINE], dtype=np.uint32)
        self.answered = self.words[ANSWER : ANSWER + 2]
        self._grown: Segment | None = None
        self.generation = 0
        self._lay_out(memory[CONTROL_LINES * LINE :])

    @property
    def number(self) -> int:
        """Number of the last question."""
        return int(self.words[REQUEST])

    @property
    def pending(self) -> bool:
        """Whether a question waits for its answer."""
        return bool(self.words[REQUEST] != self.words[ANSWER])

    def ask(self, bell: Bell, count: int, dt: float, version: int) -> None:
        """Put a question and ring whoever answers it.

        Parameters
        ----------
        bell : ndarray (2,) of uint32
            The arena's.
        count : int
            The question is the first so many rows of the inputs.
        dt : float
            Time step of its elements.
        version : int
            Version of the model that is asked.
        """
        questions.ask(self.words, bell, count, dt, version)

    def wait(self, timeout: float, patience: Patience) -> tuple[bool, float, float]:
        """Wait for the answer to the last question.

        Parameters
        ----------
        timeout : float
            Longest wait [s]. A signal ends it early.
        patience : Patience
            The rank's memory of its waits.

        Returns
        -------
        arrived : bool
            Whether it is there; if so and ``seconds`` is NaN, the question cannot be answered.
        seconds : float
            Time the model took for the batch the question travelled in [s].
        turnaround : float
            Time from the question to its answer [s], whether anybody waited for it or not.

        Collective: no. Releases the GIL.
        """
        return questions.await_answer(self.words, timeout, patience.memory)  # type: ignore[no-any-return]

    def answer(self, number: int, seconds: float) -> None:
        """Say that mean and score are the answer to a question, and wake its rank.

        Parameters
        ----------
        number : int
            Which question.
        seconds : float
            Time the model took for the batch it travelled in; NaN if there is no answer after all.
        """
        questions.answer(self.words, number, seconds)

    def grow(self, capacity: int) -> None:
        """Move to a larger segment of this rank's own; no question may be pending.

        Raises
        ------
        CouplerError
            If the node has no room for it; the slot is as before.
        """
        grown = Segment.create(self.shape.region_bytes(capacity))
        self._leave()
        self._take(grown, capacity)
        words = self.words
        words.view(np.int64)[CAPACITY // 2] = capacity
        words[PID], words[DESCRIPTOR] = grown.address.pid, grown.address.descriptor
        self.generation = (self.generation + 1) % 2**32
        words[GENERATION] = self.generation  # seen with the next question's number, which is written after it

    def follow(self) -> memoryview:
        """Map the segment the rank has moved to, and give its memory.

        Raises
        ------
        CouplerError
            If the rank is gone, or has moved on again.
        """
        words = self.words
        generation, capacity = int(words[GENERATION]), int(words.view(np.int64)[CAPACITY // 2])
        size = self.shape.region_bytes(capacity)
        grown = Segment.attach(SegmentAddress(int(words[PID]), int(words[DESCRIPTOR]), size))
        self._leave()
        self._take(grown, capacity)
        self.generation = generation
        return grown.memory

    def close(self) -> None:
        """Let go of what it grew into."""
        self._leave()

    def _leave(self) -> None:
        if self._grown is not None:
            self._grown.close()

    def _take(self, grown: Segment, capacity: int) -> None:
        self._grown, self.capacity = grown, capacity
        self._lay_out(grown.memory)

    def _lay_out(self, memory: memoryview) -> None:
        place, arrays = 0, []
        for columns in (self.shape.n_in, self.shape.n_out, 1):
            size = 8 * self.capacity * columns
            flat: NDArray[np.float64] = np.frombuffer(memory[place : place + size], dtype=np.float64)
            arrays.append(flat.reshape(self.capacity, columns))
            place += whole_lines(size)
        self.inputs, self.mean, self.score = arrays[0], arrays[1], arrays[2][:, 0]


class Arena:
    """The mapped segment: the header's bell and flags, and the slots.

    Attributes
    ----------
    memory : memoryview
        All of it.
    words : ndarray of uint32
        The same.
    bell : ndarray (2,) of uint32
        What ranks ring; its word counts questions.
    stop : ndarray (1,) of uint32
        Nonzero asks the server to return.
    server_pid : ndarray (1,) of uint32
        Process of the server, 0 until it listens.
    crowded : ndarray (1,) of uint32
        Nonzero where ranks and server are more than the cores; the server knows, before it listens.
    slots : list of Slot
        One per rank and operator.
    """

    def __init__(self, layout: ArenaLayout, segment: Segment) -> None:
        check_processor()
        self.layout = layout
        self._segment = segment
        self.memory = memory = segment.memory
        self.words = np.frombuffer(memory, dtype=np.uint32)
        header = self.words[: _HEADER_LINES * WORDS].reshape(_HEADER_LINES, -1)
        self.bell, self.stop = header[BELL, 0:2], header[STOP, 0:1]
        self.server_pid, self.crowded = header[_SERVER, 0:1], header[_SERVER, 1:2]
        self.slots = [
            Slot(shape, memory[layout.offset(index) : layout.offset(index) + shape.bytes])
            for index, shape in enumerate(layout.slots)
        ]

    @classmethod
    def create(cls, layout: ArenaLayout) -> "Arena":
        """Make a fresh arena, all zeros, owned by this process.

        Raises
        ------
        CouplerError
            If the node has no room for it.

        Collective: no; one rank per node calls it.
        """
        return cls(layout, Segment.create(layout.bytes))

    @classmethod
    def attach(cls, address: ArenaAddress) -> "Arena":
        """Map the arena another process of this node made.

        Raises
        ------
        CouplerError
            If its owner is gone or belongs to another user.

        Collective: no.
        """
        return cls(address.layout, Segment.attach(address.segment))

    @property
    def address(self) -> ArenaAddress:
        """Where to :meth:`attach`."""
        return ArenaAddress(self._segment.address, self.layout)

    @property
    def inode(self) -> int:
        """What the system calls its segment, the same in every process that maps it."""
        return self._segment.inode

    def dismiss(self) -> None:
        """Ask the server to return from its work."""
        self.stop[0] = 1
        count_up(self.bell)

    def close(self) -> None:
        """Close the descriptors. The mapping lives as long as somebody holds a view of it."""
        self._segment.close()
        for slot in self.slots:
            slot.close()
