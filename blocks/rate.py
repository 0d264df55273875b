"""The sample rate that a block goes by."""

from __future__ import annotations

from pipeline.block import Block
from pipeline.errors import RunError


def rate_of(block: Block, rate_hz: float) -> float:
    """Samples per second of the stream: as it says itself, or this parameter of the block [Hz].

    Raises RunError where neither tells it, or where they contradict each other.
    """
    told = block.context.info.rate_hz
    if told and rate_hz and told != rate_hz:
        raise RunError(
            f"{block.name}: rate_hz = {rate_hz:g} Hz, but the stream has {told:g} Hz; leave it out"
        )
    if not (told or rate_hz):
        raise RunError(
            f"{block.name}: the sample rate of stream {block.context.stream} is not known; set "
            "rate_hz, here or at the source"
        )
    return told or rate_hz
