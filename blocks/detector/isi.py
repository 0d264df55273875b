"""What the detectors for channels with known taps share: all but the recursion itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from blocks.kernels import trellis
from blocks.kernels.recursion import Recursion
from blocks.kernels.windows import Windows
from blocks.late import LateRows
from pipeline.block import Block, FieldType, param
from pipeline.errors import ConnectError, FieldError, ParameterError
from pipeline.frame import Array, Scalar

LARGEST = 1e15  # of a sample [V]: its square must not overflow float32
_SUMMED = 64  # metrics that a path metric, or the sum of two messages, may hold at most


class _Stream(NamedTuple):
    """A stream of samples under way."""

    is_complex: bool
    windows: Windows
    late: LateRows


class IsiDetector(Block, ABC):
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
    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet of the symbols"
    )
    window: int = param(
        default=256, at_least=1, at_most=65536, unit="symbols",
        doc="symbols of a stream decided at once",
    )  # fmt: skip
    lag: int = param(
        default=0, at_least=0, at_most=10_000, unit="symbols",
        doc="symbols before and past a window of a stream that its decision looks at; "
        "0: 5 memories",
    )  # fmt: skip
    start_state: Literal["silence", "known", "unknown"] = param(
        default="silence",
        doc="before a stream, each word, or after a gap: nothing, always known_symbol, or anything",
    )
    end_state: Literal["unknown", "known"] = param(
        default="unknown", doc="words end in anything, or in as many known_symbol as memory"
    )
    known_symbol: int = param(
        default=0, at_least=0, doc="index into the alphabet of the symbol known at start or end"
    )
    noise: Literal["gaussian", "poisson"] = param(
        default="gaussian", doc="poisson: counts with mean sqrt(snr) times the taps' output, plus 1"
    )
    snr_db: float | None = param(
        default=None, at_least=-300.0, at_most=300.0, unit="dB",
        doc="1 / noise variance; Poisson noise needs it",
    )  # fmt: skip

    def check(self) -> None:
        if self.taps_imag and len(self.taps_imag) != len(self.taps):
            raise ParameterError(
                f"taps_imag has {len(self.taps_imag)} items, but taps has {len(self.taps)}; "
                "give one imaginary part per tap, or none"
            )
        if not any(self.taps) and not any(self.taps_imag):
            raise ParameterError("taps are all 0, so the samples tell nothing of the symbols")
        memory, order = trellis.memory_of(len(self.taps)), self._alphabet.size
        if order**memory > trellis.MAX_STATES:
            raise ParameterError(
                f"{len(self.taps)} taps of {self.modulation} make {order}^{memory} states, but at "
                f"most {trellis.MAX_STATES} are possible; give fewer taps"
            )
        if self.known_symbol >= order:
            raise ParameterError(
                f"known_symbol = {self.known_symbol}, but {self.modulation} has the symbols "
                f"0 ... {order - 1}"
            )
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
    def _alphabet(self) -> Array:
        return trellis.ALPHABETS[self.modulation]

    @property
    def _is_complex(self) -> bool:
        """Whether the samples have to be."""
        return self.modulation == "qpsk" or bool(self.taps_imag)

    @property
    def _memory(self) -> int:
        return trellis.memory_of(len(self.taps))

    @property
    def _lag(self) -> int:
        return self.lag or 5 * self._memory

    def _start_states(self) -> Array:
        return trellis.start_states(
            self.start_state, self.known_symbol, self._alphabet.size, self._memory
        )

    def _end_states(self, length: int) -> Array:
        """States in which a word of this length may end."""
        known = min(length, len(self.taps) - 1) if self.end_state == "known" else 0
        return trellis.states_ending(self.known_symbol, known, self._alphabet.size, self._memory)

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        """The type of decided symbols; ConnectError where such samples cannot be detected."""
        samples = reads["samples"]
        if samples.dtypes == ("float32",) and self._is_complex:
            raise ConnectError(
                f"{self.name}: 'samples' is {samples}, but qpsk and complex taps give complex "
                "samples; expected complex64"
            )
        if samples.dtypes == ("complex64",) and self.noise == "poisson":
            raise ConnectError(f"{self.name}: 'samples' is {samples}, but counts are real")
        return {"symbols": FieldType((self._alphabet.dtype.name,), samples.dims)}

    def _checked(self, samples: Array) -> Array:
        """The samples, if the recursions can take them; FieldError where they cannot."""
        if samples.ndim not in (1, 2):
            raise FieldError(
                f"{self.name}: 'samples' has shape {samples.shape}; expected (time) or (word, time)"
            )
        if self._is_complex and samples.dtype.kind != "c":
            raise FieldError(
                f"{self.name}: 'samples' is {samples.dtype}, but qpsk and complex taps give "
                "complex samples; expected complex64"
            )
        parts = (samples.real, samples.imag) if samples.dtype.kind == "c" else (samples,)
        # The least and the greatest are NaN if any is, and need no room as |samples| would.
        if not all(
            part.min(initial=0.0) > -LARGEST and part.max(initial=0.0) < LARGEST for part in parts
        ):
            wrong = samples[~(np.abs(samples) < LARGEST)][0]
            raise FieldError(
                f"{self.name}: 'samples' holds {wrong}; expected finite numbers below {LARGEST:g} V"
            )
        return samples

    @abstractmethod
    def _recursion(self, is_complex: bool) -> Recursion:
        """What decides samples of this kind."""

    @abstractmethod
    def _fields(self, *results: Array) -> tuple[Array, ...]:
        """The fields that the detector adds, from results of its recursion."""

    def start(self) -> None:
        self._recursions: dict[bool, Recursion] = {}  # by whether samples are complex
        self._stream: _Stream | None = None  # until the first samples tell

    def _detect(self, samples: Array) -> list[tuple[Array, ...]]:
        """The fields of all frames that these samples complete."""
        is_complex = self._checked(samples).dtype.kind == "c"
        recursion = self._of(is_complex)
        values = recursion.metrics.flat(samples)
        if samples.ndim == 2:
            if self._stream is not None:
                self._stream.late.check_idle(self.name)
            words, length = samples.shape
            results = recursion.decide(
                values, words, length, length, at_start=True, end=self._end_states(length)
            )
            return [self._fields(*results)]
        if self._stream is None:
            self._stream = self._opened(is_complex)
        if self._stream.is_complex != is_complex:
            raise FieldError(
                f"{self.name}: 'samples' is {samples.dtype}, but the stream began with "
                f"{'complex' if self._stream.is_complex else 'real'} ones"
            )
        self._stream.late.expect(samples.size)
        self._stream.late.add(*self._fields(*self._stream.windows.push(values)))
        return self._stream.late.complete()

    def _rest(self) -> list[tuple[Array, ...]]:
        """The fields of the frames that wait, at the end of a stream."""
        if self._stream is None:
            return []
        self._stream.late.add(*self._fields(*self._stream.windows.finish()))
        return self._stream.late.complete()

    def _of(self, is_complex: bool) -> Recursion:
        if is_complex not in self._recursions:
            self._recursions[is_complex] = self._recursion(is_complex)
        return self._recursions[is_complex]

    def _opened(self, is_complex: bool) -> _Stream:
        recursion = self._of(is_complex)
        nothing = self._fields(*(one[0] for one in recursion.empty(1, 0)))
        return _Stream(is_complex, recursion.stream(self.window, self._lag), LateRows(*nothing))

    def state(self) -> Mapping[str, Array | Scalar]:
        if self._stream is None:
            return {}
        is_complex, windows, late = self._stream
        return {"is_complex": is_complex, **windows.state(), **late.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._stream = None
        if "is_complex" in state:
            self._stream = self._opened(bool(state["is_complex"]))
            self._stream.windows.restore(state)
            self._stream.late.restore(state)
