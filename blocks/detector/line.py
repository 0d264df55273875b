"""What detectors of lines with two levels share: rates, stretches, lanes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from blocks import fields
from blocks.kernels import line_bits
from blocks.kernels.line_bits import Lane
from blocks.rate import rate_of
from pipeline.block import Block, FrameInfo, param
from pipeline.errors import RunError
from pipeline.frame import Array, Scalar

STRETCH = 64  # blocks that are decided at once
SPAN = 2.0  # bits that a filter reaches to each side
FEWEST = 3.0  # samples per bit
NONE = 255


class Bits(NamedTuple):
    """What a detector adds."""

    line_bits: Annotated[UInt8[Array, "lane bit"], fields.LINE_BITS]
    bit_sample: Annotated[Float64[Array, "lane bit"], fields.BIT_SAMPLE]


_AT_ZERO = FrameInfo()


def _joined(parts: list[Bits]) -> Bits:
    return Bits(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


class LineDetector(Block):
    """Decides the bits of a real signal in stretches of a fixed length, in several lanes.

    Stretches are counted from the start of the stream, and what is decided depends on nothing but
    the samples around it, so that it does not depend on how the stream is cut. The detector
    answers a frame when the next one comes, so that the last frame of a stream has all the rest.
    """

    baud: float
    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as the stream says"
    )
    bit_detector: Literal["slicer", "sequence"] = param(
        default="sequence", doc="what decides the bits"
    )
    memory: int = param(
        default=3, at_least=0, at_most=8, unit="bits",
        doc="bits before the newest that the fitted response reaches back to (sequence); 0: "
        "nothing but a filter is fitted",
    )  # fmt: skip

    #: Ways to decide; those of the slicer are the same without rounds.
    lanes: ClassVar[tuple[Lane, ...]]

    @abstractmethod
    def _heard(self, samples: Array) -> tuple[list[Array], Array]:
        """For each lane the signal (T,) that is sliced, and what filters see, (F, T)."""

    def start(self) -> None:
        rate_hz = rate_of(self, self.rate_hz)
        self._spacing = rate_hz / self.baud
        if self._spacing < FEWEST:
            raise RunError(
                f"{self.name}: {rate_hz:g} samples per second are too few for {self.baud:g} baud; "
                f"expected at least {FEWEST * self.baud:g}"
            )
        self._rate_hz = rate_hz
        self._decider = line_bits.LineBits(self._spacing, self.memory, SPAN)
        self._ways = self.lanes
        if self.bit_detector == "slicer":
            self._ways = tuple(lane._replace(rounds=0) for lane in self.lanes)
        self._blocks = max(line_bits.reach_of(lane) for lane in self._ways)  # to both sides
        #: Samples from so far before the stretch that is decided next.
        self._samples = np.zeros(self._blocks * self._decider.size, np.float32)
        self._place = 0  # of that stretch, from the start of the stream
        self._first = 0  # number of the first sample of the stream
        self._held: list[Bits] = []  # the answer to the newest frame, if there was one
        # Kernels are loaded, or compiled, now: the first bits of a live stream must not wait.
        silence = np.zeros((1, 3 * self._decider.size))
        self._decider.decide(silence[0], silence, 0, Lane(1, 1, 1), 1, 2)

    @property
    def _whole(self) -> int:
        """Samples that a stretch is decided by."""
        return (STRETCH + 2 * self._blocks) * self._decider.size

    def process(self, samples: Float32[Array, "time"], info: FrameInfo = _AT_ZERO) -> list[Bits]:
        if not self._held:
            self._first = info.sample
        # what is no number is silence, and what no audio reaches is cut off: squares stay finite
        finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0).clip(-1e9, 1e9)
        self._samples = np.concatenate([self._samples, finite])
        answers = self._held
        self._held = [self._look()]
        return answers

    def finish(self) -> list[Bits]:
        if not self._held:
            return []
        size, reach = self._decider.size, self._blocks * self._decider.size
        end = self._place + self._samples.size - reach
        missing = -(-(end - self._place) // (STRETCH * size)) * STRETCH * size - end + self._place
        self._samples = np.concatenate([self._samples, np.zeros(missing + reach, np.float32)])
        rest = self._look()
        beyond = ~(rest.bit_sample < self._first + end)
        rest.line_bits[beyond] = NONE
        rest.bit_sample[beyond] = np.nan
        held, self._held = self._held[0], []
        return [_joined([held, rest])]

    def state(self) -> Mapping[str, Array | Scalar]:
        bits, times = self._held[0] if self._held else self._none()
        return {
            "samples": self._samples, "place": self._place, "first": self._first,
            "begun": bool(self._held), "bits": bits, "times": times,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._samples = np.array(state["samples"])
        self._place, self._first = int(state["place"]), int(state["first"])
        held = Bits(np.array(state["bits"]), np.array(state["times"]))
        self._held = [held] if state["begun"] else []

    def _none(self) -> Bits:
        lanes = len(self._ways)
        return Bits(np.empty((lanes, 0), np.uint8), np.empty((lanes, 0)))

    def _look(self) -> Bits:
        """The bits of all stretches whose samples are all there."""
        parts, at = [self._none()], 0
        while at + self._whole <= self._samples.size:
            parts.append(self._decide(self._samples[at : at + self._whole]))
            at += STRETCH * self._decider.size
            self._place += STRETCH * self._decider.size
        self._samples = self._samples[at:].copy()
        return _joined(parts)

    def _decide(self, samples: Array) -> Bits:
        """The bits of one stretch."""
        place = self._place - self._blocks * self._decider.size
        signals, features = self._heard(samples.astype(np.float64))
        found = [
            self._decider.decide(
                signal, features, place, lane, self._blocks, self._blocks + STRETCH
            )
            for signal, lane in zip(signals, self._ways, strict=True)
        ]
        most = max(bits.size for bits, _ in found)
        out = Bits(np.full((len(found), most), NONE, np.uint8), np.full((len(found), most), np.nan))
        for lane, (bits, times) in enumerate(found):
            out.line_bits[lane, : bits.size] = bits
            out.bit_sample[lane, : bits.size] = self._first + times
        return out
