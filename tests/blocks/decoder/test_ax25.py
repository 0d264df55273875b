import numpy as np
import pytest
from packet_air import address, packets_of

from blocks.decoder.ax25 import Ax25, parse

TO, FROM = address("APRS", 0, False), address("DL1ABC", 7, False)
END = bytes([FROM[-1] | 1])
HEAD = TO + FROM[:-1] + END


def text(characters):
    return characters.tobytes().rstrip(b"\0").decode()


def decoded(*packets):
    rows = np.zeros((len(packets), 400), np.uint8)
    for row, packet in zip(rows, packets, strict=True):
        row[: len(packet)] = list(packet)
    return Ax25().process(rows, np.array([len(p) for p in packets], np.int32))


def test_a_packet_written_down_by_hand_is_read():
    relays = [address("WIDE1", 1, False), address("DB0ABC", 15, True)]
    relays[0] = relays[0][:-1] + bytes([relays[0][-1] | 0x80])  # has been repeated
    command = TO[:-1] + bytes([TO[-1] | 0x80])
    packet = command + FROM + relays[0] + relays[1] + b"\x03\xf0>hello"
    found = decoded(packet, HEAD + b"\x03\xf0", HEAD + b"\x3f")
    assert found.packet_valid.tolist() == [1, 1, 1]
    assert text(found.packet_destination[0]) == "APRS"
    assert text(found.packet_source[0]) == "DL1ABC-7"
    assert [text(row) for row in found.packet_digipeaters[0, :3]] == ["WIDE1-1", "DB0ABC-15", ""]
    assert found.packet_repeated[0].tolist() == [1, 0, -1, -1, -1, -1, -1, -1]
    assert found.packet_command.tolist() == [1, -1, -1]
    assert found.packet_control.tolist() == [0x03, 0x03, 0x3F]
    assert found.packet_pid.tolist() == [0xF0, 0xF0, -1]
    assert found.packet_info.tolist() == [30, 16, 15]
    assert packet[30:] == b">hello"


def test_eight_digipeaters_are_read_and_nine_are_no_packet():
    for count, valid in ((8, True), (9, False)):
        relays = b"".join(address(f"R{n}", n, n == count - 1) for n in range(count))
        found = parse(TO + FROM + relays + b"\x03\xf0")
        assert (found is not None) == valid
        if found:
            assert found.digipeaters == ("R0", *(f"R{n}-{n}" for n in range(1, 8)))


@pytest.mark.parametrize(
    "packet",
    [
        b"", HEAD, HEAD[:-1], HEAD + b"\x03", HEAD + b"\x00",  # too short
        TO[:-1] + END + b"\x03\xf0" + bytes(20),  # one address
        b"\x83" + HEAD[1:] + b"\x03\xf0",  # an address that ends inside a callsign
        bytes(6) + HEAD[6:] + b"\x03\xf0",  # what does not print
        b"\x40" * 6 + HEAD[6:] + b"\x03\xf0",  # a blank callsign
    ],
)  # fmt: skip
def test_what_is_no_packet_is_not_valid(packet):
    assert parse(packet) is None
    found = decoded(packet)
    assert found.packet_valid.tolist() == [0]
    assert not found.packet_source.any()


def test_random_bytes_have_no_addresses():
    rng = np.random.default_rng(1)
    found = decoded(*(rng.bytes(30) for _ in range(20_000)))
    assert found.packet_valid.sum() == 0


def test_packets_are_read_as_another_library_reads_them():
    ax25 = pytest.importorskip("ax25", reason="needs pyham-ax25: pip install 'kalvit[dev]'")
    if not hasattr(ax25, "Frame"):
        pytest.skip("needs pyham-ax25, but another package named ax25 is installed")
    rng = np.random.default_rng(2)
    for packet in packets_of(rng, 100):
        theirs, ours = ax25.Frame.unpack(packet), parse(packet)
        assert str(theirs.src) == ours.source
        assert str(theirs.dst) == ours.destination
        assert theirs.pid == ours.pid
        assert theirs.data == packet[ours.info :]
