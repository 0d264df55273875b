"""Bits of FSK at 9600 baud and the like, from the audio of an FM receiver."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from blocks.detector.line import LineDetector
from blocks.kernels.line_bits import Lane
from pipeline.block import param
from pipeline.frame import Array

CUTOFF = 0.6  # of the first filter, in parts of the baud
SHARPENED = (0, 1, 2)  # times that what is sliced has been sharpened, one a lane
SHARE = 0.38  # of the signals a bit before and after that sharpening takes off


class G3ruh(LineDetector, name="detector.g3ruh"):
    """Bits of the modem of G3RUH, which sends each bit as a frequency to one side or the other.

    Miller, "9600 baud packet radio modem design", ARRL 7th Computer Networking Conference, 1988.
    Reads what the discriminator of an FM receiver gives. Its filters, and those of the sender, run
    bits into one another: the detector fits what they do to the signal itself and finds the most
    likely bits (kernels/line_bits.py); a frequency offset is part of the fit. Polarity does not
    matter where the line is NRZI. Bits are still scrambled: see decoder.hdlc.

    A fit begins with bits that a slicer decides, and needs most of them to be right. Three lanes
    begin with three signals: as it came, and sharpened once and twice, for receivers that cut off
    at a third or a quarter of the baud.

    samples     (time)       float32, real
    line_bits   (lane, bit)  uint8, 0 or 1; 255 where lanes have unequal numbers of bits
    bit_sample  (lane, bit)  float64

    Raises RunError, on start, where the sample rate is not known or below 3 per bit.
    """

    baud: float = param(default=9600.0, above=0.0, unit="baud", doc="bits per second")

    lanes: ClassVar[tuple[Lane, ...]] = (Lane(8, 8, 2), Lane(16, 8, 2), Lane(16, 8, 2))

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
        bit = round(self._spacing)
        signals = [signal]
        for _ in range(max(SHARPENED)):
            last = signals[-1]
            signals.append(last.copy())
            signals[-1][bit:-bit] -= SHARE * (last[2 * bit :] + last[: -2 * bit])
        return [signals[times] for times in SHARPENED], signal[None]
