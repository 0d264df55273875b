import csv
import math

import numpy as np
import pytest
from needs import package, recording

from blocks.decoder.mode_s import Modes
from blocks.kernels import mode_s_encoding as sent
from blocks.kernels.mode_s import Candidate, Position
from blocks.sink.modes_messages import ModesMessages
from blocks.source.modes_messages import ModesMessages as Messages
from pipeline import Flow, run
from pipeline.block import Context, make
from pipeline.errors import FieldError, ParameterError, RunError
from pipeline.frame import StreamInfo

A, B = 0x4D2023, 0x406B90
MESSAGE, FORMAT, PARITY, UNKNOWN, OVERLAP = Candidate


def decoder(continuous=True, **values):
    block = make(Modes, values, Context(info=StreamInfo(continuous=continuous)))
    block.start()
    return block


def candidates(messages):
    bits = np.zeros((len(messages), 112), np.uint8)
    for row, message in zip(bits, messages, strict=True):
        row[: 8 * len(message)] = np.unpackbits(np.asarray(message))
    return bits, np.array([8 * len(message) for message in messages], np.int16)


def decode(messages, times=None, block=None, **values):
    """What comes of messages with times of their own, one second apart unless told."""
    times = np.arange(len(messages), dtype=float) if times is None else np.array(times, float)
    block = block or decoder(**values)
    return block.process(*candidates(messages), np.zeros(len(messages)), times)


def sampled(messages, samples, **values):
    """What comes of messages that begin at these samples, at 2 MHz."""
    block = decoder(**{"rate_hz": 2e6, **values})
    return block.process(*candidates(messages), np.array(samples, float))


def airborne(place, odd, address=A, altitude_ft=3000.0):
    content = sent.airborne_position(*place, altitude_ft, odd)
    return sent.extended_squitter(address, content)


def surface(place, odd, address=A):
    content = sent.surface_position(*place, 30, 90.0, odd)
    return sent.extended_squitter(address, content)


def in_turn(places, make=airborne):
    return [make(place, n % 2) for n, place in enumerate(places)]


# which candidates are messages


def test_an_address_counts_only_after_a_clean_message():
    reply = sent.altitude_reply(A, 3000.0)
    found = decode([reply, sent.all_call_reply(B), reply, sent.all_call_reply(A), reply])
    assert found.candidate_status.tolist() == [UNKNOWN, MESSAGE, UNKNOWN, MESSAGE, MESSAGE]
    assert found.message_address.tolist() == [B, A, A]
    assert found.message_strict.tolist() == [1, 1, 1]
    assert found.message_format.tolist() == [11, 11, 4]
    assert found.altitude[2] == 3000.0


def test_an_aircraft_is_forgotten_by_the_time_of_messages():
    reply = sent.identity_reply(A, 7700)
    found = decode([sent.all_call_reply(A), reply, reply, reply], [0.0, 60.0, 60.5, 0.5])
    assert found.candidate_status.tolist() == [MESSAGE, MESSAGE, UNKNOWN, MESSAGE]
    # replies do not keep it alive: they may be random bits themselves
    found = decode([sent.all_call_reply(A), reply, reply], [0.0, 50.0, 100.0])
    assert found.candidate_status.tolist() == [MESSAGE, MESSAGE, UNKNOWN]


def test_a_wrong_bit_is_a_wrong_parity():
    message = airborne((50.0, 8.0), 0)
    for bit in (5, 40, 111):
        wrong = np.packbits(np.unpackbits(message) ^ (np.arange(112) == bit))
        found = decode([wrong])
        assert found.candidate_status.tolist() == [PARITY]
        assert found.messages.shape == (0, 14)


@pytest.mark.parametrize("kind", [1, 2, 3, 6, 10, 12, 15, 19, 22, 23])
def test_formats_that_nobody_sends_are_none(kind):
    message = sent._message(kind << 27, 112 if kind >= 16 else 56, 0)
    assert decode([message]).candidate_status.tolist() == [FORMAT]


def test_a_length_that_contradicts_the_format_is_none():
    short, long = sent.all_call_reply(A), airborne((50.0, 8.0), 0)
    assert decode([long[:7], np.append(short, short)]).candidate_status.tolist() == [FORMAT] * 2


@pytest.mark.parametrize(
    ("kind", "bit"), [(4, 6), (5, 6), (20, 6), (21, 6), (0, 8), (0, 12), (0, 19), (16, 7), (16, 13)]
)
def test_bits_that_nobody_sets_are_no_format(kind, bit):
    size = 56 if kind < 16 else 112
    clean = kind << (size - 29)
    both = 3 << (size - 24 - 7) if bit == 6 else 1 << (size - 24 - bit)  # flight status 6
    messages = [sent._message(clean, size, A), sent._message(clean | both, size, A)]
    found = decode([sent.all_call_reply(A), *messages])
    assert found.candidate_status.tolist() == [MESSAGE, MESSAGE, FORMAT]


def test_comm_d_is_taken_only_if_asked_for():
    message = sent._message(27 << 83, 112, A)
    for comm_d, status in ((False, FORMAT), (True, MESSAGE)):
        found = decode([sent.all_call_reply(A), message], comm_d=comm_d)
        assert found.candidate_status.tolist() == [MESSAGE, status]
    assert found.message_format.tolist() == [11, 24]


def test_an_interrogator_code_is_believed_when_it_has_come_three_times():
    coded = [sent.all_call_reply(A, interrogator=code) for code in (60, 60, 9, 60, 60, 79)]
    found = decode([coded[0], sent.all_call_reply(A), *coded])
    assert found.candidate_status.tolist() == [UNKNOWN] + [MESSAGE] * 7
    assert found.message_interrogator.tolist() == [0, 60, 60, 9, 60, 60, 79]
    assert found.message_strict.tolist() == [1, 0, 0, 0, 1, 1, 0]


def test_what_other_aircraft_send_does_not_make_a_code_believed():
    others = [A + number for number in range(1, 6)]
    coded = [sent.all_call_reply(one, interrogator=4) for one in others]
    found = decode([*map(sent.all_call_reply, others), *coded])
    assert found.message_strict.tolist() == [1] * 5 + [0] * 5


def test_an_interrogator_that_fell_silent_begins_anew():
    clean, coded = sent.all_call_reply(A), sent.all_call_reply(A, interrogator=3)
    found = decode([clean, coded, coded, clean, clean, coded, coded], [0, 1, 2, 40, 80, 81, 82])
    assert found.message_strict.tolist() == [1, 0, 0, 1, 1, 0, 0]


def test_a_code_above_79_is_a_wrong_parity():
    found = decode([sent.all_call_reply(A), sent.all_call_reply(A, interrogator=80)])
    assert found.candidate_status.tolist() == [MESSAGE, PARITY]


def test_a_message_blocks_those_that_share_more_than_a_fifth_of_it():
    long, short = airborne((50.0, 8.0), 0), sent.all_call_reply(A)
    # at 2 MHz a long message lasts 240 samples, a short one 128
    found = sampled([long, short, long, short, long], [1000, 1191, 1193, 1432, 1535])
    assert found.candidate_status.tolist() == [MESSAGE, OVERLAP, MESSAGE, MESSAGE, MESSAGE]
    np.testing.assert_array_equal(found.message_time, np.array([1000, 1193, 1432, 1535]) / 2e6)
    found = sampled([long, long], [1000, 1000.5], overlap=1.0)
    assert found.candidate_status.tolist() == [MESSAGE, MESSAGE]


def test_what_is_no_message_blocks_nothing():
    reply = sent.altitude_reply(A, 3000.0)
    found = sampled([reply, sent.all_call_reply(A), reply], [0, 1, 140])
    assert found.candidate_status.tolist() == [UNKNOWN, MESSAGE, MESSAGE]


def test_two_hundred_made_up_addresses_take_as_many_random_bits_as_expected():
    # 2 million random candidates of which 7 / 64 begin like the formats 0, 4, 5, 16, 20 or 21 and
    # pass for unassigned bits with 1/32 or 3/4; each fits one of 200 addresses with 200 / 2^24, or
    # format 17 or 18 with 2^-24: 2.3 expected, and more than 9 in 3 of 10,000 seeds
    rng = np.random.default_rng(8)
    block = decoder()
    addresses = rng.choice(1 << 24, 200, replace=False)
    decode([sent.all_call_reply(int(address)) for address in addresses], np.zeros(200), block)
    accepted = 0
    for _ in range(10):
        bits = np.unpackbits(rng.integers(0, 256, (200_000, 14), np.uint8), axis=1)
        sizes = np.where(bits[:, 0], 112, 56).astype(np.int16)
        found = block.process(bits, sizes, np.zeros(200_000), np.zeros(200_000))
        accepted += len(found.messages)
    overlaid = 1 / 32 / 32 + 1 / 64 / 32 + 4 / 32 * 3 / 4
    expected = 2e6 * overlaid * 200 / 2**24
    assert 2.0 < expected < 2.5
    assert accepted <= 9


# positions


def test_a_position_is_told_once_two_pairs_agree():
    track = [(50.0, 8.0 + 0.001 * n) for n in range(8)]
    found = decode(in_turn(track))
    assert found.position_status.tolist() == [
        Position.ALONE, Position.FIRST, Position.ALONE, Position.PAIR, *[Position.NEAR] * 4
    ]  # fmt: skip
    assert np.isnan(found.latitude[:3]).all()
    np.testing.assert_allclose(found.latitude[3:], 50.0, atol=5e-5)
    np.testing.assert_allclose(found.longitude[3:], [place[1] for place in track[3:]], atol=5e-5)


def test_a_pair_that_is_too_old_tells_nothing():
    found = decode(in_turn([(50.0, 8.0)] * 4), [0.0, 10.5, 21.0, 31.0])
    assert found.position_status.tolist() == [Position.ALONE] * 3 + [Position.FIRST]


def test_a_pair_across_a_cut_does_not_put_an_aircraft_elsewhere():
    # 5 nautical miles between the first two: the zones of the pair do not fit
    track = [(50.0, 8.0), (50.09, 8.0)] + [(50.09, 8.0)] * 6
    found = decode(in_turn(track), continuous=False)
    told = found.latitude[np.isfinite(found.latitude)]
    assert told.size > 0
    np.testing.assert_allclose(told, 50.09, atol=5e-5)


def test_a_jump_is_left_out_and_a_lasting_one_believed():
    track = [(50.0, 8.0)] * 6
    track[5] = (51.0, 8.0)
    found = decode(in_turn(track + [(50.0, 8.0)] * 2))
    assert found.position_status.tolist()[4:] == [
        Position.NEAR, Position.IMPLAUSIBLE, Position.NEAR, Position.NEAR
    ]  # fmt: skip
    found = decode(in_turn([(50.0, 8.0)] * 5 + [(51.0, 8.0)] * 10))
    assert found.position_status.tolist()[5:8] == [Position.IMPLAUSIBLE] * 3
    assert found.latitude[-1] == pytest.approx(51.0, abs=5e-5)


def test_a_position_out_of_reach_of_the_receiver_is_implausible():
    messages = in_turn([(50.0, 8.0)] * 6)
    near = decode(messages, receiver=(49.0, 8.0), range_km=120.0)
    far = decode(messages, receiver=(49.0, 8.0), range_km=100.0)
    assert near.position_status[-1] == Position.NEAR
    assert set(far.position_status.tolist()) == {Position.ALONE, Position.IMPLAUSIBLE}


def test_surface_positions_need_a_receiver_or_a_landing():
    messages = in_turn([(-33.95, 151.18)] * 6, surface)
    assert set(decode(messages).position_status.tolist()) == {Position.ALONE}
    found = decode(messages, receiver=(-34.0, 151.0))
    assert found.position_status[-1] == Position.NEAR
    assert found.latitude[-1] == pytest.approx(-33.95, abs=2e-5)
    assert found.longitude[-1] == pytest.approx(151.18, abs=2e-5)
    landing = decode(in_turn([(-33.95, 151.18)] * 5) + messages)
    assert landing.position_status.tolist()[5:] == [Position.NEAR] * 6
    np.testing.assert_allclose(landing.longitude[5:], 151.18, atol=2e-5)
    assert landing.on_ground.tolist() == [0] * 5 + [1] * 6


def test_aircraft_do_not_share_positions():
    one = in_turn([(50.0, 8.0)] * 8)
    two = [airborne((-20.0, -170.0), n % 2, address=B) for n in range(8)]
    messages = [message for both in zip(one, two, strict=True) for message in both]
    found = decode(messages, np.arange(16) / 2)
    for address, latitude in ((A, 50.0), (B, -20.0)):
        own = found.latitude[found.message_address == address]
        np.testing.assert_allclose(own[3:], latitude, atol=5e-5)


# real messages


@pytest.mark.parametrize(
    ("name", "messages", "strict", "df17"),
    # reference of issue 4, section 3.1
    [
        ("modes1.antirez_padded_fix", 284, 284, 159),
        ("modes1.antirez_padded_nofix", 283, 281, 158),
        ("modes1.flightaware_resampled24", 325, 324, 183),
        ("modes1.mutability_resampled24", 326, 325, 183),
        ("modes1.readsb_resampled24_pt40", 351, 349, 197),
        ("test_1641427457780.flightaware", 4, 4, 3),
    ],
)
def test_what_peers_decoded_counts_as_it_was_counted(name, messages, strict, df17):
    source = Messages(path=str(recording(f"peer_output/{name}.hex")))
    source.start()
    block = make(Modes, {}, Context(info=source.describe()))
    block.start()
    sink = ModesMessages()
    sink.start()
    reads = sink.signature().reads
    while (frame := source.process()) is not None:
        found = block.process(**frame._asdict())
        sink.process(**{key: value for key, value in found._asdict().items() if key in reads})
        told = np.isfinite(found.latitude)
        # the flight goes from 37.104 N 13.783 E to 36.956 N 13.859 E
        assert ((found.latitude[told] > 36.95) & (found.latitude[told] < 37.11)).all()
        assert ((found.longitude[told] > 13.78) & (found.longitude[told] < 13.86)).all()
    source.close()
    counts = sink.report(None)
    assert (counts["messages"], counts["strict_messages"], counts["df17"]) == (
        messages, strict, df17,
    )  # fmt: skip
    assert counts["positions"] > 70 or messages == 4


def test_every_message_of_the_pymodes_file_says_what_pymodes_says():
    pymodes = package("pyModeS")
    with recording("modes/pymodes_sample_data_adsb.csv").open() as file:
        rows = list(csv.reader(file))
    times = np.array([float(row[0]) for row in rows])
    found = decode([np.frombuffer(bytes.fromhex(row[1]), np.uint8) for row in rows], times)
    assert len(found.messages) == 2000
    assert found.message_strict.all()
    pipe, positions = pymodes.PipeDecoder(), 0
    for n, (time, message, *_) in enumerate(rows):
        expected = pipe.decode(message, timestamp=float(time))
        assert f"{found.message_address[n]:06X}" == expected["icao"]
        assert found.type_code[n] == expected["typecode"]
        for name, array in (("altitude", found.altitude), ("vertical_rate", found.vertical_rate),
                            ("track", found.track)):  # fmt: skip
            if expected.get(name) is not None:
                assert array[n] == pytest.approx(expected[name], abs=1e-9)
        if "groundspeed" in expected:
            assert math.floor(found.ground_speed[n]) == expected["groundspeed"]
        if "callsign" in expected:
            assert found.callsign[n].tobytes().decode().strip() == expected["callsign"]
        if expected.get("latitude") is not None:
            positions += 1
            assert found.latitude[n] == pytest.approx(expected["latitude"], abs=1e-5)
            assert found.longitude[n] == pytest.approx(expected["longitude"], abs=1e-5)
    assert positions > 900
    assert np.isfinite(found.latitude).sum() >= positions


def test_a_flow_counts_the_same_however_the_file_is_cut(tmp_path):
    lines = []
    for n in range(60):
        place = (50.0 + 0.002 * n, 8.0)
        address = (A, B)[n % 2]
        lines.append(f"{1.6e9 + n / 4},{airborne(place, n // 2 % 2, address).tobytes().hex()}")
        lines.append(f"{1.6e9 + n / 4},{sent.identity_reply(address, 7000).tobytes().hex()}")
    (tmp_path / "messages.csv").write_text("\n".join(lines))
    flow = Flow.load("modes_messages")
    flow.set("messages.path", str(tmp_path / "messages.csv"))
    for length in (1, 7, 1000):
        flow.set("messages.length", length)
        found = run(flow)["results"]["counts"]
        assert (found["messages"], found["aircraft"], found["df5"]) == (120, 2, 60)
        # of each aircraft, the first three tell no position yet
        assert (found["positions"], found["position_alone"], found["position_first"]) == (54, 4, 2)


def test_rebroadcast_and_foreign_addresses_of_format_18():
    # control fields: 0 and 6 are laid out as ADS-B, 4 is the management of a ground station
    content = sent.airborne_position(50.0, 8.0, 3000.0, 0)
    messages = [
        sent._message((18 << 27 | control << 24 | A) << 56 | content, 112, 0)
        for control in (0, 6, 4)
    ]
    found = decode(messages)
    assert found.candidate_status.tolist() == [MESSAGE] * 3
    assert found.type_code.tolist() == [11, 11, -1]


# bad input


def test_candidates_of_another_length_are_refused():
    with pytest.raises(FieldError, match="'candidates' have 56 bits; expected 112"):
        decoder().process(np.zeros((1, 56), np.uint8), np.array([56], np.int16), np.zeros(1))


@pytest.mark.parametrize("size", [0, -8, 1, 57, 30000])
def test_lengths_that_no_message_has_are_no_format(size):
    block = decoder()
    bits = candidates([sent.all_call_reply(A)])[0]
    found = block.process(bits, np.array([size], np.int16), np.zeros(1), np.zeros(1))
    assert found.candidate_status.tolist() == [FORMAT]


def test_samples_need_a_rate():
    with pytest.raises(RunError, match="sample rate of stream main is not known; set rate_hz"):
        decoder().process(*candidates([sent.all_call_reply(A)]), np.zeros(1))


@pytest.mark.parametrize("receiver", [(50.0,), (91.0, 0.0), (0.0, 200.0), (1.0, 2.0, 3.0)])
def test_a_receiver_that_is_nowhere_is_refused(receiver):
    with pytest.raises(ParameterError, match="expected a latitude of -90"):
        Modes(receiver=receiver)
