"""Reed-Solomon codes over GF(256), shortened ones too: errors and erasures.

Decoding is Berlekamp's and Massey's with erasures, Chien's search and Forney's formula: Blahut,
"Algebraic Codes for Data Transmission", 2003, chapter 7. Codes and their bytes are described in
kernels/reed_solomon_code.py.

Own kernels, since the libraries are too slow for a receiver in real time (`python -m
bench.reed_solomon_speed` prints the ratio to reedsolo): reedsolo is plain Python and holds the
interpreter, galois compiles for seconds in each process. Also beyond their reach they return words
now and then that are none of the code, or too far off (tests/blocks/kernels).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.reed_solomon_code import FAILED, ReedSolomonCode

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def encode(messages: Array, generator: Array, exp: Array, log: Array, words: Array) -> None:
    """Append to each message the remainder of its division by the generator polynomial.

    messages   (W, k) uint8
    generator  (n - k,) uint8   `parity` of a ReedSolomonCode
    exp, log   its tables
    words      (W, n) uint8     written
    """
    k = messages.shape[1]
    parity = generator.size
    for w in range(messages.shape[0]):
        for i in range(k):
            words[w, i] = messages[w, i]
        for i in range(parity):
            words[w, k + i] = 0
        for i in range(k):
            feedback = messages[w, i] ^ words[w, k]
            for j in range(parity):
                follower = words[w, k + j + 1] if j + 1 < parity else 0
                if feedback and generator[j] != 255:
                    follower ^= exp[log[feedback] + generator[j]]
                words[w, k + j] = follower


@njit(cache=True, nogil=True)
def decode(
    received: Array, erased: Array, parity: int, first_root: int, exp: Array, log: Array,
    scratch: Array, words: Array, corrected: Array,
) -> None:  # fmt: skip
    """The code word within reach of each received one, if there is one.

    received   (W, n) uint8
    erased     (W, n) bool    bytes that are not to be trusted
    parity     n - k
    exp, log   tables of a ReedSolomonCode
    scratch    (5, parity + 1) int64
    words      (W, n) uint8   written: the code words; as received where there is none in reach
    corrected  (W,) int16     written: bytes that were changed, FAILED where there is none in reach
    """
    for w in range(received.shape[0]):
        words[w] = received[w]
        corrected[w] = 0
        if not _syndromes(received[w], first_root, exp, log, scratch[0, :parity]):
            continue
        erasures = _erasure_locator(erased[w], exp, log, scratch[1])
        if erasures > parity:
            corrected[w] = FAILED
            continue
        errata = _errata_locator(erasures, parity, exp, log, scratch)
        if 2 * errata - erasures > parity or not _correct(
            words[w], errata, parity, first_root, exp, log, scratch
        ):
            words[w] = received[w]
            corrected[w] = FAILED
            continue
        for i in range(received.shape[1]):
            if words[w, i] != received[w, i]:
                corrected[w] += 1


@njit(cache=True, nogil=True)
def _times(a: int, b: int, exp: Array, log: Array) -> np.int64:
    return np.int64(exp[log[a] + log[b]]) if a and b else np.int64(0)


@njit(cache=True, nogil=True)
def _syndromes(word: Array, first_root: int, exp: Array, log: Array, syndromes: Array) -> bool:
    """Write the values of the word at the roots of the code; returns whether any is not zero."""
    found = False
    for j in range(syndromes.size):
        root = (first_root + j) % 255
        value = np.int64(0)
        for i in range(word.size):
            value = np.int64(word[i]) ^ (np.int64(exp[log[value] + root]) if value else 0)
        syndromes[j] = value
        found |= value != 0
    return found


@njit(cache=True, nogil=True)
def _erasure_locator(erased: Array, exp: Array, log: Array, locator: Array) -> int:
    """Write the product of 1 - X x over the erased places X; returns their number.

    With more erasures than the locator has room for, what is written has no meaning.
    """
    locator[0] = 1
    locator[1:] = 0
    count = 0
    for i in range(erased.size):
        if erased[i]:
            count += 1
            place = np.int64(exp[erased.size - 1 - i])
            for j in range(min(count, locator.size - 1), 0, -1):
                locator[j] ^= _times(place, locator[j - 1], exp, log)
    return count


@njit(cache=True, nogil=True)
def _errata_locator(erasures: int, parity: int, exp: Array, log: Array, scratch: Array) -> int:
    """Extend the erasure locator in scratch[1] by the errors; returns the length of its register.

    Berlekamp's and Massey's algorithm. scratch[0] holds the syndromes; [2] and [3] are overwritten.
    """
    syndromes, locator, other, old = scratch[0], scratch[1], scratch[2], scratch[3]
    other[:] = locator
    length = erasures
    for r in range(erasures, parity):
        discrepancy = np.int64(0)
        for j in range(min(r, length) + 1):
            discrepancy ^= _times(locator[j], syndromes[r - j], exp, log)
        for j in range(parity, 0, -1):  # times x
            other[j] = other[j - 1]
        other[0] = 0
        if discrepancy == 0:
            continue
        old[:] = locator
        for j in range(parity + 1):
            locator[j] ^= _times(discrepancy, other[j], exp, log)
        if 2 * length <= r + erasures:
            length = r + 1 + erasures - length
            inverse = np.int64(exp[255 - log[discrepancy]])
            for j in range(parity + 1):
                other[j] = _times(inverse, old[j], exp, log)
    return length


@njit(cache=True, nogil=True)
def _correct(
    word: Array, errata: int, parity: int, first_root: int, exp: Array, log: Array, scratch: Array
) -> bool:
    """Change the bytes at the roots of the locator in scratch[1]; False if it lacks any.

    scratch[0] holds the syndromes; [4] is overwritten.
    """
    syndromes, locator, evaluator = scratch[0], scratch[1], scratch[4]
    for j in range(errata + 1, parity + 1):
        if locator[j]:
            return False
    for j in range(errata):  # of degree below that of the locator
        evaluator[j] = 0
        for i in range(j + 1):
            evaluator[j] ^= _times(locator[i], syndromes[j - i], exp, log)
    found = 0
    for i in range(word.size):
        power = word.size - 1 - i
        inverse = (255 - power) % 255  # log of 1 / X
        even, odd = np.int64(0), np.int64(0)  # terms of even and of odd degree
        at = 0  # log of X^-j
        for j in range(errata + 1):
            if locator[j]:
                term = np.int64(exp[log[locator[j]] + at])
                if j % 2:
                    odd ^= term
                else:
                    even ^= term
            at = (at + inverse) % 255
        if even != odd:
            continue
        found += 1
        if odd == 0:  # a double root
            return False
        value, at = np.int64(0), 0
        for j in range(errata):
            if evaluator[j]:
                value ^= np.int64(exp[log[evaluator[j]] + at])
            at = (at + inverse) % 255
        if value:  # Forney: X^(1 - first_root) evaluator / derivative, with odd = derivative / X
            shift = (power * (255 - first_root)) % 255
            word[i] ^= exp[(log[value] + shift + 255 - log[odd]) % 255]
    return found == errata


class Codec(ReedSolomonCode):
    """A Reed-Solomon code, ready to encode and decode many words at once."""

    def __init__(self, n: int, k: int, polynomial: int, first_root: int, generator: int) -> None:
        super().__init__(n, k, polynomial, first_root, generator)
        self._scratch = np.zeros((5, n - k + 1), np.int64)

    def encode(self, messages: Array) -> Array:
        """Code words (W, n) of messages (W, k), all uint8."""
        words = np.empty((len(messages), self.n), np.uint8)
        encode(messages, self.parity, self.exp, self.log, words)
        return words

    def decode(self, received: Array, erased: Array | None = None) -> tuple[Array, Array]:
        """The code words in reach (W, n) uint8, and the bytes corrected (W,) int16.

        Where no code word is in reach, the word stays as received, and its number is FAILED. In
        reach are v errors and e erasures with 2 v + e <= n - k.

        received   (W, n) uint8
        erased     (W, n) bool    bytes that are not to be trusted; None: none are known
        """
        words = np.empty_like(received)
        corrected = np.empty(len(received), np.int16)
        # A copy, since numba compiles anew for read-only arrays.
        unsure = np.zeros(received.shape, np.bool_)
        if erased is not None:
            unsure[:] = erased
        decode(
            received, unsure, self.n - self.k, self.first_root, self.exp, self.log,
            self._scratch, words, corrected,
        )  # fmt: skip
        return words, corrected
