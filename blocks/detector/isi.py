"""What the detectors for channels with known taps share: their metrics."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Literal

import numpy as np

from blocks.detector.sequence import SequenceDetector
from blocks.kernels import trellis
from blocks.kernels.recursion import Recursion
from pipeline.block import param
from pipeline.errors import ParameterError
from pipeline.frame import Array

LARGEST = 1e15  # of a sample [V]: its square must not overflow float32
_SUMMED = 64  # metrics that a path metric, or the sum of two messages, may hold at most


class IsiDetector(SequenceDetector, ABC):
    """A detector whose branch metrics come from known taps.

    Metrics, their noise models and the numbering of states are described in kernels/trellis.py. A
    subclass says which recursion decides, and what fields its results make.
    """

    taps: tuple[float, ...] = param(
        items_at_least=1, unit="V", doc="impulse response of the channel, newest symbol first"
    )
    taps_imag: tuple[float, ...] = param(
        default=(), unit="V", doc="imaginary parts of the taps; none: the taps are real"
    )
    normalise: bool = param(
        default=False, doc="scale the taps to unit energy first, as channel.isi does"
    )
    noise: Literal["gaussian", "poisson"] = param(
        default="gaussian", doc="poisson: counts with mean sqrt(snr) times the taps' output, plus 1"
    )
    snr_db: float | None = param(
        default=None, at_least=-300.0, at_most=300.0, unit="dB",
        doc="1 / noise variance; Poisson noise needs it",
    )  # fmt: skip

    largest: ClassVar[float] = LARGEST

    def check(self) -> None:
        if self.taps_imag and len(self.taps_imag) != len(self.taps):
            raise ParameterError(
                f"taps_imag has {len(self.taps_imag)} items, but taps has {len(self.taps)}; "
                "give one imaginary part per tap, or none"
            )
        if not any(self.taps) and not any(self.taps_imag):
            raise ParameterError("taps are all 0, so the samples tell nothing of the symbols")
        super().check()
        if self.noise == "poisson":
            if self.snr_db is None:
                raise ParameterError("Poisson noise needs snr_db, which scales the mean count")
            try:
                self._metrics_of(np.float64, is_complex=False)
            except ValueError as error:
                raise ParameterError(
                    f"{error}; use modulation = 'ook' and real taps that are not negative"
                ) from None

    def _check_range(self, dtype: Any, noise_var: float, advice: str) -> None:
        """ParameterError where this dtype could not hold sums of metrics of samples in range."""
        taps = self._taps()
        reach = float(np.abs(taps).sum())  # of a noise-free sample
        if _SUMMED * reach * (reach + 2.0 * LARGEST) / noise_var > float(np.finfo(dtype).max):
            raise ParameterError(
                f"taps of {reach:g} V in all with a noise variance of {noise_var:g} V^2 make "
                f"metrics that overflow; {advice}"
            )

    def _taps(self) -> Array:
        """The taps as one array, float64 or complex128."""
        taps: Array = np.array(self.taps, np.float64)
        if self.taps_imag:
            taps = taps + 1j * np.array(self.taps_imag)
        return taps / np.linalg.norm(taps) if self.normalise else taps

    def _metrics_of(
        self, dtype: Any, *, is_complex: bool, noise_var: float = 1.0
    ) -> trellis.Metrics:
        snr = None
        if self.noise == "poisson" and self.snr_db is not None:
            snr = 10.0 ** (self.snr_db / 10.0)
        return trellis.Metrics.of_channel(
            self._taps(), self._alphabet, is_complex=is_complex,
            silence=self.start_state == "silence", noise_var=noise_var, snr=snr, dtype=dtype,
        )  # fmt: skip

    @property
    def _span(self) -> int:
        return len(self.taps)

    def _refusal(self, is_complex: bool) -> str:
        if not is_complex and (self.modulation == "qpsk" or self.taps_imag):
            return "qpsk and complex taps give complex samples; expected complex64"
        if is_complex and self.noise == "poisson":
            return "counts are real; expected float32"
        return ""

    def _values(self, recursion: Recursion, samples: Array) -> Array:
        return recursion.metrics.flat(samples)
