"""What this machine can do at best: the yardstick beside the rivals."""

import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.timing import Repeat, each

# How long a rate is measured [s].
_SECONDS = 0.2


def copies(size: int, count: int = 1) -> Repeat:
    """Give the work of copying so many bytes between private arrays of this process, ``count`` times over.

    Parameters
    ----------
    size : int
        Bytes of one copy, at least 8.
    count : int
        Copies in one repetition, each into an array of its own: in and out are two.
    """
    arrays = [_touched(size) for _ in range(count + 1)]

    def work() -> None:
        for source, target in pairwise(arrays):
            np.copyto(target, source)

    return each(work)


def copy_rate(size: int) -> float:
    """Measure at which rate memory of a given size is copied by one thread [bytes/s]; the median of many copies."""
    repeat = copies(size)
    once = float(repeat(2)[1])
    return size / float(np.median(repeat(max(3, min(1000, int(_SECONDS / max(once, 1e-9)))))))


def matrix_rate(size: int = 768) -> float:
    """Measure the rate of a float32 matrix product on as many threads as NumPy's library may use [operations/s]."""
    random = np.random.default_rng(0)
    left, right = (random.random((size, size), dtype=np.float32) for _ in range(2))
    best, ends = np.inf, time.perf_counter() + _SECONDS
    while time.perf_counter() < ends:
        before = time.perf_counter()
        np.matmul(left, right)
        best = min(best, time.perf_counter() - before)
    return 2.0 * size**3 / best


def _touched(size: int) -> NDArray[np.float64]:
    """Give an array whose pages are there."""
    array = np.empty(size // 8)
    array[...] = 1.0
    return array
