"""Mode S messages, found in magnitudes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int16, UInt8

from blocks import fields
from blocks.kernels import mode_s_bits, mode_s_detection
from blocks.kernels.mode_s_detection import LONG, RATES
from blocks.rate import rate_of
from pipeline.block import Block, FrameInfo, param
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Array, Scalar

_BLOCK = 8192  # scores computed at once: few enough to stay in the cache of a core


class Candidates(NamedTuple):
    """What the detector adds."""

    candidates: Annotated[UInt8[Array, "candidate bit"], fields.CANDIDATES]
    candidate_bits: Annotated[Int16[Array, "candidate"], fields.CANDIDATE_BITS]
    candidate_sample: Annotated[Float64[Array, "candidate"], fields.CANDIDATE_SAMPLE]
    candidate_score: Annotated[Float32[Array, "candidate"], fields.CANDIDATE_SCORE]
    candidate_level: Annotated[Float32[Array, "candidate"], fields.CANDIDATE_LEVEL]
    candidate_llr: Annotated[Float32[Array, "candidate bit"], fields.CANDIDATE_LLR]


_AT_ZERO = FrameInfo()
_KNOWN = "; expected " + " or ".join(f"{rate:g} Hz" for rate in RATES)
_EMPTY = Candidates(
    np.empty((0, LONG), np.uint8), np.empty(0, np.int16), np.empty(0), np.empty(0, np.float32),
    np.empty(0, np.float32), np.empty((0, LONG), np.float32),
)  # fmt: skip


def _split(places: Array, phases: int) -> tuple[Array, Array]:
    """Sample and phase of places that are counted in phases."""
    return places // phases, (places % phases).astype(np.uint8)


class ModeS(Block, name="detector.modes"):
    """Messages that may be in a stream of magnitudes, at 2.0 or 2.4 samples per microsecond.

    A message may begin where the samples correlate with a preamble, at the best of a few fractions
    of a sample, and where what follows is like a message. Its bits are then decided by one of
    several detectors; whether they make sense is left to the decoder.

    slicer     compares the two halves of each bit
    sequence   fits the response to a pulse to each message and finds the most likely bits
    +repair    and turns up to two unsure bits where that makes the parity right

    A candidate belongs to the frame in which a long message would be complete, short ones too, so
    that they come in order; the last frame of a stream also has those that end before. To know
    which frame that is, the detector answers a frame when the next one comes.

    magnitude  (time) float32; where it is not finite, nothing is found

    Raises ParameterError for a rate without a model; RunError, on start, where neither the stream
    nor the parameter tells the rate.
    """

    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz",
        doc="samples per second, 2.0e6 or 2.4e6; 0: as the stream says",
    )  # fmt: skip
    bit_detector: Literal["slicer", "slicer+repair", "sequence", "sequence+repair"] = param(
        default="sequence", doc="what decides the bits"
    )
    threshold: float = param(
        default=0.5, at_least=0.0, at_most=1.0,
        doc="least normalised correlation with the preamble",
    )  # fmt: skip
    likeness: float = param(
        default=0.45, at_least=0.0, at_most=1.0,
        doc="least squared correlation of the data with the best bits",
    )  # fmt: skip
    looked_at: int = param(
        default=56,
        at_least=2,
        at_most=56,
        unit="bits",
        doc="bits that `likeness` looks at: at a quarter of them first, then at all",
    )
    rounds: int = param(
        default=2, at_least=1, unit="rounds", doc="rounds of fitting and deciding (sequence)"
    )

    def check(self) -> None:
        if self.rate_hz and self.rate_hz not in RATES:
            raise ParameterError(f"rate_hz = {self.rate_hz:g} Hz{_KNOWN}")

    def start(self) -> None:
        rate_hz = rate_of(self, self.rate_hz)
        if rate_hz not in RATES:
            raise RunError(f"{self.name}: the stream has {rate_hz:g} Hz{_KNOWN}")
        self._rate = RATES[rate_hz]
        self._model = mode_s_detection.model_of(self._rate)
        self._detect = self._chosen()
        window = self._model.preamble.shape[1]
        self._scratch = np.empty((self._rate.phases + 4, _BLOCK + window), np.float32)
        self._weights = np.empty(self._model.known.shape[1])
        self._means = np.empty(self._model.designs.shape[1:3])
        #: Samples from a place to the end of what is looked at, if it begins one later.
        self._reach = int(self._model.ends.max()) + 2
        #: Samples to look at, and one before: none is there at the start of a stream.
        self._samples = np.zeros(1, np.float32)
        self._first = 0  # number of the first of them
        self._held: list[Candidates] = []  # the answer to the newest frame, if there was one
        # Kernels are loaded, or compiled, now: the first message of a live stream must not wait.
        ramp = np.arange(self._reach + 1, dtype=np.float32)
        self._places(ramp, 1)
        self._decide(ramp, np.array([self._rate.phases]))

    def _chosen(self) -> mode_s_bits.BitDetector:
        kind, _, repaired = self.bit_detector.partition("+")
        detector: mode_s_bits.BitDetector
        if kind == "slicer":
            detector = mode_s_bits.Slicer(self._model)
        else:
            detector = mode_s_bits.Sequence(self._model, self._rate.tries, self.rounds)
        return mode_s_bits.Repair(detector) if repaired else detector

    def process(
        self, magnitude: Float32[Array, "time"], info: FrameInfo = _AT_ZERO
    ) -> list[Candidates]:
        if not self._held:
            self._first = info.sample - 1
        self._samples = np.concatenate([self._samples, magnitude])
        answers = self._held
        self._held = [self._look(len(self._samples))]
        return answers

    def finish(self) -> list[Candidates]:
        if not self._held:
            return []
        end = len(self._samples)
        self._samples = np.concatenate([self._samples, np.zeros(self._reach, np.float32)])
        pairs = zip(self._held[0], self._look(end), strict=True)
        self._held = []
        return [Candidates(*(np.concatenate(pair) for pair in pairs))]

    def state(self) -> Mapping[str, Array | Scalar]:
        held = self._held[0] if self._held else _EMPTY
        return {
            "samples": self._samples, "first": self._first, "begun": bool(self._held),
            **held._asdict(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._samples, self._first = np.array(state["samples"]), int(state["first"])
        held = Candidates(*(np.array(state[name]) for name in Candidates._fields))
        self._held = [held] if state["begun"] else []

    def _look(self, end: int) -> Candidates:
        """Candidates at the places whose samples are all there, but those that reach past `end`."""
        y, count = self._samples, len(self._samples) - self._reach
        if count <= 0:
            return _EMPTY
        places, scores = self._places(y, count)
        first, chip = self._first, self._model.chip
        self._samples, self._first = y[count:].copy(), first + count
        if places.size == 0:
            return _EMPTY
        decided, level, ends = self._decide(y, places)
        begin = np.repeat(first + places / self._rate.phases - 0.5 * chip, len(self._detect.tries))
        scores = np.repeat(scores, len(self._detect.tries))
        keep = (ends <= end) & np.isfinite(level) & np.isfinite(decided.llr).all(axis=1)
        whole = Candidates(decided.bits, decided.sizes, begin, scores, level, decided.llr)
        return Candidates(*(array[keep] for array in whole))

    def _decide(self, y: Array, places: Array) -> tuple[mode_s_bits.Decided, Array, Array]:
        """Bits, levels and ends of messages at places, all tries of one after another."""
        tries, in_a_sample = self._detect.tries, self._rate.phases
        tried = (places[:, None] + np.array(tries)).ravel()
        starts, phases = _split(tried, in_a_sample)
        decided = self._detect(y, starts, phases)
        level = np.empty(len(tried), np.float32)
        middle = _split(np.repeat(places, len(tries)), in_a_sample)
        chips = mode_s_bits.chips_of(y, *middle, self._model)
        mode_s_bits.levels(chips, decided.bits, decided.sizes, level)
        return decided, level, starts + self._model.ends[phases, 1 * (decided.sizes == LONG)]

    def _places(self, y: Array, count: int) -> tuple[Array, Array]:
        """Where messages may begin, counted in phases, at samples 1 ... count; and the scores."""
        model, window = self._model, self._model.preamble.shape[1]
        scores = np.empty(count + 2, np.float32)
        for at in range(0, count + 2, _BLOCK):
            score = scores[at : at + _BLOCK]
            mode_s_detection.correlate(
                y[at : at + score.size + window - 1], model, score, self._scratch
            )
        found, phases = np.empty(count, np.int64), np.empty(count, np.uint8)
        n_found = mode_s_detection.screen(
            y, scores, self.threshold, self.likeness, int(2 * self.looked_at * model.chip), model,
            self._weights, self._means, found, phases,
        )  # fmt: skip
        found, phases = found[:n_found], phases[:n_found]
        return found * self._rate.phases + phases, scores[found]
