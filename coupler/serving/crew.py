"""A crew: threads that share the chunks of a batch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Piece = TypeVar("Piece")


class Crew:
    """Threads that deal out pieces of work among themselves; the caller is one of them.

    Parameters
    ----------
    threads : int
        How many work at the same time, the caller included.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="forward") if threads > 1 else None

    def deal(self, work: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
        """Do all the work; what one piece raises is raised here, when nobody works any more."""
        if self._pool is None or len(pieces) < 2:
            for piece in pieces:
                work(piece)
            return
        left = iter(pieces)  # taking the next one is atomic

        def take() -> None:
            for piece in left:
                work(piece)

        helpers = [self._pool.submit(take) for _ in range(min(self.threads, len(pieces)) - 1)]
        try:
            take()
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()
