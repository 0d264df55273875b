"""Samples from a receiver that SoapySDR knows."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Complex64

from blocks import fields
from pipeline.block import Gap, Silence, Source, param
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Array, Scalar, StreamInfo

LOOK_US = 200_000  # how long a call may wait: a flow that is to stop must not wait longer


class Samples(NamedTuple):
    """What a frame starts with."""

    samples: Annotated[Complex64[Array, "time"], fields.SAMPLES]


class Soapy(Source, name="source.soapy"):
    """The samples of a receiver, by way of SoapySDR, as they come.

    Where the receiver says that samples were lost, a gap says how many: by its own time stamps if
    it has them, else by the clock of this machine.

    SoapySDR is a library of the operating system. Its Python module comes with Debian's package
    python3-soapysdr, for Debian's own Python: make the environment with --system-site-packages.

    samples    (up to length,) complex64, at full scale 1

    Raises ParameterError, when it is made, where the module is missing; RunError where the receiver
    cannot be opened or set, or fails while it runs.
    """

    device: str = param(
        default="", doc='which receiver, such as "driver=rtlsdr, serial=1"; empty: the first'
    )
    channel: int = param(default=0, at_least=0, doc="which of its inputs")
    antenna: str = param(default="", doc="which of its antennas; empty: as it comes")
    rate_hz: float = param(default=2.0e6, above=0.0, unit="Hz", doc="samples per second")
    centre_hz: float = param(default=1090e6, at_least=0.0, unit="Hz", doc="radio frequency")
    gain_db: float | None = param(
        default=None, unit="dB", doc="gain; left out: the receiver chooses, if it can"
    )
    length: int = param(default=4096, at_least=1, unit="samples", doc="most samples per frame")
    frames: int = param(default=0, at_least=0, unit="frames", doc="frames to read; 0: all")

    _receiver: Any = None

    def check(self) -> None:
        try:
            self._api = importlib.import_module("SoapySDR")
        except ImportError as error:
            raise ParameterError(
                f"SoapySDR's Python module is not here ({error}); install Debian's package "
                "python3-soapysdr and use an environment of Debian's Python with "
                "--system-site-packages"
            ) from None

    def start(self) -> None:
        self.close()
        self._sent = 0  # frames
        self._place = 0  # samples that came or were lost
        self._lost = 0  # samples that a gap is to tell of, before `_kept`
        self._kept: Array | None = None
        self._overflown = False  # since the last samples
        self._stream: Any = None
        api = self._api
        try:
            self._receiver = receiver = api.Device(self.device)
            side = api.SOAPY_SDR_RX, self.channel
            receiver.setSampleRate(*side, self.rate_hz)
            receiver.setFrequency(*side, self.centre_hz)
            if self.antenna:
                receiver.setAntenna(*side, self.antenna)
            if self.gain_db is not None:
                receiver.setGainMode(*side, False)
                receiver.setGain(*side, self.gain_db)
            elif receiver.hasGainMode(*side):
                receiver.setGainMode(*side, True)
            rate_hz = receiver.getSampleRate(*side)
            self._stream = receiver.setupStream(side[0], api.SOAPY_SDR_CF32, [self.channel])
            receiver.activateStream(self._stream)
        except RuntimeError as error:  # what its wrapper raises for any error
            raise RunError(f"{self.name}: {self._named()}: {error}") from None
        if abs(rate_hz - self.rate_hz) > 1e-4 * self.rate_hz:
            raise RunError(
                f"{self.name}: {self._named()} samples at {rate_hz:g} Hz, not at rate_hz = "
                f"{self.rate_hz:g} Hz; choose a rate that it has"
            )
        self._epoch_utc_ns, self._begun = time.time_ns(), time.monotonic()
        self._first_ns: int | None = None  # of the receiver's clock, at the first sample

    def describe(self) -> StreamInfo:
        return StreamInfo(
            rate_hz=self.rate_hz,
            epoch_utc_ns=self._epoch_utc_ns,
            centre_hz=self.centre_hz,
            format="soapy",
        )

    def process(self) -> Samples | Gap | Silence | None:
        if self._receiver is None or (self.frames and self._sent >= self.frames):
            return None
        if self._kept is None:
            self._kept = self._read()
        if self._lost:
            lost, self._lost = self._lost, 0
            return Gap(lost)
        samples, self._kept = self._kept, None
        if not samples.size:
            return Silence()
        self._sent += 1
        return Samples(samples)

    def _read(self) -> Array:
        """The next samples, none if none came; counts those that were lost before them."""
        api, samples = self._api, np.empty(self.length, np.complex64)
        came = self._receiver.readStream(self._stream, [samples], self.length, timeoutUs=LOOK_US)
        if came.ret == api.SOAPY_SDR_OVERFLOW:
            self._overflown = True
            return samples[:0]
        if came.ret == api.SOAPY_SDR_TIMEOUT:
            return samples[:0]
        if came.ret < 0:
            raise RunError(
                f"{self.name}: {self._named()} failed: {api.errToStr(came.ret)} ({came.ret})"
            )
        self._note_lost(came)
        self._place += self._lost + came.ret
        return samples[: came.ret]

    def _note_lost(self, came: Any) -> None:
        """Compare the time of these samples with how many came before."""
        if came.flags & self._api.SOAPY_SDR_HAS_TIME:
            if self._first_ns is None:
                self._first_ns = came.timeNs - round(1e9 * self._place / self.rate_hz)
            at = round((came.timeNs - self._first_ns) * self.rate_hz / 1e9)
        else:
            at = int((time.monotonic() - self._begun) * self.rate_hz) - came.ret
        if self._overflown:
            self._lost = max(1, at - self._place)
        self._overflown = False

    def _named(self) -> str:
        return self.device or "the first receiver"

    def frames_left(self) -> int | None:
        return self.frames - self._sent if self.frames else None

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"sent": self._sent}

    def restore(self, state: Mapping[str, Any]) -> None:
        raise RunError(f"{self.name}: what {self._named()} sent cannot be sent again")

    def close(self) -> None:
        if self._receiver is not None:
            if self._stream is not None:
                with suppress(RuntimeError):  # it may have been unplugged
                    self._receiver.deactivateStream(self._stream)
                    self._receiver.closeStream(self._stream)
            self._receiver = None
