"""A module that stands in for SoapySDR: one receiver that counts, and does what a test tells it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np

OVERFLOW, TIMEOUT = -4, -1


class Device:
    """A receiver whose samples are 0, 1, 2 ... / 1000.

    script   what calls of readStream do, in turn: OVERFLOW or another error, or a number of samples
             that pass unseen; after the last one samples come
    """

    script: ClassVar[list[int]] = []
    timed = True
    rate_hz = 0.0

    def __init__(self, arguments: str) -> None:
        if arguments == "driver=none":
            raise RuntimeError("SoapySDR::Device::make() no match")
        self.place, self.steps, self.calls = 0, list(self.script), []

    def __getattr__(self, name):
        if not name.startswith(("set", "activate", "deactivate", "close")):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))

    def hasGainMode(self, side, channel):
        return True

    def setSampleRate(self, side, channel, rate_hz):
        self.rate = rate_hz

    def getSampleRate(self, side, channel):
        return self.rate_hz or self.rate

    def setupStream(self, side, kind, channels):
        return "stream"

    def readStream(self, stream, buffers, count, timeoutUs):
        step = self.steps.pop(0) if self.steps else 0
        if step < 0:
            return SimpleNamespace(ret=step, flags=0, timeNs=0)
        self.place += step
        at = self.place
        buffers[0][:count] = (at + np.arange(count)) / 1000
        self.place += count
        time_ns = 5_000_000_000 + round(at * 1e9 / self.rate)
        return SimpleNamespace(ret=count, flags=4 if self.timed else 0, timeNs=time_ns)


def install(**told) -> None:
    """Let `import SoapySDR` find it, with a receiver that was told this."""
    module = ModuleType("SoapySDR")
    module.SOAPY_SDR_RX, module.SOAPY_SDR_CF32, module.SOAPY_SDR_HAS_TIME = 1, "CF32", 4
    module.SOAPY_SDR_OVERFLOW, module.SOAPY_SDR_TIMEOUT = OVERFLOW, TIMEOUT
    module.Device = type("Device", (Device,), told)
    module.errToStr = lambda code: {-2: "STREAM_ERROR"}.get(code, "OTHER")
    sys.modules["SoapySDR"] = module
