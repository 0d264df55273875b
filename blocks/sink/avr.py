"""Mode S messages as lines of AVR text, for other decoders."""

from __future__ import annotations

from jaxtyping import Float64, Int16, UInt8

from blocks.formats import mode_s
from blocks.sink.feed import Feed
from pipeline.block import param
from pipeline.frame import Array


class Avr(Feed, name="sink.avr"):
    """A line for each message: `*`, its digits, `;`, as dump1090 takes at its port 30001.

    With `timed` it is `@`, 12 hexadecimal digits of a clock of 12 MHz that begins with the stream,
    the digits, `;`. What feeds share is told in sink/feed.py.

    messages      (message, 14)  uint8
    message_bits  (message)      int16, 56 or 112
    message_time  (message)      float64 [s]
    """

    timed: bool = param(default=False, doc="tell the time of each message")

    def process(
        self,
        messages: UInt8[Array, "message byte"],
        message_bits: Int16[Array, "message"],
        message_time: Float64[Array, "message"],
    ) -> None:
        heads = [f"@{at:012X}" if self.timed else "*" for at in mode_s.ticks(message_time)]
        contents = mode_s.contents(messages, message_bits)
        self.send([
            f"{head}{content.hex().upper()};\n".encode()
            for head, content in zip(heads, contents, strict=True)
        ])  # fmt: skip
