"""Bits of FSK at 9600 baud and the like, from the audio of an FM receiver."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from blocks.detector.line import LineDetector
from blocks.kernels.line_bits import Lane
from pipeline.block import param
from pipeline.frame import Array

CUTOFF = 0.6  # of the first filter, in parts of the baud


class G3ruh(LineDetector, name="detector.g3ruh"):
    """Bits of the modem of G3RUH, which sends each bit as a frequency to one side or the other.

    Miller, "9600 baud packet radio modem design", ARRL 7th Computer Networking Conference, 1988.
    Reads what the discriminator of an FM receiver gives. Its filters, and those of the sender, run
    bits into one another: the detector fits what they do to the signal itself and finds the most
    likely bits (kernels/line_bits.py); a frequency offset is part of the fit. Polarity does not
    matter where the line is NRZI. Bits are still scrambled: see decoder.hdlc.

    There are two lanes, whose clocks are taken over 17 and over 33 blocks of 32 bits.

    samples     (time)       float32, real
    line_bits   (lane, bit)  uint8, 0 or 1; 255 where lanes have unequal numbers of bits
    bit_sample  (lane, bit)  float64

    Raises RunError, on start, where the sample rate is not known or below 3 per bit.
    """

    baud: float = param(default=9600.0, above=0.0, unit="baud", doc="bits per second")

    lanes: ClassVar[tuple[Lane, ...]] = (Lane(8, 8, 2), Lane(16, 8, 2))

    def start(self) -> None:
        self._taps: Array | None = None
        super().start()

    def _heard(self, samples: Array) -> tuple[list[Array], Array]:
        if self._taps is None:
            half = round(2 * self._spacing)
            times = np.arange(-half, half + 1) / self._spacing
            taps = np.sinc(2.0 * CUTOFF * times) * np.hamming(times.size)
            self._taps = taps / taps.sum()
        signal = np.convolve(samples, self._taps, "same")
        return [signal] * len(self._ways), signal[None]
