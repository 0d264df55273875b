"""Magnitudes of complex samples."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from blocks import fields
from pipeline.block import Block
from pipeline.frame import Array


class Magnitudes(NamedTuple):
    """What the block adds."""

    magnitude: Annotated[Float32[Array, "*word time"], fields.MAGNITUDE]


class Magnitude(Block, name="frontend.magnitude"):
    """The magnitude of each sample, sqrt(I^2 + Q^2): what is left of a signal without its phase.

    samples    (time) or (word, time)  complex64
    magnitude  the same                float32, in the unit of the samples
    """

    def process(self, samples: Complex64[Array, "*word time"]) -> Magnitudes:
        return Magnitudes(magnitude=np.abs(samples))
