"""Random numbers by their place: value n of a key, without a state that goes on.

Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64): the
place is counted up by an odd constant and mixed. A kernel draws any value when it needs it, in any
order, so what it computes does not depend on how a stream was cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.unrolled import unrolled

Array = np.ndarray[Any, Any]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE = np.uint64(1)
_SCALE = 2.0**-53

# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Appl. Stat. 37
# (1988), PPND16: the middle, the tails, and the far tails; good to 1e-16.
_A = (
    3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
    45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727,
)  # fmt: skip
_B = (
    1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
    21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610,
)  # fmt: skip
_C = (
    1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
    3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770,
    0.0227238449892691845833, 7.74545014278341407640e-4,
)  # fmt: skip
_D = (
    1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
    0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4,
    1.05075007164441684324e-9,
)  # fmt: skip
_E = (
    6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
    0.296560571828504891230, 0.0265321895265761230930, 1.24266094738807843860e-3,
    2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
_F = (
    1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
    2.04426310338993978564e-15,
)  # fmt: skip


def _ratio(top: tuple[float, ...], bottom: tuple[float, ...]) -> Any:
    """Ratio of two polynomials of degree 7, unrolled."""

    def ratio(x: Any) -> Any:
        above, below = top[7], bottom[7]
        for k in range(6, -1, -1):
            above = above * x + top[k]
            below = below * x + bottom[k]
        return above / below

    return unrolled(ratio)


_middle, _tail, _far = _ratio(_A, _B), _ratio(_C, _D), _ratio(_E, _F)


@njit(cache=True, nogil=True)
def mixed(key: np.uint64, place: np.uint64) -> np.uint64:
    """64 random bits."""
    bits = key + (place + _ONE) * _GOLDEN
    bits = (bits ^ (bits >> _30)) * _FIRST
    bits = (bits ^ (bits >> _27)) * _SECOND
    return bits ^ (bits >> _31)


@njit(cache=True, nogil=True)
def uniform(key: np.uint64, place: np.uint64) -> float:
    """Uniform between 0 and 1, both excluded."""
    # through int64, which every processor converts at once
    return (np.float64(np.int64(mixed(key, place) >> _11)) + 0.5) * _SCALE


@njit(cache=True, nogil=True)
def normal_quantile(p: float) -> float:
    """Where the standard normal distribution has reached p."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return float(q * _middle(0.180625 - q * q))
    r = np.sqrt(-np.log(min(p, 1.0 - p)))
    value = _tail(r - 1.6) if r <= 5.0 else _far(r - 5.0)
    return float(-value if q < 0.0 else value)


@njit(cache=True, nogil=True)
def normal(key: np.uint64, place: np.uint64) -> float:
    """Standard normal."""
    return float(normal_quantile(uniform(key, place)))


@njit(cache=True, nogil=True)
def normals(key: np.uint64, first: np.uint64, scratch: Array, out: Array) -> None:
    """Standard normal values of the places from `first` on.

    All are computed as if they lay in the middle, which vectorises, and then the others again.

    scratch  as out
    out      (n,)  written
    """
    for k in range(out.size):
        scratch[k] = uniform(key, first + np.uint64(k)) - 0.5
    for k in range(out.size):
        q = scratch[k]
        out[k] = q * _middle(0.180625 - q * q)
    for k in range(out.size):
        if abs(scratch[k]) > 0.425:
            out[k] = normal_quantile(scratch[k] + 0.5)
