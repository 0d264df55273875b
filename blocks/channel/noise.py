"""What the channels of this folder share: Gaussian noise and the type of their samples."""

from __future__ import annotations

import math

import numpy as np

from pipeline.block import FieldType
from pipeline.draws import RandomStream
from pipeline.frame import Array


def standard_normal(rng: np.random.Generator, count: int) -> Array:
    """What the RandomStream of a channel draws."""
    return rng.standard_normal(count)


def variance(snr_db: float) -> float:
    """Noise variance at an SNR that is 1 / noise variance [V^2]."""
    return float(10.0 ** (-snr_db / 10.0))


def gaussian(
    normals: RandomStream, first: int, shape: tuple[int, ...], noise_var: float, is_complex: bool
) -> Array:
    """Noise for samples first, first + 1 ...: float64, or circular complex128.

    noise_var    variance of a sample [V^2]; real and imaginary part have half of it each
    """
    count = math.prod(shape)
    if not is_complex:
        return (normals.take(first, count) * math.sqrt(noise_var)).reshape(shape)
    parts = normals.take(2 * first, 2 * count) * math.sqrt(noise_var / 2.0)
    return parts.view(np.complex128).reshape(shape)


def received_type(sent: FieldType) -> FieldType:
    """The type of the samples in which these symbols arrive: complex if they are complex."""
    return FieldType(("complex64" if sent.dtypes == ("complex64",) else "float32",), sent.dims)
