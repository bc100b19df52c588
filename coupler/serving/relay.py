"""The relay: answers the arena of a node that has no server, by asking servers elsewhere through Ray's object store.

To the ranks it is a server: they watch its process, and their deadline is the same. Large questions go from the arena
into the object store and answers from there into the arena, one copy each way, in chunks, so that one is copied, one on
its way, one computed and one on its way back at the same time. Small ones travel within the call.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from coupler.errors import CouplerError
from coupler.exchange import Arena, ArenaAddress, Batch, Desk
from coupler.exchange.takeover import take_over
from coupler.records import Rows
from coupler.serving.actor import Actor
from coupler.serving.modelplan import check_folder
from coupler.serving.remote import WITHIN_CALL_BYTES, Heading, consecutive, cut_up, reply_pieces, unpacked

_log = logging.getLogger("coupler")
# How long an idle relay sleeps if nobody rings, as questions and the end do, and how long it waits for Ray at once [s].
_IDLE_SECONDS, _LOOK_SECONDS = 1.0, 0.2
# How long a server that cannot be reached is left alone before it is asked again [s].
_REST_SECONDS = 1.0
# An answer that is ready comes within so long, or its server rests [s].
_FETCH_SECONDS = 30.0
# Inputs and answers of one chunk that goes through the store, at most [bytes]: large beside what finding an object
# costs, some milliseconds each way. A batch of no more than one goes in calls instead.
_CHUNK_BYTES = 16 * 2**20
# Chunks on their way to one server: one computed, one going there, one coming back.
_IN_FLIGHT = 3


@dataclass
class _Open:
    """A batch whose answer is not complete."""

    batch: Batch
    chunks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Chunk:
    """A part of a batch that is asked at once."""

    of: _Open
    rows: Sequence[Rows]

    @property
    def counts(self) -> list[int]:
        return [len(part.score) for part in self.rows]

    @property
    def bytes(self) -> int:
        return sum(map(_bytes, self.rows))

    def put(self, seconds: float, values: NDArray[np.float64]) -> None:
        """Copy an answer into the arena, and ring when it was the last of its batch."""
        mean, score = unpacked(values, sum(self.counts))
        for part, rows in zip(self.rows, consecutive(self.counts), strict=True):
            part.mean[...], part.score[...] = mean[rows], score[rows]
        whole = self.of
        whole.seconds += seconds
        whole.chunks -= 1
        if whole.chunks == 0:
            whole.batch.answer(whole.seconds)


@dataclass
class _Line:
    """The line to one server, and what is on its way there: chunk and results of a call by the last of its results."""

    server: Any
    asked: dict[Any, tuple[_Chunk, list[Any]]] = field(default_factory=dict)
    rests_until: float = 0.0

    @property
    def free(self) -> bool:
        return len(self.asked) < _IN_FLIGHT and time.monotonic() >= self.rests_until

    def ask(self, chunk: _Chunk) -> None:
        batch, parts = chunk.of.batch, [part.inputs for part in chunk.rows]
        heading = Heading(batch.operator, batch.version, [part.dt for part in chunk.rows], chunk.counts)
        if chunk.rows and chunk.bytes <= WITHIN_CALL_BYTES:
            pieces = cut_up(np.concatenate(parts).ravel())
            results = reply_pieces(sum(chunk.counts), chunk.rows[0].mean.shape[1])
            replies = self.server.answer_within.options(num_returns=results).remote(heading, *pieces)
        else:
            replies = self.server.answer.options(num_returns=2).remote(heading, parts)
        self.asked[replies[-1]] = chunk, replies

    def give_back(self) -> list[_Chunk]:
        """Forget what is on its way, and give it."""
        chunks = [chunk for chunk, _ in self.asked.values()]
        self.asked.clear()
        return chunks


class Relay(Actor):
    """Carries questions from an arena to servers on other nodes; a Ray actor on the ranks' node.

    It ends its own process when the last server is gone, and the ranks, which watch the process, go on without.

    Parameters
    ----------
    address : ArenaAddress
        The node's arena.
    servers : sequence of Ray actor handles
        :class:`RemoteServer` actors, asked in turns.
    models : str
        Folder of the registry, for the log beside it.
    cores : tuple of int
        Where to run.
    crowded : bool
        Whether the node has more ranks and servers than cores.
    """

    def __init__(
        self,
        address: ArenaAddress,
        servers: Sequence[Any],
        models: str,
        cores: tuple[int, ...],
        crowded: bool = False,
    ) -> None:
        os.sched_setaffinity(0, cores)
        check_folder(Path(models))
        self._arena = Arena.attach(address)
        self._arena.crowded[0] = crowded
        self._desk = Desk(self._arena)
        self._lines = deque(_Line(server) for server in servers)
        _log.addHandler(logging.FileHandler(Path(models).parent / "server.log", delay=True))
        self._joining = deque[_Line]()
        take_over(self._arena)

    def join(self, server: Any) -> None:
        """Be told of a server that was started again: it is asked from the next round on, once."""
        if all(line.server != server for line in self._lines):
            self._joining.append(_Line(server))

    def serve(self) -> None:
        """Carry questions and answers until the arena says stop."""
        try:
            while self._desk.open:
                while self._joining:
                    self._lines.append(self._joining.popleft())
                self._answer(self._desk.batches(_IDLE_SECONDS))
        except Exception:  # noqa: BLE001, the edge of the process
            _log.exception("the relay ends")
            os._exit(1)

    def _answer(self, batches: Sequence[Batch]) -> None:
        """Have all batches of a round answered, the chunks of all of them on their way together."""
        waiting = deque(_chunks(batches))
        while (waiting or any(line.asked for line in self._lines)) and self._desk.open:
            while waiting and (line := self._free_line()) is not None:
                line.ask(waiting.popleft())
            waiting.extendleft(self._take_in())

    def _free_line(self) -> _Line | None:
        """Give the line with the least on its way, in turns among equals; none if all have enough or rest."""
        self._lines.rotate(-1)
        return min((line for line in self._lines if line.free), key=lambda line: len(line.asked), default=None)

    def _take_in(self) -> list[_Chunk]:
        """Wait for an answer and write it into the arena; give the chunks of a server that was lost meanwhile."""
        asked = {reply: line for line in self._lines for reply in line.asked}
        if not asked:  # all servers rest
            time.sleep(_LOOK_SECONDS)
            return []
        # All of them: Ray begins to fetch what is ready.
        done, _ = ray.wait(list(asked), num_returns=1, timeout=_LOOK_SECONDS, fetch_local=True)
        for reply in done:
            line = asked[reply]
            chunk, replies = line.asked[reply]
            try:
                seconds, *values = ray.get(replies, timeout=_FETCH_SECONDS)
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError) as error:
                return self._rest(line, error)
            except ray.exceptions.RayError as error:
                return self._drop(line, error)
            del line.asked[reply]
            chunk.put(seconds, values[0] if len(values) == 1 else np.concatenate(values))
        return []

    def _rest(self, line: _Line, error: Exception) -> list[_Chunk]:
        """Take back what a server was asked that cannot be reached for now: a link may be cut for a while."""
        _log.warning("a server cannot be reached: %s", _first_line(error))
        line.rests_until = time.monotonic() + _REST_SECONDS
        return line.give_back()

    def _drop(self, line: _Line, error: Exception) -> list[_Chunk]:
        _log.warning("a server is lost: %s", _first_line(error))
        self._lines.remove(line)
        if not self._lines:
            raise CouplerError("all servers are lost") from error
        return line.give_back()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _chunks(batches: Iterable[Batch]) -> Iterator[_Chunk]:
    """Cut batches into chunks; the rows of several ranks travel together, those of one with many are divided."""
    for batch in batches:
        whole = _Open(batch)
        small = sum(map(_bytes, batch.parts)) <= _CHUNK_BYTES
        chunks = [_Chunk(whole, rows) for rows in cut(batch.parts, WITHIN_CALL_BYTES if small else _CHUNK_BYTES)]
        whole.chunks = len(chunks)
        yield from chunks


def _bytes(part: Rows) -> int:
    return part.inputs.nbytes + part.mean.nbytes + part.score.nbytes


def cut(parts: Sequence[Rows], most: int) -> Iterator[list[Rows]]:
    """Cut the parts of a batch into groups.

    Parameters
    ----------
    parts : sequence of Rows
        Views; so are what is given.
    most : int
        Inputs and answers of a group, at most [bytes]; one element is not divided.

    Yields
    ------
    list of Rows
        In order; at least one group, and none without elements beside others.
    """
    group: list[Rows] = []
    left = most
    for part in parts:
        row = 8 * (part.inputs.shape[1] + part.mean.shape[1] + 1)
        start = 0
        while start < len(part.inputs):
            if group and left < row:
                yield group
                group, left = [], most
            rows = slice(start, min(start + max(left // row, 1), len(part.inputs)))
            group.append(Rows(part.inputs[rows], part.dt, part.mean[rows], part.score[rows]))
            left -= row * (rows.stop - rows.start)
            start = rows.stop
    yield group
