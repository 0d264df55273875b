"""Packets of HDLC, found in the bits of a line."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int16, Int32, UInt8

from blocks import fields
from blocks.kernels import hdlc
from pipeline.block import Block, param
from pipeline.errors import FieldError, ParameterError
from pipeline.frame import Array, Scalar

KEPT = 16  # packets remembered, for lanes to be compared with; more than can overlap in time


class Packets(NamedTuple):
    """What the decoder adds."""

    packet_bytes: Annotated[UInt8[Array, "packet byte"], fields.PACKET_BYTES]
    packet_length: Annotated[Int32[Array, "packet"], fields.PACKET_LENGTH]
    packet_sample: Annotated[Float64[Array, "packet"], fields.PACKET_SAMPLE]
    packet_lane: Annotated[Int16[Array, "packet"], fields.PACKET_LANE]
    hdlc_frames: Annotated[Int32[Array, "lane outcome"], fields.HDLC_FRAMES]


class Hdlc(Block, name="decoder.hdlc"):
    """The packets between the flags of a line, those whose check is right.

    ISO/IEC 13239, with the frame check sequence of 16 bits (kernels/hdlc.py). Random bits pass it
    with a probability of 2^-16 per frame and lane, so the lengths should be as narrow as the
    packets allow, and what reads them should look at their shape.

    Lanes are several decisions on the same signal. A packet that comes in more than one counts
    once, from the lane where it ended first: the same bytes at times of which more than half is
    common. Packets come in the order in which they end, and, if each frame holds the bits of all
    lanes up to one time, they do not depend on how the stream is cut.

    line_bits      (lane, bit)     uint8, 0 or 1; 255: none
    bit_sample     (lane, bit)     float64
    packet_bytes   (packet, byte)  uint8, byte = longest; zeros past the length
    hdlc_frames    (lane, outcome) int32, by kernels/hdlc.Outcome: good, wrong check, aborted, no
                                   whole bytes or too long; repeats in other lanes are counted, too

    Raises FieldError where the number of lanes changes within a stream.
    """

    scrambler: Literal["none", "g3ruh"] = param(
        default="none", doc="what scrambles the line: nothing, or 1 + x^12 + x^17"
    )
    nrzi: bool = param(default=True, doc="a 0 is sent as a change, a 1 as none")
    shortest: int = param(
        default=9, at_least=1, unit="bytes", doc="shortest packet, without its check"
    )
    longest: int = param(
        default=1024, at_least=1, unit="bytes", doc="longest packet, without its check"
    )

    def check(self) -> None:
        if self.longest < self.shortest:
            raise ParameterError(
                f"longest = {self.longest} bytes, but shortest = {self.shortest} bytes; expected "
                "it to be at least as long"
            )

    def start(self) -> None:
        self._state = hdlc.state_of(0, self.longest)  # lanes are there when bits are
        #: Packets of late: where they begin and end, and their bytes.
        self._recent: deque[tuple[float, float, bytes]] = deque(maxlen=KEPT)

    def process(
        self,
        line_bits: UInt8[Array, "lane bit"],
        bit_sample: Float64[Array, "lane bit"],
    ) -> Packets:
        lanes, count = line_bits.shape
        if not self._state.line.size:
            self._state = hdlc.state_of(lanes, self.longest)
        if lanes != self._state.line.size:
            raise FieldError(
                f"{self.name}: 'line_bits' have {lanes} lanes, but had {self._state.line.size}; "
                "expected as many in all frames of a stream"
            )
        frames = np.zeros((lanes, len(hdlc.Outcome)), np.int32)
        found = hdlc.room_for(lanes, count, self.shortest, self.longest)
        # copies: kernels compile once for arrays that may be written, and fields may not
        n_found = hdlc.receive(
            line_bits.copy(), bit_sample.copy(), self.scrambler == "g3ruh", self.nrzi,
            self.shortest, self._state, frames, found,
        )  # fmt: skip
        order = np.lexsort((found.lanes[:n_found], found.spans[:n_found, 1]))
        rows = [row for row in order.tolist() if self._is_new(found, row)]
        return Packets(
            packet_bytes=found.contents[rows],
            packet_length=found.lengths[rows],
            packet_sample=found.spans[rows, 0],
            packet_lane=found.lanes[rows],
            hdlc_frames=frames,
        )

    def _is_new(self, found: hdlc.Found, row: int) -> bool:
        """Whether no other lane had this packet; it is remembered then."""
        first, last = found.spans[row].tolist()
        packet = found.contents[row, : found.lengths[row]].tobytes()
        for begin, end, other in self._recent:
            common = min(last, end) - max(first, begin)
            if packet == other and common > 0.5 * (last - first):
                return False
        self._recent.append((first, last, packet))
        return True

    def state(self) -> Mapping[str, Array | Scalar]:
        spans = [(first, last, len(packet)) for first, last, packet in self._recent]
        packets = b"".join(packet for _, _, packet in self._recent)
        return {
            **{name: array.copy() for name, array in self._state._asdict().items()},
            "recent_spans": np.array(spans, float).reshape(-1, 3),
            "recent_bytes": np.frombuffer(packets, np.uint8),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._state = hdlc.State(*(np.array(state[name]) for name in hdlc.State._fields))
        packets, at = state["recent_bytes"].tobytes(), 0
        self._recent.clear()
        for first, last, length in state["recent_spans"].tolist():
            self._recent.append((first, last, packets[at : at + int(length)]))
            at += int(length)
