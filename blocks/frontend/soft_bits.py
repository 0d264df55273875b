"""Soft bits: log-likelihood ratios in 8 bits."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float32, Int8

from blocks import fields
from pipeline.block import Block, param
from pipeline.errors import FieldError
from pipeline.frame import Array


class Rounded(NamedTuple):
    """What this block adds."""

    soft: Annotated[Int8[Array, "*word time bit"], fields.SOFT]


class SoftBits(Block, name="frontend.soft_bits"):
    """Log-likelihood ratios as whole numbers, for decoders with integer metrics.

    What lies beyond +-127 / scale becomes +-127; half-way cases go to the even number.

    llr   (..., time, bit)  float32 [nat]
    soft  (..., time, bit)  int8, -127 ... 127: scale times llr
    """

    scale: float = param(
        default=16.0, above=0.0, unit="1/nat",
        doc="steps per nat; 16 spans +-8 nat, which suits codes of rate 1/2; 24 those of rate 1/3",
    )  # fmt: skip

    def process(self, llr: Float32[Array, "*word time bit"]) -> Rounded:
        if np.isnan(llr).any():
            raise FieldError(f"{self.name}: 'llr' holds NaN; expected numbers")
        with np.errstate(over="ignore"):  # infinite: the limit holds
            steps = llr * np.float32(self.scale)
        return Rounded(soft=np.rint(steps.clip(-127.0, 127.0)).astype(np.int8))
