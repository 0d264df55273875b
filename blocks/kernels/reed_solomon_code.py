"""Reed-Solomon codes over GF(256): field and generator polynomial; arrays, no numba.

A code word holds the information bytes first, then the parity. Byte i is the coefficient of
x^(n-1-i), and the polynomial of a word is zero at n - k consecutive powers of an element of the
field. Words below 255 bytes are those of a shortened code: the longer words that begin with zeros,
without them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FAILED = -1  # instead of the number of bytes that a decoder has corrected


class ReedSolomonCode:
    """A code, given by numbers; ValueError where they make none.

    n, k        bytes of a code word, and of the information in it
    polynomial  of the field, bit i the coefficient of x^i
    first_root  logarithm of the first root of the generator polynomial
    generator   element of the field whose powers the roots are
    exp         (510,) uint8      powers of that element, twice in a row
    log         (256,) int64      logarithms to its base; log[0] has no meaning
    parity      (n - k,) uint8    logarithms of the coefficients of the generator polynomial, from
                                  the second highest on; 255: the coefficient is zero
    """

    def __init__(self, n: int, k: int, polynomial: int, first_root: int, generator: int) -> None:
        if not 1 <= k < n <= 255:
            raise ValueError(f"n = {n} and k = {k}, but 1 <= k < n <= 255 must hold")
        self.n, self.k, self.first_root = n, k, first_root
        powers = [1]
        while len(powers) < 255:
            powers.append(_product(powers[-1], generator, polynomial))
        if sorted(powers) != list(range(1, 256)):
            raise ValueError(
                f"the powers of generator = {generator} are not all elements of the field of "
                f"polynomial = {polynomial:#x}; take a primitive polynomial such as 0x11d, and "
                "generator = 2"
            )
        self.exp: Array = np.array(powers * 2, np.uint8)
        self.log: Array = np.zeros(256, np.int64)
        self.log[self.exp[:255]] = np.arange(255)
        made = [1]  # the generator polynomial, the highest power first
        for j in range(n - k):
            root = powers[(first_root + j) % 255]
            scaled = [_product(root, coefficient, polynomial) for coefficient in made]
            made = [a ^ b for a, b in zip([*made, 0], [0, *scaled], strict=True)]
        self.parity: Array = np.array([self.log[c] if c else 255 for c in made[1:]], np.uint8)


def _product(a: int, b: int, polynomial: int) -> int:
    """Of two elements of the field."""
    product = 0
    for bit in range(7, -1, -1):
        product <<= 1
        if product >> 8:
            product ^= polynomial
        if b >> bit & 1:
            product ^= a
    return product
