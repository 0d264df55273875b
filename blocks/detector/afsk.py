"""Bits of audio that is one of two tones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from blocks.detector.line import LineDetector
from blocks.kernels.line_bits import Lane
from pipeline.block import param
from pipeline.frame import Array

WINDOW = 0.8  # bits to each side that the tones are weighed over
GAINS = (1.0, 0.5, 2.0)  # of the space tone in the signals that are sliced, one a lane


class Afsk(LineDetector, name="detector.afsk"):
    """Bits of a modem that sends each bit as one of two tones, as Bell 202 does at 1200 baud.

    What filters see are the magnitudes of both tones, over a window around each bit; the detector
    fits to the signal itself how they add up and finds the most likely bits (kernels/line_bits.py).
    Receivers often leave the tones unequal: three lanes begin with three ratios of their levels.
    Polarity does not matter where the line is NRZI.

    samples     (time)       float32, real
    line_bits   (lane, bit)  uint8, 1 for the mark tone; 255 where lanes have unequal numbers
    bit_sample  (lane, bit)  float64

    Raises RunError, on start, where the sample rate is not known or below 3 per bit.
    """

    baud: float = param(default=1200.0, above=0.0, unit="baud", doc="bits per second")
    mark_hz: float = param(default=1200.0, above=0.0, unit="Hz", doc="tone of a 1")
    space_hz: float = param(default=2200.0, above=0.0, unit="Hz", doc="tone of a 0")

    lanes: ClassVar[tuple[Lane, ...]] = (Lane(8, 8, 2),) * len(GAINS)

    def _heard(self, samples: Array) -> tuple[list[Array], Array]:
        half = round(WINDOW * self._spacing)
        times = np.arange(-half, half + 1) / self._rate_hz
        window = np.hamming(times.size)
        tones = [
            np.abs(np.convolve(samples, window * np.exp(2j * np.pi * tone_hz * times), "same"))
            for tone_hz in (self.mark_hz, self.space_hz)
        ]
        return [tones[0] - gain * tones[1] for gain in GAINS], np.stack(tones)
