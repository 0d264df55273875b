import socket

import numpy as np
import pytest

from blocks.formats import ais, nmea
from blocks.sink.nmea import Nmea
from pipeline.errors import ParameterError, RunError

MESSAGES = [
    ais.position_report(211_000_001, 54.0, 10.0),
    ais.voyage(211_000_001, name="ONE"),
    ais.voyage(211_000_002, name="TWO"),
]
OTHER = bytes([30 << 2, *range(20)])  # of a type that is none


def feed(sink, *packets):
    contents = np.zeros((len(packets), 53), np.uint8)
    for row, packet in zip(contents, packets, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    sink.process(contents, np.array([len(packet) for packet in packets], np.int32))


def expected():
    one, two, three = MESSAGES
    lines = [*nmea.sentences(one), *nmea.sentences(two, number=0), *nmea.sentences(three, number=1)]
    return [line.encode() + b"\r\n" for line in lines]


def test_sentences_go_into_the_file_and_into_the_folder_of_the_run(tmp_path):
    sink = Nmea(path=str(tmp_path / "ships.nmea"))
    sink.start()
    feed(sink, MESSAGES[0], OTHER)
    feed(sink, *MESSAGES[1:])
    sink.finish()
    assert sink.report(tmp_path) == {"messages": 3, "sentences": 5, "file": "sentences.nmea"}
    for name in ("ships.nmea", "sentences.nmea"):
        assert (tmp_path / name).read_bytes() == b"".join(expected())


def test_each_sentence_is_a_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as chart:
        chart.bind(("127.0.0.1", 0))
        chart.settimeout(5.0)
        sink = Nmea(udp=f"127.0.0.1:{chart.getsockname()[1]}")
        sink.start()
        feed(sink, *MESSAGES)
        assert [chart.recv(200) for _ in range(5)] == expected()
        sink.finish()
    assert sink.report(None) == {"messages": 3, "sentences": 5, "undelivered": 0}


def test_a_chart_program_that_is_not_there_does_not_stop_the_flow():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    sink = Nmea(udp=f"127.0.0.1:{port}")
    sink.start()
    for _ in range(3):
        feed(sink, *MESSAGES)
    assert sink.report(None)["messages"] == 9
    sink.finish()


@pytest.mark.parametrize("udp", ["127.0.0.1", "10110", "host:port", "host:0", "host:70000"])
def test_an_address_that_is_none_is_refused(udp):
    with pytest.raises(ParameterError, match=r'sink.nmea: udp = .*; expected "host:port"'):
        Nmea(udp=udp)


def test_a_host_that_is_not_known_is_told_on_start():
    sink = Nmea(udp="no such host.invalid:10110")
    with pytest.raises(RunError, match=r"sink.nmea: udp = 'no such host.invalid:10110': "):
        sink.start()


def test_a_file_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "ships.nmea"
    path.write_text("old")
    with pytest.raises(ParameterError, match="exists; give another path, or set overwrite = true"):
        Nmea(path=str(path))
