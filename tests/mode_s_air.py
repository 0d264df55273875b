"""Mode S messages on the air, and a plain count of those that decode; for tests and bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blocks.detector.mode_s import Candidates, ModeS
from pipeline.frame import FrameInfo

DATA = Path(__file__).parents[2] / "shared" / "data" / "modes"
GENERATOR = 0x1FFF409


def remainder(bits):
    """Remainder of a message on division by the generator of its parity, bit by bit."""
    left = 0
    for bit in bits:
        left = left << 1 | int(bit)
        if left >> 24:
            left ^= GENERATOR
    return left


def digits(number, count):
    return np.array([number >> k & 1 for k in range(count - 1, -1, -1)], np.uint8)


def number(bits):
    return int("".join(map(str, bits)), 2)


def squitter(rng, address=None, size=112):
    """A message of format 17, or 11 if short, with random content and right parity."""
    address = int(rng.integers(1, 1 << 24)) if address is None else address
    head = digits(17 if size == 112 else 11, 5)
    content = rng.integers(0, 2, size - 56, np.uint8)
    data = np.concatenate([head, digits(5, 3), digits(address, 24), content])
    parity = remainder(np.concatenate([data, np.zeros(24, np.uint8)]))
    return np.concatenate([data, digits(parity, 24)])


def chips_of(bits):
    preamble = np.zeros(16)
    preamble[[0, 2, 7, 9]] = 1.0
    return np.concatenate([preamble, np.stack([bits, 1 - bits], axis=1).ravel()])


def envelope(bits, begin, rate_hz, count):
    """Noise-free envelope of a message whose first pulse begins `begin` samples into `count`.

    Pulses of 0.45 us at the top rise within 0.1 us and fall within 0.15 us, and the receiver
    averages over 0.3 us.
    """
    chips = chips_of(bits)
    times = (np.arange(count) - begin) / rate_hz * 1e6  # us from the first pulse
    out = np.zeros(count)
    for part in (np.arange(12) - 5.5) / 12 * 0.3:
        place = times + part
        for earlier in (0, 1):  # a pulse may end in the chip after its own
            k = np.floor(place / 0.5).astype(int) - earlier
            on = np.where((k >= 0) & (k < chips.size), chips[k.clip(0, chips.size - 1)], 0.0)
            since = place - 0.5 * k
            out += on * np.interp(since, [-0.05, 0.05, 0.45, 0.6], [0.0, 1.0, 1.0, 0.0]) / 12
    return out


def received(messages, rate_hz, count, rng, snr_db=30.0):
    """Magnitudes (count,) float32 of messages (bits, begin) of amplitude 1 in complex noise."""
    signal = np.zeros(count, complex)
    for bits, begin in messages:
        first = max(0, int(begin) - 2)
        last = min(count, first + 300)
        phase = np.exp(2j * np.pi * rng.random())
        signal[first:last] += phase * envelope(bits, begin - first, rate_hz, last - first)
    noise = rng.standard_normal(count) + 1j * rng.standard_normal(count)
    return np.abs(signal + noise * np.sqrt(10 ** (-snr_db / 10) / 2)).astype(np.float32)


def detect(magnitude, rate_hz, lengths=(4096,), first=0, **values):
    """All candidates in a stream, cut into frames of these lengths, over and over."""
    block = ModeS(rate_hz=rate_hz, **values)
    block.start()
    results, at, k = [], 0, 0
    while at < magnitude.size:
        length = lengths[k % len(lengths)]
        frame = magnitude[at : at + length]
        results += block.process(frame, FrameInfo(sample=first + at))
        at, k = at + length, k + 1
    results += block.finish()
    assert len(results) == k
    return Candidates(*(np.concatenate(arrays) for arrays in zip(*results, strict=True)))


def recording(name):
    """Magnitudes and rate of a shared recording; None where it is not here."""
    path = DATA / name
    if not path.exists():
        return None
    if path.suffix == ".bin":
        parts, rate_hz = np.fromfile(path, np.uint8).astype(np.float32) - 127.5, 2.0e6
    else:
        parts, rate_hz = np.fromfile(path, "<i2").astype(np.float32), 2.4e6
    return np.hypot(parts[0::2], parts[1::2]), rate_hz


def strict(found, rate_hz, known=()):
    """Messages that decode beyond doubt: a list of (sample, kind, address).

    Formats 17 and 18 of right parity; format 11 of right parity, or of an address known before and
    the one interrogator code that comes most often, and more than once; others whose parity is
    overlaid with an address known before. A message blocks those that share more than a fifth of
    their samples with it.

    known    addresses taken for known from the start
    """
    known, accepted, end = set(known), [], -np.inf
    for bits, size, sample in zip(
        found.candidates, found.candidate_bits, found.candidate_sample, strict=True
    ):
        kind = number(bits[:5])
        if size != (112 if kind >= 16 else 56) or kind not in (0, 4, 5, 11, 16, 17, 18, 20, 21):
            continue
        left, address = remainder(bits[:size]), number(bits[8:32])
        length = (8 + size) * rate_hz / 1e6
        if sample < end - 0.2 * length:
            continue
        if kind in (17, 18, 11) and left == 0:
            known.add(address)
        elif kind == 11 and left < 80 and address in known:
            kind = f"11 to {left}"
        elif kind not in (11, 17, 18) and left in known:
            address = left
        else:
            continue
        accepted.append((sample, kind, address))
        end = sample + length
    asked = [kind for _, kind, _ in accepted if isinstance(kind, str)]
    usual = max(set(asked), key=asked.count, default=None)
    usual = usual if asked.count(usual) > 1 else None
    return [one for one in accepted if not isinstance(one[1], str) or one[1] == usual]
