"""Bits of bursts of GMSK, as AIS sends them, found in complex samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float64, UInt8

from blocks import fields
from blocks.kernels import gmsk, gmsk_detection, hdlc
from blocks.rate import rate_of
from pipeline.block import Block, FrameInfo, param
from pipeline.errors import RunError
from pipeline.frame import Array, Scalar

TRAINING = 24  # symbols: ITU-R M.1371-5, annex 2, 3.2.2.3
KNOWN = TRAINING + len(hdlc.FLAG)
USED = slice(2, KNOWN - 1)  # known symbols whose neighbours are known, too
LEAST = 2.5  # samples per symbol
FINE = 5.0  # least samples per symbol that bursts are looked for at
EDGE, STOP = 0.85, 1.65  # of the channel, per symbol
SLICER_EDGE, SLICER_STOP = 0.365, 0.78  # of the slicer's filter: best by bench/ais_curve.py
SLOT = 288  # symbols that are looked at first; most bursts are not longer
APART = 16  # symbols between the beginnings of bursts
REACH = 12  # points around a peak of the score at which a burst may begin
TURNED, TURNS = 0.4, 21  # turns per symbol that are tried around the one of the score [rad]
_BLOCK = 4096  # scores computed at once: few enough to stay in the cache of a core


class Decided(NamedTuple):
    """What the detector adds."""

    line_bits: Annotated[UInt8[Array, "lane bit"], fields.LINE_BITS]
    bit_sample: Annotated[Float64[Array, "lane bit"], fields.BIT_SAMPLE]


_AT_ZERO = FrameInfo()
_EMPTY = Decided(np.empty((1, 0), np.uint8), np.empty((1, 0)))


def _beginnings() -> Array:
    """The levels (2, KNOWN) that a burst may begin with: the training, then a flag.

    The bits of the training alternate and may begin with either; all levels may be inverted.
    """
    levels = np.empty((2, KNOWN), np.uint8)
    for first in (0, 1):
        training = (np.arange(TRAINING) + first) % 2
        hdlc.to_line(
            np.concatenate([training, hdlc.FLAG]).astype(np.uint8), False, True, levels[first]
        )
    return 2 * levels.astype(np.int8) - 1


class _Room(NamedTuple):
    """Scratch for bursts of N symbols; see kernels/gmsk_detection.py."""

    points: Array
    sums: Array
    metrics: Array
    survivors: Array
    phases: Array
    along: Array

    @classmethod
    def for_symbols(cls, count: int) -> _Room:
        """Room for bursts of so many symbols."""
        return cls(
            points=np.empty((count, gmsk.POINTS), np.complex64),
            sums=np.empty((count, gmsk.BRANCHES), np.complex64),
            metrics=np.empty((count, gmsk.BRANCHES), np.float32),
            survivors=np.empty((count, gmsk.STATES), np.uint8),
            phases=np.empty(count),
            along=np.empty(count, np.complex64),
        )


class Gmsk(Block, name="detector.gmsk"):
    """The bits of bursts: a training sequence, a flag of HDLC, and what follows.

    Murota and Hirade, IEEE Trans. Commun. 29(7), 1981; bursts as in ITU-R M.1371. A burst begins
    where the signal turns as in the training sequence and the flag, whatever the offset of its
    carrier; time, frequency and phase are then fitted to these 32 symbols. What follows is decided
    by one of two detectors, until the signal fades:

    slicer    an FM receiver: a filter, and which way the signal turns in the middle of a symbol
    sequence  the Viterbi algorithm on the phase trellis (8 states), coherent: it decides some
              symbols, fits the phase to all that is decided, and so on; then all once more

    The phase of GMSK carries what its frequency does in neighbouring symbols too, so that coherent
    sequences come close to the bound of antipodal signals; an FM receiver needs 6 dB more
    (bench/AIS.md).

    Bursts come one after another in one lane, in the order of their beginnings, each with the
    training and the flag in front, and may overlap in time. Each comes in the frame in which a
    burst of `longest` bits would be complete, at the end of the stream in its last frame; to know
    which that is, the detector answers a frame when the next one comes.

    samples    (time) complex64; where it is not finite, nothing is found
    line_bits  (1, bit) uint8, bit_sample (1, bit) float64

    Raises RunError, on start, where the sample rate is not known or too low.
    """

    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as the stream says"
    )
    centre_hz: float = param(
        default=0.0, unit="Hz", doc="where the middle of the channel is in the samples"
    )
    bit_detector: Literal["slicer", "sequence"] = param(
        default="sequence", doc="what decides the bits"
    )
    symbol_rate_hz: float = param(default=9600.0, above=0.0, unit="Hz", doc="symbols per second")
    bandwidth: float = param(
        default=0.4, at_least=0.2, at_most=1.0, doc="of the Gaussian filter, per symbol"
    )
    threshold: float = param(
        default=0.5, above=0.0, at_most=1.0,
        doc="least normalised correlation with the beginning of a burst",
    )  # fmt: skip
    likeness: float = param(
        default=0.72, at_least=0.0, at_most=1.0,
        doc="least coherence of the beginning of a burst with what is known of it",
    )  # fmt: skip
    longest: int = param(
        default=1280, at_least=64, unit="symbols", doc="longest burst after its first flag"
    )

    def start(self) -> None:
        rate_hz = rate_of(self, self.rate_hz)
        per_symbol = rate_hz / self.symbol_rate_hz
        if per_symbol < LEAST:
            raise RunError(
                f"{self.name}: {rate_hz:g} Hz are {per_symbol:.3g} samples per symbol; expected at "
                f"least {LEAST:g}"
            )
        self._turns = self.centre_hz / rate_hz
        self._hop = hop = max(1, int(per_symbol / FINE))
        self._step = step = per_symbol / hop  # thinned samples per symbol
        self._channel = gmsk_detection.low_pass(per_symbol, EDGE, STOP)
        self._narrow = gmsk_detection.low_pass(gmsk.POINTS, SLICER_EDGE, SLICER_STOP)
        self._weights = gmsk_detection.interpolation()
        pulse = gmsk.phase_pulse(self.bandwidth)
        levels = _beginnings()
        #: Of each kind of beginning: its levels, and the waveforms of those symbols that are used.
        self._levels = np.stack([levels, -levels], axis=1).reshape(-1, KNOWN)
        self._waveforms = np.array([
            gmsk.waveform(np.append(known, 0), pulse)[USED] for known in self._levels
        ]).astype(np.complex64)  # fmt: skip
        self._branches = gmsk.branch_waveforms(pulse)
        self._lag = lag = round(step)
        length = int((KNOWN - 1.5) * step) - lag
        places = np.arange(length + lag) / step + 0.5
        angles = np.array([gmsk.phases(known, places, pulse) for known in levels])
        self._known = np.exp(1j * (angles[:, lag:] - angles[:, :-lag])).astype(np.complex64)
        self._apart = math.ceil(APART * step)
        #: Thinned samples before and after a place that must be there.
        self._before = self._apart + gmsk_detection.TAPS
        self._reach = (
            math.ceil((KNOWN + self.longest + 4) * step) + self._apart + gmsk_detection.TAPS
        )
        self._scratch = np.empty((8, _BLOCK + length), np.float32)
        self._room = room = _Room.for_symbols(KNOWN + self.longest)
        used = self._waveforms.shape[1]
        self._fitted = np.empty(gmsk.POINTS * used + 2 * REACH, np.complex64)
        self._sums = np.empty(used, np.complex64)
        self._filtered = np.empty(room.points.size, np.complex64)
        self._path, self._next_path = np.empty((2, gmsk.STATES), np.float32)
        # Kernels are loaded, or compiled, now: the first burst of a live stream must not wait.
        self._clear()
        self._take(np.zeros(self._hop * (self._reach + 1), np.complex64), 0)
        self._look()
        self._burst(self._thinned, 0, 0)
        self._decide(self._thinned, 0.0, 0.0, 0.0, self._levels[0], KNOWN + 1)
        self._clear()

    def _clear(self) -> None:
        half = self._channel.size // 2
        self._samples = np.zeros(half, np.complex64)  # not thinned yet
        self._thinned = np.zeros(self._before, np.complex64)
        self._first = 0  # number of the sample at the first place that is not looked at yet
        self._held: list[Decided] = []  # the answer to the newest frame, if there was one

    def process(
        self, samples: Complex64[Array, "time"], info: FrameInfo = _AT_ZERO
    ) -> list[Decided]:
        if not self._held:
            self._first = info.sample
        self._take(samples, info.sample)
        answers = self._held
        self._held = [self._look()]
        return answers

    def finish(self) -> list[Decided]:
        if not self._held:
            return []
        after = self._channel.size // 2 + self._hop * self._reach
        self._take(np.zeros(after, np.complex64), 0)
        pairs = zip(self._held[0], self._look(), strict=True)
        self._held = []
        return [Decided(*(np.concatenate(pair, axis=1) for pair in pairs))]

    def state(self) -> Mapping[str, Array | Scalar]:
        held = self._held[0] if self._held else _EMPTY
        return {
            "samples": self._samples, "thinned": self._thinned, "first": self._first,
            "begun": bool(self._held), **held._asdict(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._samples, self._thinned = np.array(state["samples"]), np.array(state["thinned"])
        self._first = int(state["first"])
        held = Decided(*(np.array(state[name]) for name in Decided._fields))
        self._held = [held] if state["begun"] else []

    def _take(self, samples: Array, first: int) -> None:
        """Thin these samples, with those that are left from before."""
        if self._turns:
            turned = np.empty_like(samples)
            gmsk_detection.turn_back(samples.copy(), first, self._turns, turned)
            samples = turned
        self._samples = np.concatenate([self._samples, samples])
        count = max(0, (len(self._samples) - self._channel.size) // self._hop + 1)
        thinned = np.empty(count, np.complex64)
        gmsk_detection.thin(self._samples, self._channel, self._hop, thinned)
        self._samples = self._samples[count * self._hop :].copy()
        self._thinned = np.concatenate([self._thinned, thinned])

    def _look(self) -> Decided:
        """Bits of the bursts that begin at the places of which all is there."""
        y = self._thinned
        count = len(y) - self._before - self._reach
        if count <= 0:
            return _EMPTY
        found, kinds = self._places(y[self._before - self._apart :], count)
        bursts = [
            self._burst(y[place:], self._first + place * self._hop, kind)
            for place, kind in zip(found.tolist(), kinds.tolist(), strict=True)
        ]
        self._thinned = y[count:].copy()
        self._first += count * self._hop
        return Decided(
            *(np.concatenate(parts, axis=1) for parts in zip(_EMPTY, *bursts, strict=True))
        )

    def _places(self, y: Array, count: int) -> tuple[Array, Array]:
        """Where bursts may begin among the first places after `_apart`, and of which kind."""
        total, length = count + 2 * self._apart, self._known.shape[1]
        scores, kinds = np.empty(total, np.float32), np.empty(total, np.int64)
        for at in range(0, total, _BLOCK):
            part = scores[at : at + _BLOCK]
            gmsk_detection.correlate(
                y[at : at + part.size + length + self._lag], self._lag, self._known, self._scratch,
                part, kinds[at : at + _BLOCK],
            )  # fmt: skip
        found = np.empty(count, np.int64)
        found = found[: gmsk_detection.peaks(scores, self.threshold, self._apart, found)]
        return found, kinds[self._apart + found]

    def _burst(self, y: Array, sample: int, kind: int) -> Decided:
        """The bits of the burst whose first symbol ends at about this sample, which is y[before].

        Places count from there, not from the start of what is at hand: else they would be rounded
        otherwise with other cuts.
        """
        place, step, first = self._before, self._step, USED.start
        known = self._known[kind // 2]
        guess = gmsk_detection.mean_turn(y, place, self._lag, known, kind % 2 == 1)
        guess *= step / self._lag
        kind, start, turn, phase, likeness = gmsk_detection.fit(
            y, place + (first - 0.5) * step, step, self._waveforms, REACH, self._weights,
            guess + TURNED * np.linspace(-1.0, 1.0, TURNS), self._fitted, self._sums,
        )  # fmt: skip
        if not likeness >= self.likeness:
            return _EMPTY
        start -= first * step
        phase -= first * turn
        most = len(self._room.phases)
        for size in (min(SLOT, most), most):
            bits, count = self._decide(y, start, turn, phase, self._levels[kind], size)
            if count < size:
                break
        samples = sample + (start - place + np.arange(count) * step) * self._hop
        return Decided(bits[None, :count], samples[None])

    def _decide(
        self, y: Array, start: float, turn: float, phase: float, levels: Array, size: int
    ) -> tuple[Array, int]:
        """Bits of a burst, at most `size` of them, and how many there are until it fades."""
        room = _Room(*(array[:size] for array in self._room))
        edge = 0.5 * (gmsk.POINTS - 1) / gmsk.POINTS  # from the first point to the middle
        gmsk_detection.resample(
            y, start - edge * self._step, self._step / gmsk.POINTS, turn / gmsk.POINTS,
            self._weights, room.points.reshape(-1),
        )  # fmt: skip
        bits = np.empty(size, np.uint8)
        if self.bit_detector == "slicer":
            bits[:KNOWN] = levels > 0
            count = gmsk_detection.slice_turns(
                room.points, KNOWN, self._narrow, self._filtered, bits
            )
        else:
            bits[:KNOWN] = np.cumprod(levels) > 0
            gmsk_detection.branch_sums(room.points, self._branches, room.sums)
            count = gmsk_detection.sequence(
                room.sums, bits, KNOWN, phase - edge * turn, room.metrics, room.survivors,
                self._path, self._next_path, room.phases, room.along,
            )  # fmt: skip
            bits[1:] = bits[1:] == bits[:-1]
        return bits, count
