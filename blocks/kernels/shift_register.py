"""Shift-register (convolutional) codes: polynomials, trellis and encoder; arrays, no numba.

Bits enter a register of `memory` + 1 places, the newest first; each generator polynomial says which
places add up (modulo 2) to one code bit, its first binary digit standing for the newest bit. States
and branches are numbered as in kernels/trellis.py, for symbols 0 and 1: the newest bit counts 1.

Proakis, "Digital Communications", chapter on trellis codes; the standard polynomials below have the
largest free distance of their length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: (constraint length, code bits per bit) -> generator polynomials in octal.
STANDARD: dict[tuple[int, int], tuple[str, ...]] = {
    (3, 2): ("5", "7"),
    (4, 2): ("15", "17"),
    (5, 2): ("23", "35"),
    (6, 2): ("53", "75"),
    (7, 2): ("133", "171"),
    (8, 2): ("247", "371"),
    (9, 2): ("561", "753"),
    (3, 3): ("5", "7", "7"),
    (4, 3): ("13", "15", "17"),
    (5, 3): ("25", "33", "37"),
    (6, 3): ("47", "53", "75"),
    (7, 3): ("133", "145", "175"),
    (8, 3): ("225", "331", "367"),
    (9, 3): ("557", "663", "711"),
}

MAX_LENGTH = 9  # of the register: 256 states


class ShiftRegisterCode:
    """A code given by its generator polynomials, in octal.

    outputs   code bits per bit
    memory    bits that the register remembers
    n_states  2^memory
    taps      (outputs, memory + 1) uint8   column k: whether the bit k steps ago counts
    patterns  (2 n_states,) uint8           code bits of each branch, bit j from generator j

    Raises ValueError, with what is wrong, for polynomials that make no such code.

    >>> code = ShiftRegisterCode(["5", "7"])
    >>> code.encode(np.array([1, 0, 1, 1]), np.zeros(2, np.uint8))
    array([1, 1, 0, 1, 0, 0, 1, 0], dtype=uint8)
    """

    def __init__(self, generators: Iterable[str]) -> None:
        texts = tuple(generators)
        for text in texts:
            if not text or set(text) - set("01234567"):
                raise ValueError(f"generator {text!r} is no octal number")
        polynomials = [int(text, 8) for text in texts]
        length = max((polynomial.bit_length() for polynomial in polynomials), default=0)
        if not 2 <= length <= MAX_LENGTH:
            raise ValueError(
                f"generators {', '.join(texts)} reach over {length} bits, but a constraint length "
                f"is 2 ... {MAX_LENGTH}"
            )
        if 0 in polynomials:
            raise ValueError("generator 0 makes code bits that tell nothing")
        self.generators = texts
        self.outputs, self.memory = len(texts), length - 1
        self.n_states = 1 << self.memory
        ago = np.arange(length)
        self.taps: Array = (np.array(polynomials)[:, None] >> (length - 1 - ago) & 1).astype(
            np.uint8
        )
        branches = np.arange(2 * self.n_states)[:, None] >> ago & 1  # (branch, steps ago)
        bits = branches @ self.taps.T.astype(np.int64) & 1  # (branch, output)
        self.patterns: Array = (bits << np.arange(self.outputs)).sum(axis=1).astype(np.uint8)

    def encode(self, bits: Array, before: Array) -> Array:
        """Code bits (..., time outputs) uint8 of bits (..., time).

        before   (..., memory)  the bits before them, the oldest first
        """
        register = np.concatenate([before, bits], axis=-1).astype(np.uint8)
        count = bits.shape[-1]
        coded = np.zeros((*bits.shape, self.outputs), np.uint8)
        for j, taps in enumerate(self.taps):
            for ago in np.flatnonzero(taps):
                coded[..., j] ^= register[..., self.memory - ago : self.memory - ago + count]
        return coded.reshape(*bits.shape[:-1], count * self.outputs)

    def encode_rings(self, bits: Array) -> Array:
        """Code bits (..., time outputs) uint8 of tail-biting words (..., time).

        The register holds before such a word what it holds after it.
        """
        length = bits.shape[-1]
        if length == 0:
            return bits.astype(np.uint8)
        return self.encode(bits, bits[..., np.arange(-self.memory, 0) % length])
