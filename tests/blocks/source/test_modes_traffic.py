import math
from itertools import pairwise

import numpy as np
import pytest

from blocks.decoder.mode_s import Modes
from blocks.kernels import cpr, mode_s, mode_s_pulses
from blocks.source.modes_traffic import ModesTraffic
from pipeline.block import Context, make
from pipeline.errors import ParameterError


def traffic(seed=1, **values):
    """All fields of a stream, each in one piece."""
    source = make(ModesTraffic, values, Context(seed=seed))
    source.start()
    frames = []
    while (frame := source.process()) is not None:
        frames.append(frame)
    return type(frames[0])(*(np.concatenate(arrays) for arrays in zip(*frames, strict=True)))


AIRCRAFT, SECONDS = 12, 40.0


@pytest.fixture(scope="module")
def sky():
    """Some aircraft and all they send in a while, without samples."""
    source = make(ModesTraffic, {"aircraft": AIRCRAFT, "replies": 8.0}, Context(seed=2))
    source.start()
    source._send(int(SECONDS * source.rate_hz))
    return source


def kinds_of(source):
    """Messages by kind."""
    found = {}
    for sent in source._air:
        kind = int(sent.message[0] >> 3)
        name = f"17 type {sent.message[4] >> 3}" if kind == 17 else str(kind)
        if kind == 11 and mode_s.residue(sent.message, 56):
            name = "11 asked"
        found.setdefault(name, []).append(sent)
    return found


def test_aircraft_send_each_kind_at_the_rate_of_annex_10(sky):
    found = kinds_of(sky)
    assert set(found) == {
        "0", "4", "5", "11", "11 asked", "17 type 4", "17 type 11", "17 type 19", "20", "21",
    }  # fmt: skip
    # spacings (3.1.2.8.5, 3.1.2.8.6), but for waits while something else is sent, of 0.25 ms each
    for name, low, high in (
        ("11", 0.8, 1.2), ("17 type 11", 0.4, 0.6), ("17 type 19", 0.4, 0.6),
        ("17 type 4", 4.8, 5.2),
    ):  # fmt: skip
        for number in range(AIRCRAFT):
            begins = [sent.begin for sent in found[name] if sent.aircraft == number]
            spacing = np.diff(begins) / sky.rate_hz
            assert low - 1e-3 <= spacing.min()
            assert spacing.max() <= high + 1e-3
            if name == "17 type 11":
                assert spacing.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.3)  # of 80
    replies = sum(len(found[name]) for name in ("0", "4", "5", "11 asked", "20", "21"))
    # a Poisson number, 3840 +- 62
    assert replies / (AIRCRAFT * SECONDS) == pytest.approx(8.0, rel=0.05)


def test_an_aircraft_sends_one_message_at_a_time():
    source = make(ModesTraffic, {"aircraft": 2, "replies": 3000.0}, Context(seed=3))
    source.start()
    source._send(400_000)
    for number in range(2):
        own = [sent for sent in source._air if sent.aircraft == number]
        assert len(own) > 200
        for one, other in pairwise(own):
            assert other.begin > one.last + 125e-6 * source.rate_hz - 1.0


def test_messages_of_every_kind_say_to_pymodes_what_the_aircraft_does(sky):
    pymodes = pytest.importorskip("pyModeS", reason="pyModeS is not installed")
    for name, sent in kinds_of(sky).items():
        for row in sent[:40]:
            own = sky._aircraft[row.aircraft]
            told = pymodes.decode(row.message[: row.bits // 8].tobytes().hex())
            assert told["df"] == int(name.split()[0])
            assert told["icao"] == f"{own.address:06X}"
            if name == "11 asked":
                assert mode_s.residue(row.message, 56) == sky.interrogator
            elif name.startswith("17"):
                assert told["crc_valid"]
            if name in ("0", "4", "20", "17 type 11"):
                assert told["altitude"] == pytest.approx(row.altitude, abs=12.6)
            if name in ("5", "21"):
                assert told["squawk"] == f"{own.squawk:04d}"
            if name in ("20", "21", "17 type 4"):
                assert told["callsign"].strip("_ ") == own.callsign
            if name == "17 type 19":
                assert told["groundspeed"] == pytest.approx(row.ground_speed, abs=1.5)
                turned = (told["track"] - row.track + 180.0) % 360.0 - 180.0
                assert abs(turned) < math.degrees(1.5 / row.ground_speed)
                assert told["vertical_rate"] == pytest.approx(row.vertical_rate, abs=32.1)


def test_flights_are_smooth_stay_near_and_turn_and_climb(sky):
    turned = climbed = 0
    for number in range(AIRCRAFT):
        own = [sent for sent in sky._air if sent.aircraft == number]
        for one, other in pairwise(own):
            seconds = (other.begin - one.begin) / sky.rate_hz
            way_m = cpr.distance_m(one.latitude, one.longitude, other.latitude, other.longitude)
            speeds = sorted([one.ground_speed, other.ground_speed])
            # as far as it flies at its speed, the chord of a turn being shorter
            assert way_m <= speeds[1] * 1852 / 3600 * seconds * 1.001 + 0.01
            assert way_m >= speeds[0] * 1852 / 3600 * seconds * 0.998 - 0.01
            assert abs(other.altitude - one.altitude) <= 2500.0 / 60.0 * seconds + 1e-6
            turn = abs((other.track - one.track + 180.0) % 360.0 - 180.0)
            assert turn <= 3.0 * seconds + 1e-6
            turned += turn > 0.1 * seconds
            climbed += other.vertical_rate != 0.0
            assert 160.0 - 1.1 <= other.ground_speed <= 500.0 + 1.1
            assert 1900.0 <= other.altitude <= 41_100.0
    assert 0.1 < turned / len(sky._air) < 0.7
    assert 0.2 < climbed / len(sky._air) < 0.8


def test_positions_decode_to_where_the_aircraft_is(sky):
    sent = sky._air[:1500]
    decoder = Modes(rate_hz=sky.rate_hz)
    decoder.start()
    found = decoder.process(
        np.unpackbits(np.array([row.message for row in sent]), axis=1),
        np.array([row.bits for row in sent], np.int16),
        np.array([row.begin for row in sent]),
    )
    rows = {row.begin: row for row in sent}
    told = np.flatnonzero(np.isfinite(found.latitude))
    assert told.size > 100
    for n in told:
        row = rows[found.message_sample[n]]
        off_m = cpr.distance_m(found.latitude[n], found.longitude[n], row.latitude, row.longitude)
        # half a step of the grids: 2.6 m in latitude, in longitude up to 3.6 m at 50 degrees
        assert off_m < 4.5
        assert found.altitude[n] == pytest.approx(row.altitude, abs=12.6)


def test_the_signal_to_noise_ratio_is_that_of_the_tops_of_pulses_to_the_noise():
    """A filter much wider than the rate leaves pulses as they are, but for their edges."""
    values = {"length": 200_000, "frames": 1, "rate_hz": 4e6, "bandwidth_hz": 25e6, "noise": 0.02}
    quiet = traffic(**values, aircraft=0)
    power = float(np.mean(np.abs(quiet.samples.astype(complex)) ** 2))
    steps = 2 * (2 / 255) ** 2 / 12  # of rounding, in both parts
    assert power - steps == pytest.approx(0.02**2, rel=0.01)
    loud = traffic(**values, aircraft=1, replies=2000.0, snr_db=(20.0, 20.0))
    tops = []
    for begin, size, message in zip(
        loud.sent_sample, loud.sent_bits, loud.sent_messages, strict=True
    ):
        bits = np.unpackbits(message)[:size]
        chips = 16 + 2 * np.arange(size) + 1 - bits
        middles = begin + (0.5 * chips + 0.25) * 4.0
        tops.append(loud.samples[np.rint(middles).astype(int)])
    tops = np.abs(np.concatenate(tops).astype(complex)) ** 2
    assert len(tops) > 2000
    ratio_db = 10.0 * np.log10((tops.mean() - power) / 0.02**2)
    assert ratio_db == pytest.approx(20.0, abs=0.1)
    assert (loud.sent_snr_db == 20.0).all()


def test_without_bounds_the_ratio_falls_with_the_square_of_the_distance():
    values = {"aircraft": 60, "spread_db": 0.0, "snr_100km_db": 25.0, "receiver": (48.0, 11.0)}
    source = make(ModesTraffic, values, Context(seed=4))
    source.start()
    source._send(1_000_000)
    rest = []
    for sent in source._air:
        ground_m = cpr.distance_m(48.0, 11.0, sent.latitude, sent.longitude)
        away_m = math.hypot(ground_m, 0.3048 * sent.altitude)
        rest.append(sent.snr_db - (25.0 - 20.0 * math.log10(away_m / 100e3)))
    rest = np.array(rest)
    assert len(rest) > 150
    assert abs(rest.mean()) < 0.3  # single messages vary by 1 dB
    assert rest.std() == pytest.approx(1.0, rel=0.25)


def test_what_is_louder_than_full_scale_is_clipped():
    loud = traffic(length=100_000, frames=1, aircraft=1, replies=2000.0, snr_db=(60.0, 60.0))
    parts = loud.samples.view(np.float32)
    assert np.abs(parts).max() == 1.0
    codes = parts * 127.5 + 127.5
    assert np.abs(codes - np.rint(codes)).max() < 1e-4


def test_a_pulse_keeps_its_area_and_rings_on_both_sides():
    narrow = mode_s_pulses.response(0.1, 0.1, 2.0e6)
    assert narrow.sum() * mode_s_pulses.STEP_US == pytest.approx(0.5, rel=1e-6)
    np.testing.assert_allclose(narrow, narrow[::-1], atol=1e-12)
    assert narrow.min() < -0.02
    wide = mode_s_pulses.response(0.1, 0.1, 30e6)
    middle = round((mode_s_pulses.LEAD_US + 0.25) / mode_s_pulses.STEP_US)
    assert wide[middle] == pytest.approx(1.0, abs=0.01)


def test_messages_lie_where_they_are_said_to_and_nowhere_else():
    values = {"length": 60_000, "frames": 1, "replies": 1000.0, "noise": 1e-4, "offset_hz": 0.0}
    sent = traffic(**values, aircraft=1, snr_db=(60.0, 60.0))
    level = np.abs(sent.samples)
    apart = np.ones(level.size, bool)
    for begin, size in zip(sent.sent_sample, sent.sent_bits, strict=True):
        low, high = int(begin) - 6, int(begin + 2 * (8 + size)) + 6
        apart[max(low, 0) : high] = False
    assert len(sent.sent_bits) > 5
    assert level[apart].max() < 0.02
    assert level[~apart].mean() > 0.02
    last = sent.sent_sample + 2.0 * (8 + sent.sent_bits)
    assert (np.diff(last) > 0).all()
    assert last.max() <= 60_000


def test_bounds_that_do_not_fit_are_refused():
    with pytest.raises(ParameterError, match=r"source\.modes_traffic: snr_db = \[20.0, 4.0\]"):
        ModesTraffic(snr_db=(20.0, 4.0))
    with pytest.raises(ParameterError, match=r"receiver = \[85.0, 0.0\]; expected a latitude"):
        ModesTraffic(receiver=(85.0, 0.0))
