"""Mutation fuzzing of the wire codec: valid messages, damaged, must give frames or a FrameError.

    python tests/fuzz_wire.py --count 900000 --seed 2

Damages bytes, lengths, descriptions and the number and length of parts; half of the messages get
their CRCs made right again, so that the checks behind the CRC are reached. What is accepted
must come back the same after another trip over the wire. Prints how many messages were accepted
and refused, by which check.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import msgpack
import numpy as np
import psutil

from pipeline.errors import FrameError
from pipeline.frame import DTYPES, Frame, Kind
from pipeline.wire import CHECKS, PART_LIMIT, Codec

BEHIND_CRC = CHECKS[CHECKS.index("crc") + 1 :]
SLOWEST_S = 0.2  # CPU time that one message may take; whole garbage collections included
GROWTH = 16 << 20  # bytes of resident memory that the codec may gain once its caches are full

Message = list[bytes]

_ODD = [
    None, True, -1, 0, 13, 255, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), "",
    "x" * 65, "a\nb", "é" * 33, "../up", "samples", b"bytes", [], {}, [[[]]], {"a": {}}, {"": 1},
    {"a b": 1}, {"m": None}, {"m": []}, ["y", 9, 3], ["y", 9, -1], ["y", 9, 2**62, 4], ["y", 99, 1],
    ["y", 9, 1, 1, 1, 1, 1], ["y", 9, 2**40, 0], ["y", 9], ["y"], [["y", 9, 1]] * 65,
    msgpack.ExtType(5, b"z"), msgpack.Timestamp(1, 1),
]  # fmt: skip


@dataclass
class Tally:
    """What became of the messages."""

    count: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    growth: int = 0

    @property
    def behind_crc(self) -> int:
        """Messages refused by a check that only a right CRC lets them reach."""
        return sum(self.refused[check] for check in BEHIND_CRC)

    def __str__(self) -> str:
        lines = [f"{self.count} messages: {self.accepted} accepted, refused by"]
        lines += [f"  {check:<12}{self.refused[check]:>9}" for check in CHECKS]
        share = self.behind_crc / max(self.count, 1)
        lines.append(f"  behind the CRC {100 * share:.1f} % of all")
        lines.append(
            f"slowest message {1e3 * self.slowest_s:.1f} ms of CPU time, resident memory grew by "
            f"{self.growth / 2**20:.1f} MiB"
        )
        return "\n".join(lines)


def corpus(rng: np.random.Generator) -> list[Message]:
    """Valid messages of all sorts: dtypes, shapes, kinds, marks, shared and large ones."""
    frames = []
    for number, name in enumerate(DTYPES):
        for shape in ((), (0,), (5,), (2, 3), (3, 0, 2), (1, 2, 3, 4)):
            count = int(np.prod(shape))
            raw = rng.integers(0, 2, count * np.dtype(name).itemsize, dtype=np.uint8)
            fields = {"samples": raw.view(name).reshape(shape)}
            if number % 3 == 0:
                fields["sent"] = rng.integers(-1, 2, 7).astype(np.int8)
                fields["posterior"] = rng.random((7, 4), dtype=np.float32)
            marks: dict[str, Any] = {"detector.version": number, "locked": True, "snr_db": 8.5}
            frames.append(
                Frame(
                    Kind(number % len(Kind)), f"stream{number % 4}", number, 100 * number,
                    10**12 + number, fields, marks if number % 2 else {},
                )
            )  # fmt: skip
    frames.append(Frame(Kind.END, "main", 9, 0, 0, {}, {"frames": 8}))
    hyper = {"hyper": '{"n_states": 16, "hidden": 64}', "name": "state_likelihood", "version": 3}
    layers = {f"net.{k}.weight": rng.random((8, 4)) for k in range(40)}
    frames.append(Frame(Kind.WEIGHTS, "trainer", 3, 0, 5, layers, hyper))
    large = Frame(
        Kind.DATA, "main", 4, 5, 6,
        {"samples": rng.random(PART_LIMIT // 8 + 1), "sent": np.ones(16, np.int8),
         "found": np.empty((0, 8), np.uint8), "good": np.ones(3, bool)}, {"gain": 2.0},
    )  # fmt: skip
    codec = Codec()
    messages = [_parts(codec, frame) for frame in frames]
    for _ in range(20):
        chosen = rng.integers(0, len(frames), int(rng.integers(2, 6)))
        messages.append([b"".join(_parts(codec, frames[k])[0] for k in chosen)])
    for _ in range(8):
        messages.append(_parts(codec, large))
    return messages


def _parts(codec: Codec, frame: Frame) -> Message:
    """The parts of a message with this frame alone."""
    pieces = codec.encode(frame)
    if not codec.is_large(frame):
        return [b"".join(pieces)]
    return [piece if isinstance(piece, bytes) else piece.tobytes() for piece in pieces]


def fuzz(count: int, seed: int) -> Tally:
    """Decode `count` damaged messages; AssertionError or another exception is a defect."""
    rng = np.random.default_rng(seed)
    messages = corpus(rng)
    codec, other = Codec(), Codec()
    tally = Tally()
    process = psutil.Process()
    settled = process.memory_info().rss
    warm_up = count // 5  # caches fill
    block = 1000
    for first in range(0, count, block):
        draws = rng.integers(0, 2**62, (min(block, count - first), 12)).tolist()
        for draw in draws:
            message = _damaged(messages, draw)
            begin = time.thread_time()
            try:
                frames = codec.decode(message[0], message[1:])
            except FrameError as error:
                tally.refused[_named_check(error)] += 1
                frames = []
            else:
                tally.accepted += 1
            tally.slowest_s = max(tally.slowest_s, time.thread_time() - begin)
            for frame in frames:
                _check_trip(other, frame)
            tally.count += 1
        if first <= warm_up:
            settled = process.memory_info().rss
    tally.growth = process.memory_info().rss - settled
    return tally


def _named_check(error: FrameError) -> str:
    assert error.check in CHECKS, error.check
    assert len(str(error)) < 500, str(error)
    return error.check


def _check_trip(codec: Codec, frame: Frame) -> None:
    """What was accepted is a proper frame: it survives the wire unchanged."""
    pieces = _parts(codec, frame)
    (again,) = codec.decode(pieces[0], pieces[1:])
    assert same(frame, again), (frame, again)


def same(one: Frame, other: Frame) -> bool:
    """Whether two frames are equal to the bit, types of the marks included."""
    return (
        one[:5] == other[:5]
        and list(one.fields) == list(other.fields)
        and all(
            a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            for a, b in zip(one.fields.values(), other.fields.values(), strict=True)
        )
        and _plain(one.marks) == _plain(other.marks)
    )


def _plain(marks: Any) -> list[tuple[str, type, Any]]:
    return [
        (name, type(value), struct.pack("<d", value) if isinstance(value, float) else value)
        for name, value in marks.items()
    ]


def _damaged(messages: Sequence[Message], draw: Sequence[int]) -> Message:
    """A valid message with one sort of damage, chosen by the numbers drawn."""
    message = list(messages[draw[0] % len(messages)])
    first = bytearray(message[0])
    sort = draw[1] % 10
    if sort == 0:  # bytes of the first header
        for k in range(draw[2] % 3 + 1):
            first[draw[3 + k] % 48] = (draw[6 + k] >> 8) & 255
    elif sort == 1:  # bytes anywhere
        for k in range(draw[2] % 4 + 1):
            first[draw[3 + k] % len(first)] = (draw[7 + k] >> 8) & 255
    elif sort == 2:  # one bit of the first description
        length = int.from_bytes(first[32:36], "little")
        first[48 + draw[2] % length] ^= 1 << (draw[3] % 8)
    elif sort in (3, 4):  # a description that says something else
        first = _redescribed(first, draw)
    elif sort == 5:  # the lengths in the header
        at, size = ((32, 4), (36, 8))[draw[2] % 2]
        value = int.from_bytes(first[at : at + size], "little")
        changes = (16, -16, 1, value, -value, draw[4] % 4096, draw[4] << draw[5] % 10)
        changed = (value + changes[draw[3] % 7]) % (1 << 8 * size)
        first[at : at + size] = changed.to_bytes(size, "little")
    elif sort == 6:  # cut or lengthened
        cut = draw[3] % (len(first) + 1)
        first = (first[:cut], first[cut:], first + bytes(draw[3] % 80), first + first[:cut])[
            draw[2] % 4
        ]
    elif sort == 7:  # spliced with another message
        other = messages[draw[2] % len(messages)][0]
        cut, there = draw[3] % (len(first) // 16 + 1) * 16, draw[4] % (len(other) // 16 + 1) * 16
        first = first[:cut] + other[there:]
    if sort >= 8 or (len(message) > 1 and draw[2] % 2):  # parts: number and length
        message = _reparted(message, draw)
    if draw[11] % 2:
        _mend(first)
    return [bytes(first), *message[1:]]


def _redescribed(first: bytearray, draw: Sequence[int]) -> bytearray:
    length = int.from_bytes(first[32:36], "little")
    described = msgpack.unpackb(first[48 : 48 + length])
    odd = _ODD[draw[3] % len(_ODD)]
    fields = described[2]
    field_ = fields[draw[4] % len(fields)] if fields else []
    where = draw[5] % 8
    if where < 3:
        described[where] = odd
    elif where == 3:
        described[1][f"m{draw[6] % 3}"] = odd
    elif where == 4:
        fields.append(odd)
    elif where == 5 and field_:
        field_[draw[6] % len(field_)] = odd
    elif where == 6:
        field_.append(draw[6] % 5)
    else:
        described = (described[:2], [*described, odd], odd)[draw[6] % 3]
    text = msgpack.packb(described)
    body = first[48 + (length + 15) // 16 * 16 :]
    head = first[:32] + len(text).to_bytes(4, "little") + first[36:48]
    return head + text + bytes(-len(text) % 16) + body


def _reparted(message: Message, draw: Sequence[int]) -> Message:
    rest = message[1:]
    at = draw[6] % (len(rest) + 1)
    sort = draw[7] % 6
    if sort == 0:
        rest = rest[:at]
    elif sort == 1:
        rest.insert(at, bytes(draw[8] % 64))
    elif sort == 2:
        rest.reverse()
    elif sort == 3 and at < len(rest):
        rest[at] = rest[at][: draw[8] % (len(rest[at]) + 1)]
    elif sort == 4 and at < len(rest):
        rest[at] += bytes(draw[8] % 64)
    elif at < len(rest) and rest[at]:
        damaged = bytearray(rest[at])
        damaged[draw[8] % len(damaged)] = draw[9] & 255
        rest[at] = bytes(damaged)
    return [message[0], *rest]


def _mend(first: bytearray) -> None:
    """Make the CRCs right again, as far as the frames of this part can be followed."""
    at = 0
    while len(first) - at >= 48:
        length = int.from_bytes(first[at + 32 : at + 36], "little")
        crc = crc32(first[at : at + 44], crc32(first[at + 48 : at + 48 + length]))
        first[at + 44 : at + 48] = crc.to_bytes(4, "little")
        buffers = 0 if first[at + 7] else int.from_bytes(first[at + 36 : at + 44], "little")
        at += 48 + (length + 15) // 16 * 16 + buffers


def main() -> None:
    """Fuzz, print the tally, and fail if the codec took too long or kept memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="messages")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tally = fuzz(arguments.count, arguments.seed)
    print(tally)
    assert tally.slowest_s < SLOWEST_S, "a message took too long"
    assert tally.growth < GROWTH, "memory grew"


if __name__ == "__main__":
    main()
