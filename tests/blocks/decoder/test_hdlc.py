import numpy as np
import pytest

from blocks.decoder.hdlc import Hdlc
from blocks.kernels import hdlc
from pipeline.errors import FieldError, ParameterError


def line_of(packets, before=40):
    flag = np.array(hdlc.FLAG, np.uint8)
    parts = [np.tile(flag, before // 8)]
    for packet in packets:
        parts += [hdlc.frame(packet), flag]
    bits = np.concatenate(parts)
    line = np.empty_like(bits)
    hdlc.to_line(bits, False, True, line)
    return line


def packets_of(*results):
    return [
        row[:length].tobytes()
        for result in results
        for row, length in zip(result.packet_bytes, result.packet_length, strict=True)
    ]


def started(**values):
    block = Hdlc(**values)
    block.start()
    return block


PACKETS = [b"the first packet", b"the second packet", b"the second packet"]


def test_a_packet_that_several_lanes_have_counts_once_but_one_that_is_sent_again_twice():
    line = line_of(PACKETS)
    lanes = np.stack([line, line, line])
    lanes[0, 100] ^= 1  # in the first packet
    times = 5.0 * np.arange(line.size) + np.array([[0.0], [1.3], [-0.9]])
    found = started().process(lanes, times)
    assert packets_of(found) == PACKETS
    assert found.packet_lane.tolist() == [2, 2, 2]  # the lane that is ahead
    assert found.packet_sample[0] == 5.0 * 40 - 0.9
    assert found.hdlc_frames.tolist() == [[2, 1, 0, 0], [3, 0, 0, 0], [3, 0, 0, 0]]


def test_lanes_with_fewer_bits_are_filled_up_with_255():
    line = line_of(PACKETS)
    lanes = np.full((2, 2 * line.size), 255, np.uint8)
    lanes[0, 1::2] = lanes[1, ::2] = line
    times = np.where(lanes < 2, np.arange(2 * line.size) // 2, np.nan)
    found = started().process(lanes, times)
    assert packets_of(found) == PACKETS
    assert found.packet_lane.tolist() == [0, 0, 0]  # of lanes that end together the first
    assert found.packet_sample[0] == 40.0


def test_lanes_that_come_and_go_are_refused():
    block = started()
    block.process(np.zeros((2, 9), np.uint8), np.zeros((2, 9)))
    with pytest.raises(FieldError, match="'line_bits' have 3 lanes, but had 2"):
        block.process(np.zeros((3, 9), np.uint8), np.zeros((3, 9)))


def test_lengths_that_contradict_each_other_are_refused():
    with pytest.raises(ParameterError, match="longest = 8 bytes, but shortest = 9 bytes"):
        Hdlc(longest=8)
