import binascii

import numpy as np
import pytest

from blocks.kernels import hdlc

REVERSED = np.array([int(f"{n:08b}"[::-1], 2) for n in range(256)], np.uint8)


def check_of(packet):
    """The check by the CRC of the standard library, whose bits run the other way round."""
    value = binascii.crc_hqx(REVERSED[np.frombuffer(packet, np.uint8)].tobytes(), 0xFFFF)
    return int(f"{value:016b}"[::-1], 2) ^ 0xFFFF


def text_of(packet):
    """The bits of a frame with its flags, as text."""
    content = packet + check_of(packet).to_bytes(2, "little")
    plain = "".join(f"{byte:08b}"[::-1] for byte in content)
    return "01111110" + plain.replace("11111", "111110") + "01111110"


def bits_of(text):
    return np.array([int(bit) for bit in text], np.uint8)


def received(bits, shortest=1, longest=64, cut=None, **line):
    """Packets, and counts by outcome, of one lane of bits."""
    state, counts = hdlc.state_of(1, longest), np.zeros((1, 4), np.int64)
    packets, at = [], 0
    values = {"scrambled": False, "nrzi": False, **line}
    for part in np.split(bits, cut or []):
        found = hdlc.room_for(1, part.size, shortest, longest)
        samples = np.arange(at, at + part.size)[None].astype(float)
        at += part.size
        n_found = hdlc.receive(
            part[None].copy(), samples, values["scrambled"], values["nrzi"], shortest, state,
            counts, found,
        )  # fmt: skip
        for k in range(n_found):
            assert not found.contents[k, found.lengths[k] :].any()
            packets.append(found.contents[k, : found.lengths[k]].tobytes())
    return packets, counts[0].tolist()


def some_packets(count, seed=1):
    rng = np.random.default_rng(seed)
    packets = [rng.bytes(int(rng.integers(1, 60))) for _ in range(count)]
    return [*packets, b"\xff" * 40, b"\x00" * 9, b"\x7e" * 9, b"\x1f\xf8" * 9]


def test_the_check_is_that_of_the_catalogues_of_crcs():
    packet = b"123456789"
    assert hdlc.register_after(np.frombuffer(packet, np.uint8), 9) ^ 0xFFFF == 0x906E
    for packet in some_packets(50):
        register = hdlc.register_after(np.frombuffer(packet, np.uint8), len(packet))
        assert register ^ 0xFFFF == check_of(packet)


def test_frames_are_stuffed_as_text_replacement_does_it():
    for packet in some_packets(200):
        frame = "".join(map(str, hdlc.frame(packet)))
        assert f"01111110{frame}01111110" == text_of(packet)


@pytest.mark.parametrize("nrzi", [False, True])
@pytest.mark.parametrize("scrambled", [False, True])
def test_what_is_sent_is_received_and_polarity_matters_without_nrzi_only(scrambled, nrzi):
    packets = some_packets(100)
    bits = bits_of("".join(map(text_of, packets)))
    line = np.empty_like(bits)
    warm_up = bits_of("01111110" * 5)  # a receiver must see 17 bits to undo the scrambler
    bits = np.concatenate([warm_up, bits])
    line = np.empty_like(bits)
    hdlc.to_line(bits, scrambled, nrzi, line)
    assert received(line, scrambled=scrambled, nrzi=nrzi) == (packets, [len(packets), 0, 0, 0])
    turned, _ = received(1 - line, scrambled=scrambled, nrzi=nrzi)
    assert (turned == packets) == nrzi


def test_scrambled_bits_follow_their_polynomial():
    sent = np.random.default_rng(2).integers(0, 2, 500, np.uint8)
    line = np.empty_like(sent)
    hdlc.to_line(sent, True, False, line)
    assert (line[:12] == sent[:12]).all()
    np.testing.assert_array_equal(line[17:] ^ line[5:-12] ^ line[:-17], sent[17:])


def test_flags_may_share_a_bit_or_a_whole_flag_and_idle_ones_stand_between():
    a, b = b"first packet", b"second packet"
    inner_a, inner_b = text_of(a)[8:-8], text_of(b)[8:-8]
    flag = "01111110"
    one = flag + inner_a + flag + inner_b + flag
    shared = flag[:-1] + flag + inner_a + flag[:-1] + flag + inner_b + flag
    idle = flag + inner_a + flag + "1" * 30 + flag * 3 + inner_b + flag + "1" * 9
    for text in (one, shared, idle):
        assert received(bits_of(text)) == ([a, b], [2, 0, 0, 0])


def test_outcomes_are_counted():
    packet = b"0123456789"
    inner = text_of(packet)[8:-8]
    flag, wrong = "01111110", "0" if inner[40] == "1" else "1"
    damaged = inner[:40] + wrong + inner[41:]
    aborted = inner[:-6] + "11111111"
    cases = {
        flag + damaged + flag: [0, 1, 0, 0],
        flag + aborted + flag: [0, 0, 1, 0],
        flag + inner + "0" + flag: [0, 0, 0, 1],
        flag + inner[:32] + flag: [0, 0, 0, 0],  # shorter than the shortest
        inner + flag: [0, 0, 0, 0],  # nothing before it
        flag + "0" * 8 * 63 + flag: [0, 0, 0, 1],
    }
    for text, counts in cases.items():
        found = received(bits_of(text), shortest=8, longest=60)
        assert found == ([], counts), text


def test_the_longest_and_the_shortest_packet_pass_and_others_do_not():
    for length, passes in ((7, False), (8, True), (20, True), (21, False)):
        packet = b"\xff" * length
        packets, _ = received(bits_of(text_of(packet)), shortest=8, longest=20)
        assert packets == [packet] * passes


def test_state_is_carried_over_any_cut():
    packets = some_packets(10)
    bits = bits_of("".join(map(text_of, packets)))
    for cut in ([7], list(range(1, bits.size)), [100, 100, 101, 500]):
        assert received(bits, cut=cut) == (packets, [len(packets), 0, 0, 0])


def test_of_all_checks_one_is_right_so_that_random_ones_pass_with_two_to_the_minus_16():
    rest = [hdlc.register_after(np.array([1, 2, n >> 8, n & 255]), 4) for n in range(65536)]
    assert len(set(rest)) == 65536
