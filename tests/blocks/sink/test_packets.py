import json

import numpy as np
import pytest
from packet_air import address

from blocks.decoder.ax25 import Ax25
from blocks.sink.packets import Packets, type_of
from pipeline.errors import ParameterError
from pipeline.frame import FrameInfo, StreamInfo

HEADS = {
    name: address("CQ", 0, False) + address(name, ssid, True)
    for name, ssid in (("DL1ABC", 7), ("OH2AGS", 0))
}
PACKETS = [
    HEADS["DL1ABC"] + b"\x03\xf0>hello\r",
    HEADS["OH2AGS"] + b"\x03\xf0\x01\x02\xff",
    HEADS["DL1ABC"] + b"\x3f",
    bytes(20),
]


def frame_of(packets):
    rows = np.zeros((len(packets), 64), np.uint8)
    for row, packet in zip(rows, packets, strict=True):
        row[: len(packet)] = list(packet)
    lengths = np.array([len(packet) for packet in packets], np.int32)
    found = Ax25().process(rows, lengths)._asdict()
    samples = 48_000.0 * np.arange(1, len(packets) + 1)
    return {
        "packet_bytes": rows, "packet_length": lengths, "packet_sample": samples,
        "hdlc_frames": np.array([[4, 1, 2, 3], [3, 0, 0, 1]], np.int32), **found,
    }  # fmt: skip


def sink_of(frames, **values):
    sink = Packets(**values)
    sink.start()
    sink.open("main", StreamInfo(rate_hz=48_000.0, epoch_utc_ns=1_500_000_000_000_000_000))
    for frame in frames:
        sink.process(**frame, info=FrameInfo())
    return sink


def test_packets_are_counted_by_sender_and_frames_by_lane():
    assert sink_of([frame_of(PACKETS), frame_of(PACKETS[:1])]).report(None) == {
        "packets": 4, "stations": 2, "refused": 1, "from_DL1ABC-7": 3, "from_OH2AGS": 1,
        "frames_good": [8, 6], "frames_bad_fcs": [2, 0], "frames_aborted": [4, 0],
        "frames_bad_length": [6, 2],
    }  # fmt: skip


def test_lines_of_json_say_what_the_packets_say(tmp_path):
    sink_of([frame_of(PACKETS)], path=str(tmp_path / "lines")).finish()
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    common = {"stream": "main", "destination": "CQ", "path": []}
    assert lines == [
        {
            **common, "sample": 48_000.0, "time": 1_500_000_001.0, "source": "DL1ABC-7",
            "type": "UI", "control": 3, "pid": 240, "info": "3E68656C6C6F0D", "text": ">hello\r",
        },
        {
            **common, "sample": 96_000.0, "time": 1_500_000_002.0, "source": "OH2AGS",
            "type": "UI", "control": 3, "pid": 240, "info": "0102FF",
        },
        {
            **common, "sample": 144_000.0, "time": 1_500_000_003.0, "source": "DL1ABC-7",
            "type": "SABM", "control": 63, "info": "", "text": "",
        },
    ]  # fmt: skip


def test_types_are_those_of_the_tables_of_the_protocol():
    names = {0x00: "I", 0x54: "I", 0x01: "RR", 0x25: "RNR", 0x09: "REJ", 0x13: "UI", 0x73: "UA",
             0x53: "DISC", 0x1F: "DM", 0x97: "FRMR", 0xFF: "?"}  # fmt: skip
    assert {control: type_of(control) for control in names} == names


def test_a_file_in_the_way_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "lines"
    path.write_text("mine")
    with pytest.raises(ParameterError, match="exists; give another path, or set overwrite"):
        Packets(path=str(path))
    sink_of([frame_of(PACKETS)], path=str(path), overwrite=True).finish()
    assert len(path.read_text().splitlines()) == 3
    with pytest.raises(ParameterError, match="is a folder"):
        Packets(path=str(tmp_path))
    with pytest.raises(ParameterError, match="no file can be made in the folder"):
        Packets(path=str(tmp_path / "none" / "lines"))
