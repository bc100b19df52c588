"""Batches: the rows of several ranks cut and packed into a few fixed sizes, as views of where they lie."""

from collections.abc import Sequence
from typing import NamedTuple

from coupler.records import Rows


class Batch(NamedTuple):
    """What a device is given at once.

    Attributes
    ----------
    size : int
        Rows it is made for; those that no segment has are padding.
    segments : list of Rows
        Views, together at most so many rows.
    """

    size: int
    segments: list[Rows]


def pack(parts: Sequence[Rows], sizes: Sequence[int]) -> list[Batch]:
    """Cut whole batches of the largest size out of the parts, and pack what is left of them together.

    Parameters
    ----------
    parts : sequence of Rows
        Any number of elements each.
    sizes : sequence of int
        Sizes a batch may have, ascending; the last batch has the smallest that holds it.
    """
    most = sizes[-1]
    batches, packed, free = list[Batch](), list[Rows](), most
    for part in parts:
        start, count = 0, len(part.inputs)
        while count - start >= most:
            batches.append(Batch(most, [_rows(part, start, start + most)]))
            start += most
        while start < count:
            stop = min(count, start + free)
            packed.append(_rows(part, start, stop))
            start, free = stop, free - (stop - start)
            if not free:
                batches.append(Batch(most, packed))
                packed, free = [], most
    if packed:
        batches.append(Batch(next(size for size in sizes if size >= most - free), packed))
    return batches


def copied(parts: Sequence[Rows]) -> list[Rows]:
    """Give the parts with answers of their own, as they are now."""
    return [Rows(part.inputs, part.dt, part.mean.copy(), part.score.copy()) for part in parts]


def cut(part: Rows, rows: int) -> list[Rows]:
    """Cut a part into views of so many rows, the last one of what is left."""
    starts = range(0, len(part.inputs), rows)
    return [part] if len(starts) == 1 else [_rows(part, start, start + rows) for start in starts]


def _rows(part: Rows, start: int, stop: int) -> Rows:
    return Rows(part.inputs[start:stop], part.dt, part.mean[start:stop], part.score[start:stop])
