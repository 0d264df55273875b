"""GMSK: the waveform, and the phase trellis of a receiver.

Murota and Hirade, "GMSK modulation for digital mobile radio telephony", IEEE Trans. Commun. 29(7),
1981. Levels of +1 and -1, one per symbol, turn the phase by a quarter of a turn each (modulation
index 0.5), spread in time by a Gaussian filter, so that a symbol moves the phase before and after
its own time. Times and places are in symbols, from the middle of the first one.

For the trellis let d_n be the product of the levels up to symbol n. While symbol n is sent, the
signal is j^(n-1) d_(n-2) times one of eight waveforms, chosen by the levels n-1, n, n+1; so a
branch is four of these products, d_(n-2) ... d_(n+1), and the state the newest three. That leaves
out what symbols do beyond one and a half symbols from their middle: a ten-thousandth of their turn
for a time-bandwidth product of 0.4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

REACH = 3  # symbols before and after its own that a symbol moves the phase in
MEMORY = 3  # products in a state of the trellis
STATES, BRANCHES = 1 << MEMORY, 1 << (MEMORY + 1)
POINTS = 5  # per symbol that a receiver looks at
_FINE = 256  # steps per symbol of the table of the phase pulse


def _smooth_ramp(place: float, sharpness: float) -> float:
    """Integral of the normal distribution function over `sharpness` times the place."""
    x = sharpness * place
    density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return (0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))) + density) / sharpness


def phase_pulse(bandwidth: float) -> Array:
    """Share of a symbol's turn that has come, from REACH before its middle to REACH after.

    bandwidth  of the Gaussian filter, times the length of a symbol
    """
    sharpness = 2.0 * math.pi * bandwidth / math.sqrt(math.log(2.0))
    places = np.arange(-REACH * _FINE, REACH * _FINE + 1) / _FINE
    return np.array([
        _smooth_ramp(p + 0.5, sharpness) - _smooth_ramp(p - 0.5, sharpness) for p in places.tolist()
    ])  # fmt: skip


def _share(pulse: Array, places: Array) -> Array:
    """The phase pulse at places from the middle of its symbol."""
    share: Array = np.interp(places * _FINE, np.arange(-REACH * _FINE, REACH * _FINE + 1), pulse)
    return share


def phases(levels: Array, places: Array, pulse: Array) -> Array:
    """Phase [rad] of what carries these levels, at places.

    levels  (N,)  +1, -1, or 0 where there is only the carrier
    places  (n,)  in symbols from the middle of the first level
    """
    before = np.concatenate([[0.0], np.cumsum(levels)])
    padded = np.pad(np.asarray(levels, float), REACH + 1)
    own = np.floor(places + 0.5).astype(np.int64)
    turns: Array = before[np.clip(own - REACH, 0, len(levels))]
    for k in range(-REACH, REACH + 1):
        at = np.clip(own + k + REACH + 1, 0, padded.size - 1)
        turns = turns + padded[at] * _share(pulse, places - own - k)
    return 0.5 * np.pi * turns


def waveform(levels: Array, pulse: Array) -> Array:
    """What a receiver expects for these levels (N,): (N, POINTS) complex128."""
    points = (np.arange(POINTS) - 0.5 * (POINTS - 1)) / POINTS
    places = np.arange(len(levels))[:, None] + points
    return np.exp(1j * phases(levels, places.ravel(), pulse)).reshape(places.shape)


def branch_waveforms(pulse: Array) -> Array:
    """Waveforms (BRANCHES, POINTS) complex64 of a symbol, but for the factor j^(n-1).

    Branch s + STATES d leads to state s and drops d; the newest product is the lowest bit, which is
    1 for a product of +1.
    """
    points = (np.arange(POINTS) - 0.5 * (POINTS - 1)) / POINTS
    branches = np.arange(BRANCHES)
    products = np.array([2 * (branches >> k & 1) - 1 for k in range(MEMORY, -1, -1)])
    levels = products[1:] * products[:-1]
    turns = sum(
        level[:, None] * _share(pulse, points - at)
        for at, level in zip((-1, 0, 1), levels, strict=True)
    )
    waves: Array = products[0][:, None] * np.exp(0.5j * np.pi * turns)
    return waves.astype(np.complex64)
