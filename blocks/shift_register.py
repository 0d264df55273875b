"""What the encoder and the decoder of shift-register codes share: parameters and checks."""

from __future__ import annotations

from typing import Literal

from blocks.kernels.shift_register import STANDARD, ShiftRegisterCode
from pipeline.block import Block, param
from pipeline.errors import ParameterError

OUTPUTS = {"1/2": 2, "1/3": 3}


class ShiftRegisterBlock(Block):
    """Parameters of a convolutional code, as kernels/shift_register.py describes it."""

    constraint_length: int = param(
        default=7, at_least=3, at_most=9, unit="bits", doc="bits that a code bit depends on"
    )
    rate: Literal["1/2", "1/3"] = param(default="1/2", doc="bits per code bit")
    generators: tuple[str, ...] = param(
        default=(),
        items_at_most=3,
        doc="polynomials in octal, which then decide on length and rate, such as ['133', '171']; "
        "none: the standard ones of this length and rate",
    )
    ending: Literal["terminated", "tail_biting", "truncated"] = param(
        default="terminated",
        doc="words end in zeros that empty the register, or run in a circle, or just end; "
        "streams have no words and just go on",
    )

    def check(self) -> None:
        if len(self.generators) == 1:
            raise ParameterError(
                f"generators = {list(self.generators)}, but a code has 2 or 3 of them"
            )
        try:
            self._code()
        except ValueError as error:
            raise ParameterError(str(error)) from None

    def _code(self) -> ShiftRegisterCode:
        standard = STANDARD[self.constraint_length, OUTPUTS[self.rate]]
        return ShiftRegisterCode(self.generators or standard)
