import itertools
import math

import needs
import numpy as np
import pytest

from blocks.kernels.reed_solomon import Codec
from blocks.kernels.reed_solomon_code import FAILED

#: n, k, polynomial, first root, generator
CODES = {
    "the papers' word": (17, 15, 0x11D, 0, 2),
    "one byte of parity": (9, 8, 0x11D, 0, 2),
    "first root 1": (20, 10, 0x11D, 1, 2),
    "odd parity, field of AES": (12, 5, 0x11B, 3, 3),
    "full length": (255, 251, 0x11D, 0, 2),
    "CCSDS": (40, 8, 0x187, 112, 173),
}
all_codes = pytest.mark.parametrize("numbers", CODES.values(), ids=CODES)


def messages(rng, count, code):
    return rng.integers(0, 256, (count, code.k), dtype=np.uint8)


def with_errata(rng, words, erasures, errors):
    """Words with so many erased and so many other wrong bytes each, and which are erased."""
    bad, erased = words.copy(), np.zeros(words.shape, bool)
    for word, flags, e, v in zip(bad, erased, erasures, errors, strict=True):
        places = rng.permutation(words.shape[1])[: e + v]
        flags[places[:e]] = True
        word[places[:e]] = rng.integers(0, 256, e)
        word[places[e:]] ^= rng.integers(1, 256, v).astype(np.uint8)
    return bad, erased


def draw(rng, code, count, beyond=0):
    """Received words with random errata, at most `beyond` errors past what can be corrected."""
    parity = code.n - code.k
    words = code.encode(messages(rng, count, code))
    erasures = rng.integers(0, parity + 1, count)
    errors = rng.integers(0, np.minimum((parity - erasures) // 2 + beyond, code.n - erasures) + 1)
    return words, *with_errata(rng, words, erasures, errors)


def by_reedsolo(numbers, received, erased):
    """What reedsolo makes of words: (words, bytes changed); as received, FAILED where it fails."""
    reedsolo = needs.package("reedsolo")
    n, k, polynomial, first_root, generator = numbers
    codec = reedsolo.RSCodec(n - k, nsize=n, prim=polynomial, fcr=first_root, generator=generator)
    words, corrected = received.copy(), np.zeros(len(received), int)
    for i, (word, flags) in enumerate(zip(received, erased, strict=True)):
        try:
            _, whole, _ = codec.decode(bytes(word), erase_pos=np.flatnonzero(flags).tolist())
        except reedsolo.ReedSolomonError:
            corrected[i] = FAILED
            continue
        # Once in a while reedsolo 1.7.0 gives a code word that is farther off than it corrects.
        changed = np.array(list(whole)) != word
        if 2 * np.sum(changed & ~flags) + flags.sum() > n - k:
            corrected[i] = FAILED
        else:
            words[i], corrected[i] = list(whole), changed.sum()
    return words, corrected


def of_galois(numbers):
    """The same code of galois and its field, computed without compilation, which takes 20 s."""
    galois = needs.package("galois")
    n, k, polynomial, first_root, generator = numbers
    field = galois.GF(2**8, irreducible_poly=polynomial, compile="python-calculate")
    code = galois.ReedSolomon(255, 255 - n + k, field=field, alpha=field(generator), c=first_root)
    return field, code


# Encoding


@pytest.mark.parametrize(
    ("parity", "polynomial", "first_root", "generator", "printed"),
    [
        # ISO/IEC 18004 (QR codes), annex A: generator polynomials for 7 and 10 bytes
        (7, 0x11D, 0, 2, [0, 87, 229, 146, 149, 238, 102, 21]),
        (10, 0x11D, 0, 2, [0, 251, 67, 46, 61, 118, 70, 64, 94, 32, 45]),
        # CCSDS 131.0-B: a palindrome of degree 32; 173 = 2^11
        (32, 0x187, 112, 173, [0, 249, 59, 66, 4, 43, 126, 251, 97, 30, 3, 213, 50, 66, 170, 5, 24,
                               5, 170, 66, 50, 213, 3, 30, 97, 251, 126, 43, 4, 66, 59, 249, 0]),
    ],
)  # fmt: skip
def test_the_code_word_of_the_message_1_is_the_printed_generator_polynomial(
    parity, polynomial, first_root, generator, printed
):
    powers = [1]
    for _ in range(254):
        doubled = powers[-1] << 1
        powers.append(doubled ^ polynomial if doubled > 255 else doubled)
    code = Codec(parity + 1, 1, polynomial, first_root, generator)
    word = code.encode(np.ones((1, 1), np.uint8))
    np.testing.assert_array_equal(word[0], [powers[exponent] for exponent in printed])


@all_codes
def test_code_words_are_those_of_reedsolo(numbers):
    reedsolo = needs.package("reedsolo")
    n, k, polynomial, first_root, generator = numbers
    codec = reedsolo.RSCodec(n - k, nsize=n, prim=polynomial, fcr=first_root, generator=generator)
    code = Codec(*numbers)
    sent = messages(np.random.default_rng(1), 20, code)
    expected = [list(codec.encode(bytes(message))) for message in sent]
    np.testing.assert_array_equal(code.encode(sent), expected)


# Decoding within reach


def test_every_pattern_of_errors_and_erasures_in_reach_is_corrected():
    code = Codec(7, 3, 0x11D, 0, 2)
    patterns = np.array([p for p in itertools.product(range(3), repeat=7)
                         if 2 * p.count(1) + p.count(2) <= 4])  # fmt: skip
    assert len(patterns) == sum(
        math.comb(7, e) * math.comb(7 - e, v) for e in range(5) for v in range((4 - e) // 2 + 1)
    )
    rng = np.random.default_rng(2)
    words = code.encode(messages(rng, len(patterns), code))
    changes = rng.integers(1, 256, words.shape, dtype=np.uint8)
    received = words ^ np.where(patterns > 0, changes, 0).astype(np.uint8)
    found, corrected = code.decode(received, patterns == 2)
    np.testing.assert_array_equal(found, words)
    np.testing.assert_array_equal(corrected, np.sum(patterns > 0, axis=1))


@all_codes
def test_random_errata_in_reach_are_corrected_and_counted(numbers):
    code = Codec(*numbers)
    words, received, erased = draw(np.random.default_rng(3), code, 200)
    found, corrected = code.decode(received, erased)
    np.testing.assert_array_equal(found, words)
    np.testing.assert_array_equal(corrected, np.sum(words != received, axis=1))


# Beyond reach


@all_codes
def test_words_in_and_out_of_reach_are_decided_as_by_reedsolo(numbers):
    code = Codec(*numbers)
    _, received, erased = draw(np.random.default_rng(4), code, 100, beyond=2)
    found, corrected = code.decode(received, erased)
    words, counts = by_reedsolo(numbers, received, erased)
    np.testing.assert_array_equal(found, words)
    np.testing.assert_array_equal(corrected, counts)
    assert FAILED in corrected


@pytest.mark.parametrize("numbers", [CODES["the papers' word"], CODES["odd parity, field of AES"]])
def test_words_in_and_out_of_reach_are_decided_as_by_galois(numbers):
    field, peer = of_galois(numbers)
    code = Codec(*numbers)
    words, received, erased = draw(np.random.default_rng(5), code, 30, beyond=2)
    np.testing.assert_array_equal(peer.encode(field(words[:, : code.k])), words)
    found, corrected = code.decode(received, erased)
    expected, counts = peer.decode(field(received), erasures=erased, output="codeword", errors=True)
    # galois 0.4.11 "corrects" the zeros that a shortened word stands for, and gives no code word.
    failed = (np.asarray(counts) == -1) | peer.detect(expected)
    np.testing.assert_array_equal(corrected == FAILED, failed)
    np.testing.assert_array_equal(found[~failed], np.asarray(expected)[~failed])
    np.testing.assert_array_equal(found[failed], received[failed])
    assert 0 < failed.sum() < len(words)


def test_decided_is_the_only_word_in_reach_by_enumeration_of_all_code_words():
    code = Codec(5, 1, 0x11D, 1, 2)  # 4 bytes of parity
    book = code.encode(np.arange(256, dtype=np.uint8)[:, None])
    rng = np.random.default_rng(6)
    sent = book[rng.integers(0, 256, 400)]
    erasures = rng.integers(0, 6, 400)
    errors = rng.integers(0, 6 - erasures)
    received, erased = with_errata(rng, sent, erasures, errors)
    found, corrected = code.decode(received, erased)
    wrong = ((received[:, None] != book) & ~erased[:, None]).sum(axis=2)
    in_reach = 2 * wrong + erasures[:, None] <= 4
    assert in_reach.sum(axis=1).max() == 1
    for word, before, count, reached in zip(found, received, corrected, in_reach, strict=True):
        expected = book[reached][0] if reached.any() else before
        np.testing.assert_array_equal(word, expected)
        assert count == (np.sum(expected != before) if reached.any() else FAILED)
    assert 0 < np.sum(corrected == FAILED) < 400


@needs.compiled
@pytest.mark.parametrize(
    ("n", "parity", "erasures"), [(17, 2, 0), (255, 4, 0), (255, 6, 0), (255, 6, 2), (40, 5, 3)]
)
def test_random_words_are_accepted_as_often_as_they_lie_in_the_reach_of_a_code_word(
    n, parity, erasures
):
    code, rng, count = Codec(n, n - parity, 0x11D, 0, 2), np.random.default_rng(7), 20_000
    received = rng.integers(0, 256, (count, n), dtype=np.uint8)
    erased = np.zeros((count, n), bool)
    erased[:, :erasures] = True
    t = (parity - erasures) // 2
    places = n - erasures
    around = sum(math.comb(places, v) * 255**v for v in range(t + 1))
    rate = around / 256 ** (parity - erasures)
    if n == 255 and not erasures:
        assert abs(rate * math.factorial(t) - 1.0) < 0.04  # McEliece and Swanson, 1986
    accepted = np.sum(code.decode(received, erased)[1] != FAILED)
    assert abs(accepted / count - rate) < 4.0 * math.sqrt(rate * (1.0 - rate) / count)


def test_accepted_words_are_code_words_whatever_came():
    code, rng = Codec(17, 13, 0x11D, 0, 2), np.random.default_rng(8)
    received = rng.integers(0, 256, (3000, 17), dtype=np.uint8)
    erased = rng.random(received.shape) < 0.1
    found, corrected = code.decode(received, erased)
    accepted = corrected != FAILED
    np.testing.assert_array_equal(code.encode(found[accepted, :13]), found[accepted])
    np.testing.assert_array_equal(found[~accepted], received[~accepted])
    # With as many erasures as bytes of parity, every word is.
    np.testing.assert_array_equal(accepted[erased.sum(axis=1) == 4], True)
    np.testing.assert_array_equal(accepted[erased.sum(axis=1) > 4], False)
    assert 0 < accepted.sum() < 3000


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((256, 200, 0x11D, 0, 2), "n = 256 and k = 200, but 1 <= k < n <= 255"),
        ((10, 10, 0x11D, 0, 2), "n = 10 and k = 10, but"),
        ((10, 8, 0x11B, 0, 2), "generator = 2 are not all elements of the field of .* 0x11b"),
        ((10, 8, 0x100, 0, 2), "take a primitive polynomial such as 0x11d"),
    ],
)
def test_numbers_that_make_no_code_are_refused(numbers, text):
    with pytest.raises(ValueError, match=text):
        Codec(*numbers)
