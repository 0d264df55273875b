"""AIS bursts on the air, and which packets come out of them; for tests and bench."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blocks.decoder.hdlc import Hdlc
from blocks.detector.gmsk import Gmsk
from blocks.source.ais_traffic import AisTraffic, Heard
from pipeline.block import Context, make
from pipeline.frame import FrameInfo

RATE_HZ = 48e3


class Packet(NamedTuple):
    """What a packet holds, and the middle of its first bit."""

    content: bytes
    sample: float


def traffic(seed=0, **values):
    """What `source.ais_traffic` sends with these parameters, all frames put together."""
    block = make(AisTraffic, values, Context("air", "main", seed))
    block.start()
    frames = []
    while (frame := block.process()) is not None:
        frames.append(frame)
    return Heard(*(np.concatenate(arrays) for arrays in zip(*frames, strict=True)))


def sent(air, is_clear=True):
    """The packets of traffic: of those that nothing overlaps, or of all."""
    return [
        Packet(content[:length].tobytes(), sample)
        for content, length, sample, clear in zip(
            air.sent_packet_bytes, air.sent_packet_length, air.sent_packet_sample,
            air.sent_packet_clear, strict=True,
        )
        if clear or not is_clear
    ]  # fmt: skip


def detect(samples, lengths=(4800,), first=0, rate_hz=RATE_HZ, **values):
    """The bits that the detector finds in samples, cut into frames of these lengths, in turn."""
    block = Gmsk(rate_hz=rate_hz, **values)
    block.start()
    results, at, k = [], 0, 0
    while at < samples.size:
        length = lengths[k % len(lengths)]
        results += block.process(samples[at : at + length], FrameInfo(sample=first + at))
        at, k = at + length, k + 1
    results += block.finish()
    assert len(results) == k
    return results


def packets(results):
    """The packets in what the detector found."""
    block = Hdlc(longest=168)
    block.start()
    found = []
    for result in results:
        out = block.process(result.line_bits, result.bit_sample)
        found += [
            Packet(content[:length].tobytes(), sample)
            for content, length, sample in zip(
                out.packet_bytes, out.packet_length, out.packet_sample, strict=True
            )
        ]
    return found


def received(wanted, found, near=5.0):
    """Of each packet that is wanted whether it was found, at most so many samples away."""
    by_content = {}
    for content, sample in found:
        by_content.setdefault(content, []).append(sample)
    return np.array([
        any(abs(sample - other) <= near for other in by_content.get(content, []))
        for content, sample in wanted
    ])  # fmt: skip
