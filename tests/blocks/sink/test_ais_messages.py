import numpy as np
import pytest

from blocks.decoder.ais import Ais
from blocks.formats import ais
from blocks.sink.ais_messages import AisMessages
from blocks.sink.error_rate import wilson
from pipeline.frame import FrameInfo, StreamInfo

pytest.importorskip("pyais", reason="needs pyais: pip install 'kalvit[dev]'")

SHIP = ais.position_report(211_000_001, 54.0, 10.0, speed=5.0)
YACHT = ais.class_b_report(211_000_002, 54.1, 10.1)
NAME = ais.class_b_name(211_000_002, "A YACHT")
OTHER = bytes([30 << 2, *range(20)])


def columns(packets):
    contents = np.zeros((len(packets), 53), np.uint8)
    for row, (packet, _) in zip(contents, packets, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    lengths = np.array([len(packet) for packet, _ in packets], np.int32)
    return contents, lengths, np.array([float(sample) for _, sample in packets])


def frame(found, sent=None, clear=()):
    """What the sink reads of packets (bytes, sample) that were found, and were sent."""
    block = Ais(rate_hz=48e3)
    block.start()
    contents, lengths, samples = columns(found)
    fields = block.process(contents, lengths, samples)._asdict()
    fields |= {"packet_bytes": contents, "packet_length": lengths, "packet_sample": samples}
    if sent is not None:
        names = ("sent_packet_bytes", "sent_packet_length", "sent_packet_sample")
        fields |= dict(zip(names, columns(sent), strict=True))
        fields["sent_packet_clear"] = np.array(clear, np.uint8)
    return {name: fields[name] for name in AisMessages.signature().reads if name in fields}


def sink_of(*frames):
    sink = AisMessages()
    sink.start()
    sink.open("main", StreamInfo())
    for one in frames:
        sink.process(**one, info=FrameInfo())
    return sink


def test_counts_are_those_of_a_list_made_by_hand(tmp_path):
    sink = sink_of(frame([(SHIP, 100), (YACHT, 1400)]), frame([(NAME, 2700), (OTHER, 4000)]))
    assert sink.report(tmp_path) == {
        "messages": 3, "stations": 2, "positions": 2, "other_packets": 1, "type_1": 1,
        "type_18": 1, "type_24": 1, "picture": "positions.png",
    }  # fmt: skip
    assert (tmp_path / "positions.png").stat().st_size > 1000


def test_packets_count_as_received_where_they_were_sent_and_only_once():
    sent = [(SHIP, 100), (YACHT, 1400), (SHIP, 3000), (NAME, 4000), (YACHT, 5000)]
    sink = sink_of(
        frame([], sent[:3], [1, 1, 1]),
        frame([(SHIP, 100.4), (YACHT, 1700.0)], sent[3:], [0, 0]),
        frame([(SHIP, 100.4), (YACHT, 4999.0)], [], []),
    )
    found = sink.report(None)
    assert found["sent_packets"] == 3
    assert found["packet_error_rate"] == pytest.approx(2 / 3)
    assert found["ci95"] == list(wilson(2, 3))
    assert (found["overlapped_packets"], found["overlapped_received"]) == (2, 1)
    assert found["false_packets"] == 2
