"""What came of AIS: counts, packet errors, a picture of positions."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, UInt8, UInt32

from blocks.formats import ais
from blocks.sink import positions
from blocks.sink.error_rate import wilson
from pipeline.block import Sink
from pipeline.frame import Array, FrameInfo, Scalar

DRAWN = 20_000  # positions in the picture, the last ones
NEAR = 100.0  # samples between where a packet was sent and where it was found
WAITING = 4096  # packets that may wait for being decoded; older ones are lost


class AisMessages(Sink, name="sink.ais_messages"):
    """Counts of AIS messages, stations and positions, and where the ships were.

    messages is how many packets were messages, type_1, type_5 ... how many of each type; stations
    is how many numbers (MMSI) sent them; positions is how many were told; other_packets is how many
    were no messages.

    Where the simulator tells what was sent, a packet counts as received if the same bytes were
    found within 100 samples of its place. sent_packets are those with nothing else on the air
    meanwhile, packet_error_rate is the share of them that was not received, with its 95 % interval
    (Wilson); overlapped_packets and overlapped_received count the others; false_packets were
    received but not sent. Read it at the end: until then packets are on their way.

    The picture shows the last 20,000 positions, coloured by speed.
    """

    def start(self) -> None:
        self._types = np.zeros(ais.MOST_TYPES + 1, np.int64)
        self._stations: set[int] = set()
        self._positions = 0
        self._names: dict[int, str] = {}
        self._trail: deque[tuple[int, float, float, float]] = deque(maxlen=DRAWN)
        self._counts = np.zeros((2, 2), np.int64)  # overlapped or clear; sent, received
        self._told = self._false = 0  # frames with truth; packets
        #: Per stream, packets that were sent and not received: sample, bytes, whether clear.
        self._waiting: dict[str, list[tuple[float, bytes, int]]] = {}

    def process(
        self,
        packet_bytes: UInt8[Array, "packet byte"],
        packet_length: Int32[Array, "packet"],
        packet_sample: Float64[Array, "packet"],
        message_type: UInt8[Array, "packet"],
        mmsi: UInt32[Array, "packet"],
        latitude: Float64[Array, "packet"],
        longitude: Float64[Array, "packet"],
        ground_speed: Float64[Array, "packet"],
        ship_name: UInt8[Array, "packet letter"],
        sent_packet_bytes: UInt8[Array, "sent_packet sent_byte"] | None = None,
        sent_packet_length: Int32[Array, "sent_packet"] | None = None,
        sent_packet_sample: Float64[Array, "sent_packet"] | None = None,
        sent_packet_clear: UInt8[Array, "sent_packet"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        self._types += np.bincount(message_type, minlength=self._types.size)
        self._stations.update(mmsi[message_type > 0].tolist())
        for row in np.flatnonzero(ship_name[:, 0]).tolist():
            self._names[int(mmsi[row])] = ship_name[row].tobytes().decode("ascii").strip("\0 ")
        told = np.isfinite(latitude) & np.isfinite(longitude)
        self._positions += int(told.sum())
        columns = (mmsi, latitude, longitude, ground_speed)
        self._trail.extend(zip(*(column[told].tolist() for column in columns), strict=True))
        if (
            sent_packet_bytes is None or sent_packet_length is None
            or sent_packet_sample is None or sent_packet_clear is None
        ):  # fmt: skip
            return
        self._told += 1
        waiting = self._waiting.setdefault(info.stream, [])
        waiting += zip(
            sent_packet_sample.tolist(), _packets(sent_packet_bytes, sent_packet_length),
            sent_packet_clear.tolist(), strict=True,
        )  # fmt: skip
        self._counts[:, 0] += np.bincount(sent_packet_clear, minlength=2)
        packets = _packets(packet_bytes, packet_length)
        for sample, packet in zip(packet_sample.tolist(), packets, strict=True):
            for k, (place, content, clear) in enumerate(waiting):
                if content == packet and abs(place - sample) < NEAR:
                    self._counts[clear, 1] += 1
                    del waiting[k]
                    break
            else:
                self._false += 1
        del waiting[:-WAITING]

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "messages": int(self._types[1:].sum()),
            "stations": len(self._stations),
            "positions": self._positions,
            "other_packets": int(self._types[0]),
        }
        found |= {f"type_{t}": int(self._types[t]) for t in np.flatnonzero(self._types) if t}
        if self._told:
            (overlapped, overlapped_received), (sent, received) = self._counts.tolist()
            found |= {
                "sent_packets": sent,
                "packet_error_rate": (sent - received) / sent if sent else 0.0,
                "ci95": list(wilson(sent - received, sent)),
                "overlapped_packets": overlapped,
                "overlapped_received": overlapped_received,
                "false_packets": self._false,
            }
        if folder is not None and self._trail:
            positions.draw(
                folder / "positions.png",
                np.array(self._trail),
                self._label,
                "speed [kt]",
                "stations",
            )
            found["picture"] = "positions.png"
        return found

    def _label(self, mmsi: int) -> str:
        return self._names.get(mmsi, str(mmsi))

    def state(self) -> Mapping[str, Array | Scalar]:
        notes = {
            "names": list(self._names.items()),
            "waiting": {
                stream: [(place, content.hex(), clear) for place, content, clear in packets]
                for stream, packets in self._waiting.items()
            },
        }
        return {
            "types": self._types.copy(),
            "stations": np.array(sorted(self._stations), np.uint32),
            "positions": self._positions,
            "trail": np.array(self._trail, float).reshape(-1, 4),
            "counts": self._counts.copy(),
            "told": self._told,
            "false": self._false,
            "notes": json.dumps(notes),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._types = np.array(state["types"])
        self._stations = set(state["stations"].tolist())
        self._positions, self._told = int(state["positions"]), int(state["told"])
        self._false = int(state["false"])
        self._trail = deque(map(tuple, state["trail"].tolist()), maxlen=DRAWN)
        self._counts = np.array(state["counts"])
        notes = json.loads(state["notes"])
        self._names = dict(notes["names"])
        self._waiting = {
            stream: [(place, bytes.fromhex(content), clear) for place, content, clear in packets]
            for stream, packets in notes["waiting"].items()
        }


def _packets(contents: Array, lengths: Array) -> list[bytes]:
    return [row[:n].tobytes() for row, n in zip(contents, lengths.tolist(), strict=True)]
