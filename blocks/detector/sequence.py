"""What detectors that decide sequences over a trellis share: all but metrics and recursion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks import fields
from blocks.kernels import branch_metrics, max_log, sum_product, trellis
from blocks.kernels.recursion import Recursion
from blocks.kernels.windows import Windows
from blocks.late import LateRows
from pipeline.block import Block, FieldType, param
from pipeline.errors import ConnectError, FieldError, ParameterError
from pipeline.frame import Array, Scalar

#: Largest LLR [nat]: beyond it the floors of the messages show.
LLR_LIMIT = {"single": 38.0, "double": 300.0}


class Decided(NamedTuple):
    """What a detector of sequences adds."""

    symbols: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SYMBOLS]


class SoftDecided(NamedTuple):
    """What a detector adds that tells how likely symbols are, too."""

    symbols: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SYMBOLS]
    posterior: Annotated[Float32[Array, "*word time state"], fields.POSTERIOR]
    llr: Annotated[Float32[Array, "*word time bit"], fields.LLR]


class _Stream(NamedTuple):
    """A stream of samples under way."""

    is_complex: bool
    windows: Windows
    late: LateRows


class SequenceDetector(Block, ABC):
    """Decides words as they come, and a stream in windows; what state it keeps.

    A subclass says how many symbols a sample depends on, where the metrics of samples come from,
    which recursion decides, and what fields its results make. The numbering of states is that of
    kernels/trellis.py.
    """

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

    #: Samples must be less than this [V], so that no metric overflows.
    largest: ClassVar[float]
    #: Whether other samples count as missing; else they are refused.
    erases: ClassVar[bool] = False

    # What a subclass fills in:

    @property
    @abstractmethod
    def _span(self) -> int:
        """Symbols that a sample depends on."""

    @abstractmethod
    def _refusal(self, is_complex: bool) -> str:
        """Why samples of this kind cannot be detected; nothing if they can."""

    @abstractmethod
    def _recursion(self, is_complex: bool) -> Recursion:
        """What decides samples of this kind."""

    @abstractmethod
    def _values(self, recursion: Recursion, samples: Array) -> Array:
        """What the recursion is given for these samples, flat, as `recursion.metrics` says."""

    @abstractmethod
    def _fields(self, *results: Array) -> tuple[Array, ...]:
        """The fields that the detector adds, from results of its recursion."""

    # What they have in common:

    def check(self) -> None:
        order = self._alphabet.size
        if order**self._memory > trellis.MAX_STATES:
            raise ParameterError(
                f"samples that depend on {self._span} symbols of {self.modulation} make "
                f"{order}^{self._memory} states, but at most {trellis.MAX_STATES} are possible; "
                "let them depend on fewer"
            )
        if self.known_symbol >= order:
            raise ParameterError(
                f"known_symbol = {self.known_symbol}, but {self.modulation} has the symbols "
                f"0 ... {order - 1}"
            )

    @property
    def _alphabet(self) -> Array:
        return trellis.ALPHABETS[self.modulation]

    @property
    def _memory(self) -> int:
        return trellis.memory_of(self._span)

    @property
    def _lag(self) -> int:
        return self.lag or 5 * self._memory

    def _start_states(self) -> Array:
        return trellis.start_states(
            self.start_state, self.known_symbol, self._alphabet.size, self._memory
        )

    def _end_states(self, length: int) -> Array | None:
        """States in which a word of this length may end; None: any."""
        if self.end_state == "unknown":
            return None
        known = min(length, self._span - 1)
        return trellis.states_ending(self.known_symbol, known, self._alphabet.size, self._memory)

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        """The type of decided symbols; ConnectError where such samples cannot be detected."""
        samples = reads["samples"]
        for dtype, is_complex in (("float32", False), ("complex64", True)):
            why = self._refusal(is_complex)
            if samples.dtypes == (dtype,) and why:
                raise ConnectError(f"{self.name}: 'samples' is {samples}, but {why}")
        return {"symbols": FieldType((self._alphabet.dtype.name,), samples.dims)}

    def _checked(self, samples: Array) -> Array:
        """The samples, if the recursions can take them; FieldError where they cannot."""
        if samples.ndim not in (1, 2):
            raise FieldError(
                f"{self.name}: 'samples' has shape {samples.shape}; expected (time) or (word, time)"
            )
        is_complex = samples.dtype.kind == "c"
        why = self._refusal(is_complex)
        if why:
            raise FieldError(f"{self.name}: 'samples' is {samples.dtype}, but {why}")
        if not self.erases and not self._within(samples):
            wrong = samples[~(np.abs(samples) < self.largest)][0]
            raise FieldError(
                f"{self.name}: 'samples' holds {wrong}; expected finite numbers below "
                f"{self.largest:g} V"
            )
        return samples

    def _within(self, samples: Array) -> bool:
        """Whether all samples are numbers that the recursions can take."""
        parts = (samples.real, samples.imag) if samples.dtype.kind == "c" else (samples,)
        # The least and the greatest are NaN if any is, and need no room as |samples| would.
        return all(
            part.min(initial=0.0) > -self.largest and part.max(initial=0.0) < self.largest
            for part in parts
        )

    def start(self) -> None:
        self._recursions: dict[bool, Recursion] = {}  # by whether samples are complex
        self._stream: _Stream | None = None  # until the first samples tell

    def _detect(self, samples: Array) -> list[tuple[Array, ...]]:
        """The fields of all frames that these samples complete."""
        is_complex = self._checked(samples).dtype.kind == "c"
        recursion = self._of(is_complex)
        if samples.ndim == 2:
            if self._stream is not None:
                self._stream.late.check_idle(self.name)
            return [self._fields(*self._words(recursion, samples))]
        if self._stream is None:
            self._stream = self._opened(is_complex)
        if self._stream.is_complex != is_complex:
            raise FieldError(
                f"{self.name}: 'samples' is {samples.dtype}, but the stream began with "
                f"{'complex' if self._stream.is_complex else 'real'} ones"
            )
        self._stream.late.expect(samples.size)
        values = self._values(recursion, samples)
        self._stream.late.add(*self._fields(*self._stream.windows.push(values)))
        return self._stream.late.complete()

    def _words(self, recursion: Recursion, samples: Array) -> tuple[Array, ...]:
        """Results of words, (word, time, ...) each."""
        words, length = samples.shape
        return recursion.decide(
            self._values(recursion, samples), words, length, length, at_start=True,
            end=self._end_states(length),
        )  # fmt: skip

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

    # Fields from results:

    def _symbols_of(self, indices: Array) -> Array:
        """The symbols that the Viterbi algorithm has decided."""
        symbols = np.empty(indices.shape, self._alphabet.dtype)
        branch_metrics.look_up(indices.reshape(-1), self._alphabet, symbols.reshape(-1))
        return symbols

    def _soft_of(self, marginal: Array, posterior: Array, *, is_max_log: bool) -> SoftDecided:
        """Decisions and LLRs from the posteriors of the newest symbol, or from its costs."""
        *shape, order = marginal.shape
        symbols = np.empty(shape, self._alphabet.dtype)
        llr = np.empty((*shape, order.bit_length() - 1), np.float32)
        flat = marginal.reshape(-1, order), self._alphabet
        rows = symbols.reshape(-1), llr.reshape(-1, order.bit_length() - 1)
        if is_max_log:
            max_log.decide(*flat, LLR_LIMIT["double"], *rows)
        else:
            limit = LLR_LIMIT["single" if marginal.dtype == np.float32 else "double"]
            odds = np.empty(llr.shape, marginal.dtype)
            sum_product.decide(*flat, rows[0], odds.reshape(rows[1].shape))
            with np.errstate(divide="ignore"):  # a bit that is ruled out: the limit holds
                np.log(odds, out=odds)
            np.clip(odds, -limit, limit, out=llr, casting="same_kind")
        return SoftDecided(symbols, posterior, llr)
