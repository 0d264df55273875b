"""Samples of Mode S messages on the air, as a receiver with a converter of 8 bits gives them.

Pulses are trapezoids, 0.5 us long where they have half their height (ICAO Annex 10 Volume IV,
3.1.2.2); a pulse right after another goes on from it. The receiver is a filter whose spectrum falls
from 1 to 0 along half a period of a cosine (Proakis, "Digital Communications", raised cosine): as
the decimating filters of cheap receivers do, it rings on both sides of a pulse.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

PULSE_US = 0.5  # a chip, and the pulse in it
PREAMBLE = 16  # chips, of which 0, 2, 7 and 9 have a pulse
STEP_US = 1.0 / 128.0  # of a response
RINGS_US = 2.0  # how long a filter rings to either side, at most
ROLL_OFF = 0.4  # width of the fall, as a share of the bandwidth
EDGE_US = 0.25  # room for the edges of a pulse, of 0.2 us at most
LEAD_US = RINGS_US + EDGE_US / 2.0  # that a response may begin before its pulse


def response(rise_us: float, fall_us: float, bandwidth_hz: float) -> Array:
    """Envelope of a pulse of height 1 behind the receiver, (M,) float64, each STEP_US.

    The first value stands LEAD_US before the middle of the rise.

    bandwidth_hz  width of the filter between its points of half amplitude; a long pulse keeps its
                  height
    """
    reach = round(RINGS_US / STEP_US)
    turns = np.arange(-reach, reach + 1) * STEP_US * bandwidth_hz / 1e6
    fall = 1.0 - (2.0 * ROLL_OFF * turns) ** 2
    edge = np.abs(fall) < 1e-9  # where the formula is 0 / 0, it has the limit pi / 4
    taps = np.sinc(turns) * np.where(
        edge, math.pi / 4.0, np.cos(math.pi * ROLL_OFF * turns) / np.where(edge, 1.0, fall)
    )
    taps *= np.hanning(taps.size + 2)[1:-1]
    edges = np.array([-rise_us, rise_us, 2 * PULSE_US - fall_us, 2 * PULSE_US + fall_us]) / 2.0
    t = np.arange(-EDGE_US / 2.0, PULSE_US + EDGE_US / 2.0 + STEP_US / 2.0, STEP_US)
    result: Array = np.convolve(np.interp(t, edges, [0.0, 1.0, 1.0, 0.0]), taps / taps.sum())
    return result


@njit(cache=True, nogil=True)
def _on(message: Array, size: int, chip: int) -> bool:
    """Whether a chip has a pulse."""
    if chip < PREAMBLE:
        return chip == 0 or chip == 2 or chip == 7 or chip == 9
    bit = (chip - PREAMBLE) // 2
    if bit >= size:
        return False
    return bool((message[bit >> 3] >> (7 - (bit & 7))) & 1 != (chip & 1))


@njit(cache=True, nogil=True)
def add(
    message: Array, size: int, begin: float, per_us: float, amplitude: float, phase: float,
    turn: float, pulse: Array, first: int, signal: Array,
) -> None:  # fmt: skip
    """Add a message to a stretch of a signal.

    message    (14,) uint8        bytes
    size       of the message, 56 or 112 bits
    begin      sample number, with its fraction, at which the first pulse begins
    per_us     samples per microsecond
    amplitude  height of its pulses
    phase      of the carrier where the message begins [rad]
    turn       of the phase per sample [rad]
    pulse      (M,) float64       a `response`
    first      number of the first sample of `signal`
    signal     (n, 2) float64     real and imaginary parts, added to
    """
    chips = PREAMBLE + 2 * size
    begins = max(math.ceil(begin - LEAD_US * per_us) - first, 0)
    ends = math.floor(begin + (PULSE_US * chips + LEAD_US) * per_us) - first
    for n in range(begins, min(ends + 1, len(signal))):
        since = first + n - begin
        place = since / per_us + LEAD_US  # us since the response to the first pulse began
        newest = min(int(place / PULSE_US), chips - 1)
        height = 0.0
        for chip in range(newest, -1, -1):
            at = (place - PULSE_US * chip) / STEP_US
            whole = int(at)
            if whole + 1 >= pulse.size:
                break
            if _on(message, size, chip):
                height += pulse[whole] + (at - whole) * (pulse[whole + 1] - pulse[whole])
        angle = phase + turn * since
        signal[n, 0] += amplitude * height * math.cos(angle)
        signal[n, 1] += amplitude * height * math.sin(angle)


@njit(cache=True, nogil=True)
def convert(signal: Array, noise: Array, scale: float, values: Array, out: Array) -> None:
    """Signal plus noise, as a converter of 8 bits gives it: rounded, and clipped at full scale.

    signal  (n, 2) float64   1: full scale
    noise   (n, 2) float32   of variance 1
    scale   standard deviation of the noise in each part
    values  (256,) float32   what the codes of the converter stand for, evenly spaced from -1 to 1
    out     (n, 2) float32   written
    """
    half = 0.5 * (values.size - 1)
    for n in range(len(out)):
        for part in range(2):
            value = signal[n, part] + scale * noise[n, part]
            code = math.floor(value * half + half + 0.5)
            out[n, part] = values[int(min(max(code, 0.0), 2.0 * half))]
