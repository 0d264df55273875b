import math

import numpy as np
import pytest
from needs import package

from blocks.kernels import mode_s
from blocks.kernels import mode_s_encoding as sent
from blocks.kernels.mode_s import Code, Number

POLYNOMIAL = 0x1FFF409  # Annex 10 Volume IV, 3.1.2.3.3, all 25 coefficients


def remainder(message):
    """Long division of the bits, as integers."""
    value = int.from_bytes(bytes(message), "big")
    for shift in range(8 * len(message) - 25, -1, -1):
        if value >> (shift + 24) & 1:
            value ^= POLYNOMIAL << shift
    return value


def long(message):
    return np.pad(message, (0, 14 - len(message)))


def said(*messages):
    """Numbers, codes and callsigns that `contents` finds."""
    rows = np.array([long(message) for message in messages])
    numbers = np.empty((len(rows), len(Number)))
    codes = np.empty((len(rows), len(Code)), np.int32)
    callsigns = np.empty((len(rows), 8), np.uint8)
    mode_s.contents(rows, numbers, codes, callsigns)
    return numbers, codes, [row.tobytes().decode() for row in callsigns]


def squitter(content):
    return sent.extended_squitter(0x406B90, content)


def of_hex(text):
    return np.frombuffer(bytes.fromhex(text), np.uint8)


@pytest.mark.parametrize("size", [56, 112])
def test_residues_are_remainders_of_long_division(size):
    messages = np.random.default_rng(1).integers(0, 256, (200, 14), np.uint8)
    found = np.empty(200, np.uint32)
    mode_s.residues(messages, size, found)
    assert found.tolist() == [remainder(message[: size // 8]) for message in messages]


@pytest.mark.parametrize("size", [56, 112])
def test_syndromes_add_up_to_the_residue_of_any_errors(size):
    rng = np.random.default_rng(2)
    clean = squitter(1 << 30)[: size // 8]
    syndromes = mode_s.syndromes(size)
    assert len(set(syndromes.tolist())) == size  # a single wrong bit is found for certain
    for _ in range(100):
        wrong = rng.random(size) < 0.1
        message = clean ^ np.packbits(wrong)
        both = mode_s.residue(clean, size) ^ np.bitwise_xor.reduce(syndromes[wrong], initial=0)
        assert mode_s.residue(message, size) == both


def test_every_squawk_comes_back_from_its_code():
    squawks = [int(f"{n:04o}") for n in range(4096)]
    assert [mode_s.squawk(sent.squawk_code(squawk)) for squawk in squawks] == squawks


def test_every_altitude_has_one_code():
    # in steps of 25 ft as far as 11 bits reach, then 100 ft up to the end of the table in Annex 10
    altitudes = [*range(-1000, 50200, 25), *range(50200, 126800, 100)]
    codes = [sent.altitude_code(altitude) for altitude in altitudes]
    assert [mode_s.altitude(code) for code in codes] == altitudes
    assert len(set(codes)) == len(codes)


def test_gray_codes_tell_each_hundred_feet_once_and_their_neighbours_differ_in_one_pulse():
    codes = {}
    for code in range(1 << 13):
        if not code & (mode_s.METRIC | mode_s.FINE) and not math.isnan(mode_s.altitude(code)):
            codes.setdefault(mode_s.altitude(code), []).append(code)
    assert sorted(codes) == list(range(-1200, 126800, 100))
    assert all(len(found) == 1 for found in codes.values())
    for altitude in range(-1200, 126700, 100):
        assert (codes[altitude][0] ^ codes[altitude + 100][0]).bit_count() == 1


def test_altitude_is_not_told_by_zero_or_in_metres():
    assert math.isnan(mode_s.altitude(0))
    assert math.isnan(mode_s.altitude(mode_s.METRIC | 0x123))
    assert sent.altitude_code(math.nan) == 0


@pytest.mark.parametrize(
    ("movement", "knots"),
    # the ends of the rows of the table in DO-260B, 2.2.3.2.4.2
    [(1, 0), (2, 0.125), (8, 0.875), (9, 1), (12, 1.75), (13, 2), (38, 14.5), (39, 15), (93, 69),
     (94, 70), (108, 98), (109, 100), (123, 170), (124, 175)],
)  # fmt: skip
def test_speeds_on_the_surface_are_those_of_the_table(movement, knots):
    assert mode_s.surface_speed(movement) == knots


@pytest.mark.parametrize("movement", [0, 125, 127])
def test_a_movement_that_is_reserved_tells_no_speed(movement):
    assert math.isnan(mode_s.surface_speed(movement))


def test_messages_printed_in_the_1090_megahertz_riddle():
    # "The 1090 Megahertz Riddle", chapters 4 and 7
    numbers, codes, callsigns = said(
        of_hex("8D4840D6202CC371C32CE0576098"),
        of_hex("8D485020994409940838175B284F"),
        of_hex("8DA05F219B06B6AF189400CBC33F"),
        of_hex("8D40621D58C382D690C8AC2863A7"),
    )
    assert callsigns[0] == "KLM1023 "
    assert numbers[1, Number.GROUND_SPEED] == pytest.approx(159.20, abs=0.01)
    assert numbers[1, Number.TRACK] == pytest.approx(182.88, abs=0.01)
    assert numbers[1, Number.VERTICAL_RATE] == -832
    assert numbers[2, Number.TRUE_AIRSPEED] == 375
    assert math.isnan(numbers[2, Number.INDICATED_AIRSPEED])
    assert numbers[2, Number.HEADING] == pytest.approx(243.98, abs=0.01)
    assert numbers[2, Number.VERTICAL_RATE] == -2304
    assert numbers[3, Number.ALTITUDE] == 38000
    assert codes[3].tolist() == [11, -1, 0, 0, 93000, 51372]


def test_velocities_come_back_at_both_steps():
    rng = np.random.default_rng(3)
    for most, step in ((1021, 1), (4000, 4)):
        east, north = rng.integers(-most // step, most // step, (2, 50)) * step
        east[0] = most // step * step
        climb = rng.integers(-500, 500, 50) * 64
        parts = zip(east, north, climb, strict=True)
        numbers, _, _ = said(*(squitter(sent.ground_velocity(*part)) for part in parts))
        around = np.degrees(np.arctan2(east, north)) % 360
        # above 1021 kt both parts are told in steps of 4; slower ones of the second round are not
        quick = np.maximum(abs(east), abs(north)) > 1021 if step == 4 else east == east
        assert quick.any()
        np.testing.assert_allclose(
            numbers[:, Number.GROUND_SPEED][quick], np.hypot(east, north)[quick]
        )
        np.testing.assert_allclose(numbers[:, Number.TRACK][quick], around[quick])
        np.testing.assert_array_equal(numbers[:, Number.VERTICAL_RATE], climb)


@pytest.mark.parametrize("true", [True, False])
@pytest.mark.parametrize("knots", [0, 431, 1021, 1024, 1600])
def test_airspeeds_and_headings_come_back(knots, true):
    numbers, _, _ = said(squitter(sent.air_velocity(243.984375, knots, 0.0, true=true)))
    own, other = Number.TRUE_AIRSPEED, Number.INDICATED_AIRSPEED
    if not true:
        own, other = other, own
    assert numbers[0, own] == knots
    assert math.isnan(numbers[0, other])
    assert numbers[0, Number.HEADING] == 243.984375
    assert numbers[0, Number.VERTICAL_RATE] == 0
    assert math.isnan(numbers[0, Number.GROUND_SPEED])


def test_a_velocity_that_is_not_told_stays_away():
    numbers, _, _ = said(squitter(19 << 51 | 1 << 48))  # all parts 0
    assert np.isnan(numbers).all()
    numbers, _, _ = said(squitter(19 << 51 | 5 << 48 | 0xFFFFFFFFFF))  # subtype 5
    assert np.isnan(numbers).all()
    numbers, _, _ = said(squitter(sent.ground_velocity(0.0, 0.0, 0.0)))
    assert numbers[0, Number.GROUND_SPEED] == 0
    assert math.isnan(numbers[0, Number.TRACK])  # of what stands still


def test_callsigns_come_back_from_squitters_and_registers():
    names = ["KLM1023", "EZY85MH", "A", "12345678", ""]
    messages = [squitter(sent.callsign(name)) for name in names]
    messages += [sent.altitude_reply(1, 0, register=sent.callsign_register(name)) for name in names]
    _, _, found = said(*messages)
    assert found == [f"{name:8}" for name in names] * 2


def test_characters_that_are_none_give_no_callsign():
    _, _, found = said(squitter(4 << 51 | 0x3F << 6))
    assert found == ["\0" * 8]


@pytest.mark.parametrize("text", ["TOOLONG12", "lower", "A#B", "A-B"])
def test_a_callsign_of_other_characters_is_refused(text):
    with pytest.raises(ValueError, match="no callsign"):
        sent.callsign(text)


def test_replies_carry_address_status_altitude_and_squawk():
    numbers, codes, _ = said(
        sent.altitude_reply(0x4D2023, 20025, status=1),
        sent.altitude_reply(0x4D2023, 60000, register=0),
        sent.identity_reply(0x4D2023, 7700, status=2),
        sent.identity_reply(0x4D2023, 112, register=0, status=5),
        sent.all_call_reply(0x4D2023, capability=4),
        sent.air_air_reply(0x4D2023, 175, on_ground=True),
    )
    assert numbers[[0, 1, 5], Number.ALTITUDE].tolist() == [20025, 60000, 175]
    assert codes[:, Code.SQUAWK].tolist() == [-1, -1, 7700, 112, -1, -1]
    assert codes[:, Code.ON_GROUND].tolist() == [1, 0, 0, -1, 1, 1]
    assert mode_s.residue(sent.air_air_reply(0x4D2023, 0), 56) == 0x4D2023
    assert mode_s.residue(sent.altitude_reply(0x4D2023, 0), 56) == 0x4D2023
    assert mode_s.residue(sent.identity_reply(0x4D2023, 0, register=77), 112) == 0x4D2023
    assert mode_s.residue(sent.all_call_reply(0x4D2023, interrogator=60), 56) == 60


def test_a_surface_position_tells_speed_and_track():
    content = sent.surface_position(52.3, 4.7, 30, 90.0, 1)
    numbers, codes, _ = said(squitter(content), squitter(content & ~(1 << 43)))
    assert numbers[0, Number.GROUND_SPEED] == 10.5
    assert numbers[0, Number.TRACK] == 90
    assert math.isnan(numbers[1, Number.TRACK])
    assert codes[:, Code.ON_GROUND].tolist() == [1, 1]


def test_a_geometric_height_is_no_altitude():
    content = sent.airborne_position(52.3, 4.7, 3000, 0, type_code=20)
    numbers, codes, _ = said(squitter(content))
    assert math.isnan(numbers[0, Number.ALTITUDE])
    assert codes[0, Code.ODD] == 0


def test_random_long_messages_say_what_pymodes_says():
    pymodes = package("pyModeS")
    rng = np.random.default_rng(4)
    messages = []
    for number in range(3000):
        if number % 3:
            kind = number % 19 + 1
            content = kind << 51 | int(rng.integers(1 << 51))
            if kind == 19:  # the other subtypes are reserved
                content = content & ~(7 << 48) | int(rng.integers(1, 5)) << 48
            messages.append(squitter(content))
        else:
            code = int(rng.integers(1 << 13))
            head = (4, 5, 20, 21)[number % 4] << 27 | code
            size = 56 if number % 4 < 2 else 112
            messages.append(sent._message(head << (size - 56), size, 0x4D2023))
    numbers, codes, _ = said(*messages)
    compared = dict.fromkeys(("altitude", "squawk", "track", "groundspeed", "vertical_rate"), 0)
    for message, number, code in zip(messages, numbers, codes, strict=True):
        expected = pymodes.decode(message.tobytes().hex())
        found = {
            "altitude": number[Number.ALTITUDE],
            "squawk": f"{code[Code.SQUAWK]:04d}",
            "groundspeed": number[Number.GROUND_SPEED],
            "track": number[Number.TRACK],
            "heading": number[Number.HEADING],
            "vertical_rate": number[Number.VERTICAL_RATE],
            "typecode": code[Code.TYPE],
            "cpr_format": code[Code.ODD],
            "cpr_lat": code[Code.CPR_LATITUDE],
            "cpr_lon": code[Code.CPR_LONGITUDE],
        }
        for name, value in found.items():
            wanted = expected.get(name)
            if wanted is None:
                continue
            compared[name] = compared.get(name, 0) + 1
            if name == "squawk":
                assert value == wanted
            elif name == "groundspeed" and code[Code.TYPE] == 19:
                assert int(value) == wanted, message.tobytes().hex()
            else:
                assert value == pytest.approx(wanted, abs=1e-9), (name, message.tobytes().hex())
    assert min(compared.values()) > 20
