"""What came of packets: counts, and lines of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8, Int16, Int32, UInt8

from blocks.sink.new_file import NewFile
from pipeline.block import Sink, param
from pipeline.frame import Array, FrameInfo, Scalar, StreamInfo

NAMED = 20  # senders in the results
_OUTCOMES = ("good", "bad_fcs", "aborted", "bad_length")  # of hdlc_frames
_SUPERVISORY = ("RR", "RNR", "REJ", "SREJ")
_UNNUMBERED = {
    0x03: "UI", 0x0F: "DM", 0x2F: "SABM", 0x43: "DISC", 0x63: "UA", 0x6F: "SABME", 0x87: "FRMR",
    0xAF: "XID", 0xE3: "TEST",
}  # fmt: skip


class Packets(Sink, name="sink.packets"):
    """Counts of AX.25 packets, in all and by who sent them.

    packets is how many there were, and from_... how many of each of the 20 senders with the most;
    stations is how many senders there were; refused are packets with a right check that are none of
    AX.25. frames_... are the frames of each lane, as decoder.hdlc tells them apart, by lane.

    With `path` each packet becomes a line of JSON: time [s], UTC where the stream says when it
    began, else since its start; path are the digipeaters, with * behind those that have sent the
    packet on; info is the information in hexadecimal digits, text the same where it is text.

    Raises ParameterError, when it is made, if the file of `path` exists or cannot be made.
    """

    path: str = param(default="", doc="file for a line of JSON per packet; empty: none")
    overwrite: bool = param(default=False, doc="replace the file if it is there already")

    _file: NewFile | None = None

    def check(self) -> None:
        if self.path:
            self._file = NewFile(self.name, self.path, self.overwrite)

    def start(self) -> None:
        if self._file is not None:
            self._file.close()
        self._senders: Counter[str] = Counter()
        self._refused = 0
        self._frames = np.zeros((0, len(_OUTCOMES)), np.int64)  # lanes are there when frames are
        self._infos: dict[str, StreamInfo] = {}

    def open(self, stream: str, info: StreamInfo) -> None:
        self._infos[stream] = info

    def process(
        self,
        packet_bytes: UInt8[Array, "packet byte"],
        packet_length: Int32[Array, "packet"],
        packet_sample: Float64[Array, "packet"],
        packet_valid: UInt8[Array, "packet"],
        packet_destination: UInt8[Array, "packet character"],
        packet_source: UInt8[Array, "packet character"],
        packet_digipeaters: UInt8[Array, "packet hop character"],
        packet_repeated: Int8[Array, "packet hop"],
        packet_command: Int8[Array, "packet"],
        packet_control: UInt8[Array, "packet"],
        packet_pid: Int16[Array, "packet"],
        packet_info: Int32[Array, "packet"],
        hdlc_frames: Int32[Array, "lane outcome"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        if hdlc_frames is not None:
            frames = np.zeros((max(len(hdlc_frames), len(self._frames)), len(_OUTCOMES)), np.int64)
            frames[: len(self._frames)] = self._frames
            frames[: len(hdlc_frames)] += hdlc_frames
            self._frames = frames
        self._refused += int((packet_valid == 0).sum())
        for row in np.flatnonzero(packet_valid).tolist():
            source = _text(packet_source[row])
            self._senders[source] += 1
            if self._file is None:
                continue
            content = packet_bytes[row, packet_info[row] : packet_length[row]].tobytes()
            stream = self._infos.get(info.stream, StreamInfo())
            line: dict[str, Any] = {"stream": info.stream, "sample": round(packet_sample[row], 1)}
            if stream.rate_hz:
                since = float(packet_sample[row]) / stream.rate_hz
                line["time"] = round(stream.epoch_utc_ns / 1e9 + since, 6)
            line |= {
                "source": source,
                "destination": _text(packet_destination[row]),
                "path": [
                    _text(digipeater) + "*" * int(repeated)
                    for digipeater, repeated in zip(
                        packet_digipeaters[row], packet_repeated[row], strict=True
                    )
                    if repeated >= 0
                ],
                "type": type_of(int(packet_control[row])),
                "control": int(packet_control[row]),
            }
            if packet_command[row] >= 0:
                line["command"] = bool(packet_command[row])
            if packet_pid[row] >= 0:
                line["pid"] = int(packet_pid[row])
            line["info"] = content.hex().upper()
            text = _readable(content)
            if text is not None:
                line["text"] = text
            self._file.write(json.dumps(line).encode() + b"\n")

    def finish(self) -> list[None]:
        if self._file is not None:
            self._file.close()
        return []

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "packets": self._senders.total(), "stations": len(self._senders),
            "refused": self._refused,
        }  # fmt: skip
        found |= {f"from_{name}": count for name, count in self._senders.most_common(NAMED)}
        found |= {
            f"frames_{outcome}": self._frames[:, k].tolist() for k, outcome in enumerate(_OUTCOMES)
        }
        return found

    def state(self) -> Mapping[str, Array | Scalar]:
        return {
            "senders": json.dumps(self._senders), "refused": self._refused,
            "frames": self._frames.copy(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._senders = Counter(json.loads(state["senders"]))
        self._refused, self._frames = int(state["refused"]), np.array(state["frames"])


def type_of(control: int) -> str:
    """The type of a packet by its control byte, as in AX.25 version 2.2, 4.2 and 4.3."""
    if control & 1 == 0:
        return "I"
    if control & 3 == 1:
        return _SUPERVISORY[control >> 2 & 3]
    return _UNNUMBERED.get(control & 0xEF, "?")


def _text(characters: Array) -> str:
    return characters.tobytes().rstrip(b"\0").decode("ascii")


def _readable(content: bytes) -> str | None:
    """The text of some bytes; None where they are something else. Zeros at the end do not count."""
    try:
        text = content.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\r\n\t" for c in text) else None
