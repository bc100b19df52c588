"""Coins that anyone can toss again: random numbers keyed by (seed, step, call, global id), whatever the ranks.

The generator is Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): a number is a
function of its key and counter, so there is no state to carry, order or restart.
"""

import hashlib
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

# The third counter word is the low half of the step; the fourth, from its low bits up: stream, call, rest of the step.
_STREAM_BITS, _CALL_BITS, _STEP_BITS = 4, 16, 44
_LOW = 0xFFFFFFFF
MOST_CALLS = 2**_CALL_BITS
_BLOCK = 256

Word = np.uint64  # holds 32 bits; 64, so that products keep their high half


class Stream(IntEnum):
    """What a coin is for; streams are independent of each other."""

    AUDIT = 0
    SAMPLE = 1
    POLICY = 2
    REDRAW = 15  # of no run: how far it is to the next audit, for `coupler.redraw`


def coin_seed(seed: int, weights: Iterable[str]) -> int:
    """Give the seed of the coins of a run that begins with models.

    Models may have learned from the audits of an earlier run with the same seed, and would know from them where this
    one's coins fall: they would be exact just where somebody looks. Coins that hang on the weights cannot be known to
    them.

    Parameters
    ----------
    seed : int
        Seed of the run.
    weights : iterable of str
        Digests of the weights it begins with, in any order.

    Returns
    -------
    int
        The run's own seed where there are no weights, otherwise one below 2**52, which no reader of JSON rounds.

    Collective: no.
    """
    known = sorted(weights)
    if not known:
        return seed
    return int(hashlib.sha256(" ".join([str(seed), *known]).encode()).hexdigest()[:13], 16)


def uniforms(
    seed: int, step: int, call: int, ids: NDArray[np.int64], *, stream: Stream = Stream.AUDIT
) -> NDArray[np.float64]:
    """Draw one number per element, the same on any number of ranks and in any order.

    Parameters
    ----------
    seed : int
        Seed of the run, below 2**64.
    step : int
        Time step, below 2**44.
    call : int
        Number of this call of ``evaluate`` within the step, over all operators, below 2**16.
    ids : ndarray (n,) of int64
        Global ids of the elements.
    stream : Stream
        What the numbers are for.

    Returns
    -------
    ndarray (n,)
        Uniform on the multiples of 2**-53 in [0, 1).

    Collective: no.
    """
    out = np.empty(ids.size)
    _fill_uniforms(*_key(seed), *_counter(step, call, stream), ids, out)
    return out


def tosses(
    rate: float, seed: int, step: int, call: int, ids: NDArray[np.int64], *, stream: Stream = Stream.AUDIT
) -> NDArray[np.bool_]:
    """Toss one coin per element: whether its number of :func:`uniforms` is below ``rate``.

    A rate that is no multiple of 2**-53 is exceeded by less than that, which the certificate allows: an audit more
    never weakens it.

    Collective: no.
    """
    out = np.empty(ids.size, dtype=np.bool_)
    _fill_tosses(rate, *_key(seed), *_counter(step, call, stream), ids, out)
    return out


class Coins:
    """The coins of one stream of a run, for whoever wants to know which elements they chose, and nothing else.

    Parameters
    ----------
    seed : int
        Seed of the run, below 2**64.
    stream : Stream
        What the coins are for.
    """

    def __init__(self, seed: int, stream: Stream) -> None:
        self._key, self._stream = _key(seed), stream

    def choose(
        self,
        rate: float,
        step: int,
        call: int,
        ids: NDArray[np.int64],
        inputs: NDArray[np.float64],
        rows: NDArray[np.int64],
        chosen: NDArray[np.float64],
    ) -> int:
        """Toss one coin per element, as :func:`tosses` does, and list those it chooses, in one pass.

        Parameters
        ----------
        rate : float
            Probability of a coin.
        step, call : int
            As for :func:`uniforms`.
        ids : ndarray (n,) of int64
            Global ids of the elements.
        inputs : ndarray (n, n_in)
            What belongs to the elements.
        rows : ndarray (n or more,) of int64
            Receives the positions of the chosen elements, in order; what follows them means nothing.
        chosen : ndarray (n or more, n_in)
            Receives their inputs.

        Returns
        -------
        int
            How many were chosen.

        Collective: no. Releases the GIL.
        """
        if rate <= 0.0:
            return 0
        k0, k1 = self._key
        c2, c3 = _counter(step, call, self._stream)
        return int(_choose(rate, k0, k1, c2, c3, ids, inputs, rows, chosen))


def _key(seed: int) -> tuple[Word, Word]:
    assert 0 <= seed < 2**64, seed
    return Word(seed & _LOW), Word(seed >> 32)


def _counter(step: int, call: int, stream: Stream) -> tuple[Word, Word]:
    assert 0 <= step < 2**_STEP_BITS and 0 <= call < 2**_CALL_BITS, (step, call)
    mixed = (step >> 32) << (_STREAM_BITS + _CALL_BITS) | call << _STREAM_BITS | stream
    return Word(step & _LOW), Word(mixed)


# Ten rounds; a multiplication of two 32-bit words gives the next pair, the key walks by two odd constants.
@njit(cache=True, nogil=True, inline="always")
def _philox(c0: Word, c1: Word, c2: Word, c3: Word, k0: Word, k1: Word) -> tuple[Word, Word, Word, Word]:
    low, half = Word(0xFFFFFFFF), Word(32)
    for _ in range(10):
        left, right = Word(0xD2511F53) * c0, Word(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (right >> half) ^ c1 ^ k0, right & low, (left >> half) ^ c3 ^ k1, left & low
        k0, k1 = (k0 + Word(0x9E3779B9)) & low, (k1 + Word(0xBB67AE85)) & low
    return c0, c1, c2, c3


@njit(cache=True, nogil=True, inline="always")
def uniform(identity: np.int64, c2: Word, c3: Word, k0: Word, k1: Word) -> np.float64:
    """Draw the number of one element from the words of key and counter."""
    low, high = Word(identity) & Word(0xFFFFFFFF), Word(identity) >> Word(32)
    first, second, _, _ = _philox(low, high, c2, c3, k0, k1)
    bits = (first >> Word(5)) << Word(26) | (second >> Word(6))
    return np.float64(np.int64(bits)) * 2.0**-53


@njit(cache=True, nogil=True)
def _fill_uniforms(k0: Word, k1: Word, c2: Word, c3: Word, ids: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    for i in range(ids.size):
        out[i] = uniform(ids[i], c2, c3, k0, k1)


@njit(cache=True, nogil=True)
def _fill_tosses(
    rate: float, k0: Word, k1: Word, c2: Word, c3: Word, ids: NDArray[np.int64], out: NDArray[np.bool_]
) -> None:
    for i in range(ids.size):
        out[i] = uniform(ids[i], c2, c3, k0, k1) < rate


# Tossing is vectorised, a block at a time; listing is not, and has no branch that a processor could guess wrongly.
@njit(cache=True, nogil=True)
def _choose(
    rate: float,
    k0: Word,
    k1: Word,
    c2: Word,
    c3: Word,
    ids: NDArray[np.int64],
    inputs: NDArray[np.float64],
    rows: NDArray[np.int64],
    chosen: NDArray[np.float64],
) -> int:
    found = 0
    fell = np.empty(_BLOCK, np.bool_)
    for first in range(0, ids.size, _BLOCK):
        count = min(_BLOCK, ids.size - first)
        for i in range(count):
            fell[i] = uniform(ids[first + i], c2, c3, k0, k1) < rate
        for i in range(count):
            rows[found] = first + i
            found += fell[i]
    for k in range(found):
        for j in range(inputs.shape[1]):
            chosen[k, j] = inputs[rows[k], j]
    return found
