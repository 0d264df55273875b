"""Random numbers: they depend on where they stand and on their key, and on nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.block import Block, Context
from pipeline.draws import CHUNK, RandomStream

KEY = (7, "channel", "main", "noise")


def normals(*key: str | int) -> RandomStream:
    return RandomStream(lambda rng, n: rng.standard_normal(n), *key)


WHOLE = normals(*KEY).take(0, 3 * CHUNK)


@given(st.lists(st.integers(0, 3 * CHUNK), max_size=8))
def test_draws_are_the_same_however_they_are_cut(places):
    stream = normals(*KEY)
    cuts = [0, *sorted(places), 3 * CHUNK]
    pieces = [stream.take(start, stop - start) for start, stop in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), WHOLE)


@given(st.lists(st.tuples(st.integers(0, 3 * CHUNK - 60), st.integers(0, 60)), max_size=8))
def test_draws_are_the_same_in_any_order(places):
    stream = normals(*KEY)
    for first, count in places:
        np.testing.assert_array_equal(stream.take(first, count), WHOLE[first : first + count])


def test_what_came_may_be_written_without_harm():
    stream = normals(*KEY)
    stream.take(10, 20)[:] = 0.0
    stream.take(0, CHUNK)[:] = 0.0
    np.testing.assert_array_equal(stream.take(0, 3 * CHUNK), WHOLE)


def test_rows_of_draws_are_addressed_by_their_first_axis():
    stream = RandomStream(lambda rng, n: rng.integers(0, 9, (n, 3), np.int8), *KEY)
    whole = stream.take(0, CHUNK + 10)
    assert whole.shape == (CHUNK + 10, 3)
    np.testing.assert_array_equal(stream.take(CHUNK - 5, 10), whole[CHUNK - 5 : CHUNK + 5])
    assert stream.take(5, 0).shape == (0, 3)
    assert stream.take(5, 0).dtype == np.int8


def test_positions_far_away_are_reached_at_once():
    far = 1 << 60
    again = normals(*KEY).take(far - 3, 6)
    np.testing.assert_array_equal(normals(*KEY).take(far - 3, 6), again)
    assert np.unique(np.concatenate([again, WHOLE])).size == again.size + WHOLE.size


OTHERS = [
    (8, "channel", "main", "noise"),
    (7, "channel2", "main", "noise"),
    (7, "channel", "other", "noise"),
    (7, "channel", "main", "phase"),
    (7, "channelmain", "", "noise"),
]


@pytest.mark.parametrize("key", OTHERS)
def test_draws_of_another_key_are_uncorrelated_at_any_shift(key):
    other = normals(*key).take(0, 3 * CHUNK)
    spectrum = np.fft.fft(WHOLE) * np.fft.fft(other).conj()
    correlation = np.fft.ifft(spectrum).real / np.sqrt(WHOLE.size)
    # the largest of 12288 standard normals exceeds 5.5 once in 2000 such tests
    assert np.abs(correlation).max() < 5.5


def test_chunks_of_one_key_are_uncorrelated_and_normal():
    chunks = WHOLE.reshape(3, CHUNK)
    products = chunks @ chunks.T / np.sqrt(CHUNK)
    off = products[np.triu_indices(3, 1)]
    assert np.abs(off).max() < 4.5
    assert abs(WHOLE.mean()) < 4.5 / np.sqrt(WHOLE.size)
    assert abs(WHOLE.var() - 1.0) < 4.5 * np.sqrt(2.0 / WHOLE.size)


def test_bits_of_all_keys_and_chunks_are_fair():
    keys = [KEY, *OTHERS]
    bits = [RandomStream(lambda rng, n: rng.integers(0, 2, n), *k).take(0, 2 * CHUNK) for k in keys]
    total = np.sum(bits)
    count = 2 * CHUNK * len(keys)
    assert abs(total - count / 2) < 4.5 * np.sqrt(count / 4)


def test_a_block_draws_by_seed_name_stream_and_purpose():
    def drawn(purpose: str, **where: str | int) -> np.ndarray:
        block = Block()
        block.context = Context(**{"name": "channel", "stream": "main", "seed": 7, **where})
        return block.draws(purpose, lambda rng, n: rng.standard_normal(n)).take(0, 4)

    np.testing.assert_array_equal(drawn("noise"), WHOLE[:4])
    variants = [drawn("phase"), drawn("noise", name="b"), drawn("noise", stream="b"),
                drawn("noise", seed=8)]  # fmt: skip
    assert np.unique(np.concatenate([WHOLE[:4], *variants])).size == 20


def test_a_draw_of_another_length_is_refused():
    stream = RandomStream(lambda rng, n: rng.standard_normal(n // 2), *KEY)
    with pytest.raises(ValueError, match=r"gave 2048 .* but 4096 are drawn at once"):
        stream.take(0, 4)
