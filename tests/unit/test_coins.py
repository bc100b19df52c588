"""Coins: the published vectors of the generator, and independence of ranks, order and purpose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from coupler.controller import Coins, Stream, coins, tosses, uniforms

IDS = np.arange(100_000)


@njit
def philox(c0, c1, c2, c3, k0, k1):
    return coins._philox(c0, c1, c2, c3, k0, k1)


# Known-answer vectors of the Random123 distribution: four counter words, two key words, four words out.
VECTORS = [
    ("00000000 00000000 00000000 00000000 00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("words", "expected"), VECTORS)
def test_generator_gives_the_published_words(words, expected):
    given_words = [np.uint64(int(word, 16)) for word in words.split()]

    assert " ".join(f"{int(word):08x}" for word in philox(*given_words)) == expected


def test_uniforms_are_the_first_two_words_of_the_counter_of_seed_step_call_and_id():
    seed, step, call, identity = 2**63 + 12345, 2**40 + 7, 300, 2**35 + 1
    fourth = (step >> 32) << 20 | call << 4 | Stream.SAMPLE
    words = [identity % 2**32, identity >> 32, step % 2**32, fourth, seed % 2**32, seed >> 32]

    first, second, _, _ = philox(*(np.uint64(word) for word in words))

    expected = ((int(first) >> 5) * 2**26 + (int(second) >> 6)) / 2**53
    assert uniforms(seed, step, call, np.array([identity]), stream=Stream.SAMPLE)[0] == expected


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50), st.integers(0, 50), st.randoms())
def test_a_coin_does_not_depend_on_the_other_elements(ids, cut, random):
    everything = np.array(ids)
    order = random.sample(range(len(ids)), len(ids))

    whole = uniforms(3, 5, 7, everything)

    np.testing.assert_array_equal(uniforms(3, 5, 7, everything[order]), whole[order])
    np.testing.assert_array_equal(uniforms(3, 5, 7, everything[:cut]), whole[:cut])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**44 - 1), st.integers(0, 2**16 - 1), st.sampled_from(Stream))
def test_changing_any_part_of_the_counter_changes_the_coins(seed, step, call, stream):
    ids = np.arange(8)
    mine = uniforms(seed, step, call, ids, stream=stream)

    others = [
        uniforms(seed ^ 1, step, call, ids, stream=stream),
        uniforms(seed, step ^ 1, call, ids, stream=stream),
        uniforms(seed, step ^ 2**43, call, ids, stream=stream),
        uniforms(seed, step, call ^ 1, ids, stream=stream),
        uniforms(seed, step, call ^ 2**15, ids, stream=stream),
        uniforms(seed, step, call, ids, stream=Stream.SAMPLE if stream == Stream.AUDIT else Stream.AUDIT),
    ]

    assert not any(np.array_equal(mine, other) for other in others)


def test_uniforms_are_uniform_and_streams_are_uncorrelated():
    audit, sample = uniforms(1, 2, 3, IDS), uniforms(1, 2, 3, IDS, stream=Stream.SAMPLE)

    counts, _ = np.histogram(audit, bins=100, range=(0, 1))

    assert audit.min() >= 0
    assert audit.max() < 1
    # Chi-square with 99 degrees of freedom: 149 is exceeded with probability 1e-3; the seed is fixed.
    assert ((counts - 1000) ** 2 / 1000).sum() < 149
    # A correlation of independent streams is normal with deviation 1 / sqrt(n); five deviations.
    assert abs(np.corrcoef(audit, sample)[0, 1]) < 5 / np.sqrt(IDS.size)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.5, 1.0])
def test_tosses_are_the_uniforms_below_the_rate(rate):
    np.testing.assert_array_equal(tosses(rate, 1, 2, 3, IDS), uniforms(1, 2, 3, IDS) < rate)


def test_a_rate_of_one_always_tosses_and_a_rate_of_zero_never():
    assert tosses(1.0, 9, 9, 9, IDS).all()
    assert not tosses(0.0, 9, 9, 9, IDS).any()


def test_no_elements_need_no_coins():
    assert uniforms(0, 0, 0, np.empty(0, dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("seed", "step", "call"), [(2**64, 0, 0), (-1, 0, 0), (0, 2**44, 0), (0, 0, 2**16), (0, -1, 0)]
)
def test_what_does_not_fit_the_counter_is_refused(seed, step, call):
    with pytest.raises(AssertionError):
        uniforms(seed, step, call, IDS)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000])
@pytest.mark.parametrize("rate", [0.0, 0.02, 1.0])
def test_chosen_elements_are_those_whose_coin_fell_with_their_inputs(count, rate):
    ids = np.arange(count, dtype=np.int64) * 7 - 100
    inputs = np.random.default_rng(0).random((count, 3))
    rows, chosen = np.full(count, -1, np.int64), np.full((count, 3), np.nan)

    found = Coins(2**40 + 3, Stream.SAMPLE).choose(rate, 2**33 + 1, 9, ids, inputs, rows, chosen)

    expected = np.flatnonzero(tosses(rate, 2**40 + 3, 2**33 + 1, 9, ids, stream=Stream.SAMPLE))
    np.testing.assert_array_equal(rows[:found], expected)
    np.testing.assert_array_equal(chosen[:found], inputs[expected])
