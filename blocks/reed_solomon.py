"""What the encoder and the decoder of Reed-Solomon codes share: parameters, checks, bytes."""

from __future__ import annotations

import numpy as np

from blocks.kernels.reed_solomon_code import ReedSolomonCode
from pipeline.block import Block, param
from pipeline.errors import FieldError, ParameterError
from pipeline.frame import Array


class ReedSolomonBlock(Block):
    """Parameters of a Reed-Solomon code, as kernels/reed_solomon_code.py describes it."""

    n: int = param(
        default=255, at_least=2, at_most=255, unit="bytes",
        doc="length of a code word; below 255 the code is a shortened one",
    )  # fmt: skip
    k: int = param(
        default=223, at_least=1, at_most=254, unit="bytes", doc="information in a code word"
    )
    polynomial: int = param(
        default=0x11D, at_least=0x100, at_most=0x1FF,
        doc="of the field, bit i the coefficient of x^i; 285 is x^8 + x^4 + x^3 + x^2 + 1",
    )  # fmt: skip
    first_root: int = param(
        default=0, at_least=0, at_most=254,
        doc="the code has the roots generator^first_root and the n - k - 1 powers after it",
    )  # fmt: skip
    generator: int = param(
        default=2, at_least=2, at_most=255, doc="element of the field whose powers the roots are"
    )

    def check(self) -> None:
        try:
            ReedSolomonCode(*self._numbers())
        except ValueError as error:
            raise ParameterError(str(error)) from None

    def _numbers(self) -> tuple[int, int, int, int, int]:
        return self.n, self.k, self.polynomial, self.first_root, self.generator

    def _bytes(self, field: str, bits: Array, size: int) -> Array:
        """Bytes (word, size) of the bits of words, the most significant bit first."""
        if bits.shape[1] != 8 * size:
            raise FieldError(
                f"{self.name}: {field!r} has {bits.shape[1]} bits per word, but n = {self.n} and "
                f"k = {self.k} bytes take {8 * size}; choose words of this length, or another code"
            )
        return np.packbits(bits, axis=1)
