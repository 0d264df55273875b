"""Mode S messages in the binary form of the Mode-S Beast, for other decoders."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int16, UInt8

from blocks.formats import mode_s
from blocks.kernels.mode_s import Candidate
from blocks.sink.feed import Feed
from pipeline.frame import Array

ESCAPE = b"\x1a"
KINDS = {7: b"2", 14: b"3"}  # by the bytes of the message


class Beast(Feed, name="sink.beast"):
    """For each message an escape, a kind, 6 bytes of time, 1 of level, and its own bytes.

    The escape is 1A hexadecimal, doubled wherever it comes in what follows the kind; the kind is
    "2" for 56 bits, "3" for 112. The clock runs at 12 MHz and begins with the stream. The level is
    the mean amplitude of the pulses, 255 at the full scale of the receiver (samples of 1), at least
    1; it is 0 where the stream has no levels. dump1090 takes it at its port 30004. What feeds share
    is told in sink/feed.py.

    messages          (message, 14)  uint8
    message_bits      (message)      int16, 56 or 112
    message_time      (message)      float64 [s]
    candidate_status  (candidate)    uint8, which candidates became the messages
    candidate_level   (candidate)    float32, if something writes it
    """

    def process(
        self,
        messages: UInt8[Array, "message byte"],
        message_bits: Int16[Array, "message"],
        message_time: Float64[Array, "message"],
        candidate_status: UInt8[Array, "candidate"],
        candidate_level: Float32[Array, "candidate"] | None = None,
    ) -> None:
        levels = np.zeros(len(messages), np.uint8)
        if candidate_level is not None:
            of_messages = candidate_level[candidate_status == Candidate.MESSAGE]
            levels = np.clip(np.rint(255.0 * of_messages), 1, 255).astype(np.uint8)
        rows = zip(
            mode_s.ticks(message_time),
            levels.tolist(),
            mode_s.contents(messages, message_bits),
            strict=True,
        )
        self.send([
            ESCAPE + KINDS[len(content)]
            + (at.to_bytes(6, "big") + bytes([level]) + content).replace(ESCAPE, 2 * ESCAPE)
            for at, level, content in rows
        ])  # fmt: skip
